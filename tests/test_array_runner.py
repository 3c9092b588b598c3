"""The array runner returns the episodes of RLlib's runner, and is RLlib's runner where it cannot."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from rlkit import rllib
from rlkit.algos import DQNConfig, DRONConfig
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.envs.soccer import soccer
from rlkit.replay.episodes import rows

register_env("soccer", lambda context: soccer(**context))


def soccer_config(**training: Any) -> DRONConfig:
    config = DRONConfig().environment("soccer", env_config={"opponents": "styles", "horizon": 20})
    config.env_runners(
        num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=8,
        gym_env_vectorize_mode="vector_entry_point",
    )  # fmt: skip
    config.debugging(seed=3).training(**training)
    config.validate()
    return config


def cartpole_config() -> DQNConfig:
    config = DQNConfig().environment("CartPole-v1").env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    config.env_runners(rollout_fragment_length=16).debugging(seed=3)
    config.validate()
    return config


def flat(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"".join(flat(value[name]) for name in sorted(value))
    return np.ascontiguousarray(value).tobytes()


def content(episode: Any, labels: tuple[str, ...]) -> tuple:
    infos = rows(episode.infos)[1:]
    told = [flat(info[name]) for info in infos for name in labels]
    return (
        episode.t_started, len(episode), episode.is_terminated, episode.is_truncated, flat(rows(episode.observations)),
        flat(rows(episode.actions).astype(np.int64)), flat(rows(episode.rewards).astype(np.float64)), *told,
    )  # fmt: skip


def sampled(
    cls: type, config: Any, calls: int, labels: tuple[str, ...] = ()
) -> tuple[list, dict, ArrayEnvRunner]:
    torch.manual_seed(0)
    runner = cls(config=config)
    torch.manual_seed(1)
    fragments = [sorted(content(e, labels) for e in runner.sample()) for _ in range(calls)]
    return fragments, runner.get_metrics(), runner


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        (soccer_config(), ()),
        (soccer_config(network="flat", features=[]), ()),
        (soccer_config(history=3, features=["clock"], supervise="type"), ("dron_type",)),
        (soccer_config(supervise="action"), ("dron_action",)),
        (cartpole_config(), ()),
    ],
    ids=["features", "state alone", "window and types", "action labels", "cartpole"],
)
def test_episodes_and_metrics_are_those_of_rllib(config, labels):
    theirs, their_metrics, _ = sampled(rllib.seeded(SingleAgentEnvRunner), config, 8, labels)
    ours, our_metrics, runner = sampled(ArrayEnvRunner, config, 8, labels)
    assert runner._now is not None  # it took the short way
    assert sum(map(len, ours)) > 8 * config.num_envs_per_env_runner  # some games ended and others began
    assert ours == theirs
    for name in (
        "num_env_steps_sampled", "num_episodes", "episode_return_mean", "episode_len_mean", "episode_len_max",
        "num_env_steps_sampled_lifetime",
    ):  # fmt: skip
        assert our_metrics[name].peek() == pytest.approx(their_metrics[name].peek()), name


def test_an_iteration_reports_the_mean_of_its_episodes(ray_local):
    lengths: list[int] = []

    class Count(RLlibCallback):
        def on_episode_end(self, *, episode: Any, **kwargs: Any) -> None:
            lengths.append(episode.t)

    config = cartpole_config().callbacks(Count)
    config.training(num_steps_sampled_before_learning_starts=10**6).reporting(
        min_sample_timesteps_per_iteration=400
    )
    algorithm = config.build_algo()
    try:
        for _ in range(2):
            lengths.clear()
            result = algorithm.train()["env_runners"]  # many samples, with few episodes each
            assert len(lengths) > 5
            assert result["episode_len_mean"] == pytest.approx(np.mean(lengths))
            assert result["episode_return_mean"] == pytest.approx(np.mean(lengths))
            assert result["episode_len_max"] == max(lengths)
    finally:
        algorithm.stop()


def test_fragments_of_one_game_carry_one_id_and_join():
    runner = ArrayEnvRunner(config=soccer_config())
    times: dict[str, int] = {}
    finished = set()
    for _ in range(10):
        for episode in runner.sample():
            assert episode.id_ not in finished
            assert episode.t_started == times.get(episode.id_, 0)
            times[episode.id_] = episode.t
            if episode.is_done:
                finished.add(episode.id_)
    assert len(finished) > 10


def test_whole_episodes_and_random_actions_are_rllibs():
    runner = ArrayEnvRunner(config=soccer_config())
    runner.sample()
    whole = runner.sample(num_episodes=5)
    assert len(whole) == 5
    assert all(e.is_done and e.t_started == 0 for e in whole)
    assert runner._now is None
    assert sum(len(e) for e in runner.sample(num_timesteps=40, random_actions=True)) >= 40
    assert sum(len(e) for e in runner.sample()) >= 64


class Watch(RLlibCallback):
    def on_episode_step(self, **kwargs: Any) -> None:
        raise LookupError("called")


def test_dqn_and_dron_take_it_by_themselves():
    assert cartpole_config().env_runner_cls is ArrayEnvRunner
    assert soccer_config().env_runner_cls is ArrayEnvRunner


@pytest.mark.parametrize("reason", ["callback", "connector"])
def test_what_needs_episodes_gets_rllibs_loop(reason):
    config = soccer_config()
    if reason == "callback":
        config.callbacks(Watch)
        with pytest.raises(LookupError, match="called"):
            ArrayEnvRunner(config=config).sample()
        return
    from ray.rllib.connectors.env_to_module import FlattenObservations, PrevActionsPrevRewards

    config = cartpole_config()
    config.env_runners(
        env_to_module_connector=lambda env, spaces, device: [PrevActionsPrevRewards(), FlattenObservations()]
    )
    runner = ArrayEnvRunner(config=config)
    assert sum(len(e) for e in runner.sample()) >= 64
    assert runner._now is None


class Fails(gym.Env):
    """Fails in its tenth step, once."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        Fails.steps += 1
        if Fails.steps == 10:
            raise RuntimeError("broken")
        return np.zeros(2, np.float32), 0.0, False, False, {}


def test_an_environment_that_fails_once_is_built_anew():
    register_env("fails", lambda context: Fails())
    config = DQNConfig().environment("fails", normalize_actions=False).fault_tolerance(
        restart_failed_sub_environments=True
    )  # fmt: skip
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=8)
    config.validate()
    Fails.steps = 0
    runner = ArrayEnvRunner(config=config)
    assert sum(len(e) for e in runner.sample()) == 16
    assert runner._now is not None
