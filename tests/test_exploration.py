"""Exploration inside RLlib's env runners and algorithms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray import cloudpickle
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.env.multi_agent_env import make_multi_agent
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit.exploration import configure

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Corridor(gym.Env):
    """50 steps; the observation is the place, 0 to 9; action 1 goes right, 0 left. One continuous action if asked."""

    def __init__(self, config: Any = None):
        config = config or {}
        self.observation_space = gym.spaces.Box(0.0, 9.0, (1,), np.float32)
        self.action_space = {
            "discrete": gym.spaces.Discrete(2),
            "multi": gym.spaces.MultiDiscrete([2, 3]),
            "box": gym.spaces.Box(-2.0, 2.0, (1,), np.float32),
            "half": gym.spaces.Box(0.0, np.inf, (1,), np.float32),
        }[config.get("actions", "discrete")]

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.place = self.t = 0
        return np.array([0.0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.place = int(np.clip(self.place + (1 if np.ravel(action)[0] > 0 else -1), 0, 9))
        return np.array([self.place], np.float32), 0.0, False, self.t == 50, {}


def config_of(base: Any, actions: str = "discrete", envs: int = 4, **training: Any) -> Any:
    config = base().environment(Corridor, env_config={"actions": actions}).debugging(seed=0)
    config.env_runners(num_envs_per_env_runner=envs, rollout_fragment_length=25, num_env_runners=0)
    return config.training(**training) if training else config


def runner_of(config: Any, exploration: dict[str, Any]) -> SingleAgentEnvRunner:
    configure(config, exploration)
    return SingleAgentEnvRunner(config=config)


def actions_of(runner: Any, samples: int = 1, **kwargs: Any) -> np.ndarray:
    return np.concatenate([e.get_actions() for _ in range(samples) for e in runner.sample(**kwargs)])


# which algorithm and action space may explore how ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "actions", "exploration", "message"),
    [
        (SACConfig, "discrete", "OrnsteinUhlenbeckNoise", r"action space is Discrete\(2\), expected Box"),
        (SACConfig, "multi", "GaussianNoise", "expected Box"),
        (DQNConfig, "discrete", "GaussianNoise", "expected Box"),
        (PPOConfig, "box", "GaussianNoise", "PPOConfig learns on-policy .*; use DQN or SAC"),
        (PPOConfig, "discrete", "ParameterNoise", "on-policy"),
        (PPOConfig, "discrete", "SoftQ", "PPOConfig has no Q-value per action; use a DQN"),
        (SACConfig, "box", "UpperConfidenceBound", "no Q-value per action"),
        (SACConfig, "box", "EpsilonGreedy", r"Box.*expected Discrete or MultiDiscrete"),
        (DQNConfig, "discrete", "StochasticSampling", "no distribution to sample from; use SoftQ"),
        (SACConfig, "half", "GaussianNoise", "finite bounds.*; set random_timesteps: 0, or bound"),
        (SACConfig, "half", "OrnsteinUhlenbeckNoise", "set random_timesteps: 0"),
        (SACConfig, "half", "ParameterNoise", "set random_timesteps: 0"),
        (PPOConfig, "half", "Random", "finite bounds, to draw uniform actions from; bound the environment"),
    ],
)
def test_what_cannot_work_is_an_error_before_training(
    base: Any, actions: str, exploration: str, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{exploration}: .*{message}"):
        configure(config_of(base, actions), {"type": exploration})


def test_sampling_in_an_unbounded_box_cannot_begin_with_uniform_actions() -> None:
    with pytest.raises(ValueError, match=r"StochasticSampling: .*finite bounds.*random_timesteps: 0"):
        configure(config_of(PPOConfig, "half"), {"type": "StochasticSampling", "random_timesteps": 10})
    configure(config_of(PPOConfig, "half"), {"type": "StochasticSampling"})


@pytest.mark.parametrize("kind", ["GaussianNoise", "OrnsteinUhlenbeckNoise"])
def test_noise_without_uniform_actions_needs_no_bounds(kind: str) -> None:
    runner = runner_of(config_of(SACConfig, "half"), {"type": kind, "random_timesteps": 0})
    assert np.isfinite(actions_of(runner)).all()


def test_intrinsic_rewards_do_not_nest() -> None:
    with pytest.raises(ValueError, match="CountBased is an intrinsic reward too"):
        configure(config_of(DQNConfig), {"type": "RND", "sub_exploration": {"type": "CountBased"}})


# what the actions are --------------------------------------------------------------------------------------------


def test_epsilon_greedy_on_dqn_is_rllibs_schedule() -> None:
    config = config_of(DQNConfig)
    configure(config, {"type": "EpsilonGreedy", "final_epsilon": 0.02, "epsilon_timesteps": 10_000})
    assert config.epsilon == [[0, 1.0], [10_000, 0.02]]
    assert config.callbacks_class.__name__ == "RLlibCallback"


@pytest.mark.parametrize(("actions", "uniform"), [("discrete", 1 / 2), ("multi", 1 / 6)])
def test_epsilon_greedy_on_a_policy_mixes_and_says_so(actions: str, uniform: float) -> None:
    config = config_of(PPOConfig, actions)
    runner = runner_of(config, {"type": "EpsilonGreedy", "epsilon_schedule": [[0, 0.4], [1, 0.4]]})
    with torch.no_grad():  # a policy that is almost sure of action 0
        runner.module.pi.net.mlp[-1].bias[:] = torch.tensor(
            [8.0] + [0.0] * (1 if actions == "discrete" else 4)
        )
    (episode, *_) = runner.sample()
    runner.sample(num_timesteps=2000)
    taken = actions_of(runner, num_timesteps=4000)
    first = taken if actions == "discrete" else taken[:, 0]
    assert (first != 0).mean() == pytest.approx(0.4 / 2, abs=0.03)
    module = runner.module
    logits = module.forward_inference({"obs": torch.as_tensor(episode.get_observations()[:-1])})[
        "action_dist_inputs"
    ]
    own = (
        module.get_inference_action_dist_cls()
        .from_logits(logits)
        .logp(torch.as_tensor(episode.get_actions()))
    )
    expected = np.log(0.6 * np.exp(own.detach().numpy()) + 0.4 * uniform)
    np.testing.assert_allclose(episode.get_extra_model_outputs("action_logp"), expected, rtol=1e-4)
    assert runner.get_metrics()["exploration"]["default_policy"]["epsilon"].peek() == pytest.approx(0.4)


@pytest.mark.parametrize("base", [DQNConfig, PPOConfig])
def test_each_remote_runner_has_its_own_epsilon(base: Any) -> None:
    seen = {}
    for worker in (0, 1, 2, 3):
        config = config_of(base).env_runners(num_env_runners=3, create_env_on_local_worker=True)
        configure(config, {"type": "PerWorkerEpsilonGreedy", "epsilon_schedule": [[0, 0.9], [1, 0.9]]})
        runner = SingleAgentEnvRunner(config=config, worker_index=worker)
        runner.sample(num_timesteps=4)
        if base is DQNConfig:
            seen[worker] = float(runner.module.epsilon_schedule.get_current_value())
        else:
            seen[worker] = runner.get_metrics()["exploration"]["default_policy"]["epsilon"].peek()
    expected = {0: 0.9, **{i: 0.4 ** (1 + 7 * (i - 1) / 2) for i in (1, 2, 3)}}
    assert seen == pytest.approx(expected)


def test_random_actions_end_after_their_steps() -> None:
    runner = runner_of(config_of(SACConfig, "box"), {"type": "Random", "random_timesteps": 400})
    early = actions_of(runner, 3)
    assert abs(early.mean()) < 0.15
    assert early.var() == pytest.approx(1 / 3, rel=0.15)
    assert np.abs(early).max() <= 1.0
    runner.num_env_steps_sampled_lifetime = 400
    before = runner.module.forward_exploration
    del runner.module.forward_exploration
    torch.manual_seed(0)
    runner.sample(num_timesteps=4, force_reset=True)
    plain = actions_of(runner)
    runner.module.forward_exploration = before
    torch.manual_seed(0)
    runner.sample(num_timesteps=4, force_reset=True)
    np.testing.assert_array_equal(actions_of(runner), plain)


@pytest.mark.parametrize("kind", ["GaussianNoise", "OrnsteinUhlenbeckNoise"])
def test_noise_is_added_to_the_mode_and_clipped(kind: str) -> None:
    options = {"random_timesteps": 100, "initial_scale": 1.0, "final_scale": 0.5, "scale_timesteps": 1000}
    config = config_of(SACConfig, "box", envs=64)
    runner = runner_of(config, {"type": kind, **options})
    first = actions_of(runner, num_timesteps=64)
    assert first.std() > 0.4  # uniform
    runner.num_env_steps_sampled_lifetime = 1100
    episodes = runner.sample(num_timesteps=64 * 24)
    noise = []
    for episode in episodes:
        out = runner.module.forward_inference({"obs": torch.as_tensor(episode.get_observations()[:-1])})
        mode = runner.module.get_inference_action_dist_cls().from_logits(out["action_dist_inputs"])
        noise.append(episode.get_actions() - mode.to_deterministic().sample().detach().numpy())
    x = np.array([n for n in noise if len(n) == 24])
    if kind == "GaussianNoise":
        assert x.std() == pytest.approx(0.5 * 0.1, rel=0.05)
        assert (x[:, 1:] * x[:, :-1]).mean() / x.var() == pytest.approx(0.0, abs=0.06)
    else:
        # 0.5 · 0.1 · (high - low) · x, late in the episode
        assert x[:, 12:].std() == pytest.approx(0.5 * 0.1 * 2 * np.sqrt(0.04 / (1 - 0.85**2)), rel=0.15)
        assert (x[:, 1:] * x[:, :-1]).mean() / (x**2).mean() == pytest.approx(0.85, abs=0.06)
    assert max(np.abs(e.get_actions()).max() for e in episodes) <= 1.0
    assert runner.get_metrics()["exploration"]["default_policy"]["noise_scale"].peek() == pytest.approx(0.5)


def test_softmax_over_q_has_boltzmann_frequencies() -> None:
    runner = runner_of(config_of(DQNConfig, envs=50), {"type": "SoftQ", "temperature": 0.5})
    runner.sample(num_timesteps=50)
    q = runner.module.compute_q_values({"obs": torch.zeros(1, 1)})["qf_preds"][0].detach().numpy()
    runner.sample(num_timesteps=50, force_reset=True)
    # The first action of every episode, always in place 0.
    taken = np.concatenate([actions_of(runner, num_timesteps=50, force_reset=True) for _ in range(100)])
    expected = np.exp(q / 0.5) / np.exp(q / 0.5).sum()
    assert taken.mean() == pytest.approx(expected[1], abs=0.025)


def test_ucb_tries_every_action_and_then_follows_its_formula() -> None:
    runner = runner_of(config_of(DQNConfig, envs=1), {"type": "UpperConfidenceBound", "c": 2.0, "bins": 10})
    runner.sample(num_timesteps=400)
    explorer = runner._callbacks[0].kept["default_policy"]
    counts = np.array(list(explorer.counter.table.values()))
    assert 400 <= counts.sum() <= 410  # an action after each reset, and one for the step under way
    assert (counts[counts.sum(1) > 2] > 0).all()
    # a large c makes all actions of a place equally frequent
    assert np.abs(np.diff(counts[counts.sum(1) > 50], axis=1)).max() / counts.max() < 0.5


def test_parameter_noise_moves_towards_its_distance_and_leaves_the_weights() -> None:
    runner = runner_of(
        config_of(DQNConfig, envs=2),
        {"type": "ParameterNoise", "initial_stddev": 1.0, "random_timesteps": 20, "epsilon": 0.0},
    )
    before = {k: v.clone() for k, v in runner.module.state_dict().items()}
    runner.sample(num_timesteps=20)
    explorer = runner._callbacks[0].kept["default_policy"]
    assert explorer.noise == []
    runner.num_env_steps_sampled_lifetime = 1000
    runner.sample(num_timesteps=100)
    first = [n.clone() for n in explorer.noise]
    stddev = explorer.stddev
    runner.sample(num_timesteps=400)
    assert not torch.equal(first[0], explorer.noise[0])  # new noise in each episode
    assert explorer.stddev != stddev
    assert explorer.stddev < 1.0
    assert all(torch.equal(before[k], v) for k, v in runner.module.state_dict().items())
    pairs = [(c, n) for c, n, free in explorer.pairs if free]
    for (clean, noisy), noise in zip(pairs, explorer.noise, strict=True):
        torch.testing.assert_close(noisy.data - clean.data, explorer.stddev * noise, rtol=1e-4, atol=1e-5)
    for module in (runner.module, explorer.twin):
        module.register_buffer("mean", torch.zeros(2))
    runner.module.mean += 5.0  # statistics move in training, as those of `normalize_observations` do
    explorer._apply()
    assert explorer.twin.mean.tolist() == [5.0, 5.0]
    for distance, factor in ((0.0, 1.01), (1e9, 1 / 1.01)):
        old = explorer.stddev
        explorer.adapt(distance)
        assert explorer.stddev == pytest.approx(old * factor)


def test_several_agents_have_noise_of_their_own() -> None:
    environment = make_multi_agent(Corridor)
    config = (
        SACConfig()
        .environment(environment, env_config={"num_agents": 2, "actions": "box"})
        .multi_agent(
            policies={"learns", "frozen"},
            policy_mapping_fn=lambda agent, *_, **__: "learns" if agent == 0 else "frozen",
            policies_to_train=["learns"],
        )
        .env_runners(num_envs_per_env_runner=3, rollout_fragment_length=25)
        .debugging(seed=0)
    )
    configure(config, {"type": "OrnsteinUhlenbeckNoise", "random_timesteps": 0, "scale_timesteps": 0})
    runner = MultiAgentEnvRunner(config=config)
    runner.sample()
    runner.sample()
    explorers = runner._callbacks[0].kept
    assert list(explorers) == ["learns"]
    assert explorers["learns"].process._states.shape == (3, 1)
    assert len(set(explorers["learns"].process._states.reshape(-1))) == 3


# switched off ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Random", "OrnsteinUhlenbeckNoise", "ParameterNoise"])
def test_explore_false_and_evaluation_act_as_without(kind: str) -> None:
    config = config_of(SACConfig, "box")
    runner = runner_of(config, {"type": kind})
    plain = SingleAgentEnvRunner(config=config_of(SACConfig, "box"))
    plain.module.set_state(runner.module.get_state())
    np.testing.assert_array_equal(actions_of(runner, explore=False), actions_of(plain, explore=False))
    config = config_of(SACConfig, "box")
    configure(config, {"type": kind})
    config.in_evaluation = True
    evaluating = SingleAgentEnvRunner(config=config)
    evaluating.sample(num_timesteps=4)
    assert "forward_exploration" not in vars(evaluating.module)


# schedules and state ----------------------------------------------------------------------------------------------


def small_sac() -> Any:
    return config_of(
        SACConfig, "box", envs=2, train_batch_size_per_learner=8, num_steps_sampled_before_learning_starts=10
    )


def noise_scale(result: dict[str, Any]) -> float:
    return result["env_runners"]["exploration"]["default_policy"]["noise_scale"]


def annealed(runners: int) -> Any:
    """Scale 1 - steps / 1000; 80 steps per iteration."""
    config = small_sac().env_runners(num_env_runners=runners, rollout_fragment_length=10)
    config.reporting(min_sample_timesteps_per_iteration=80, min_time_s_per_iteration=0)
    options = {"random_timesteps": 0, "final_scale": 0.0, "scale_timesteps": 1000}
    configure(config, {"type": "GaussianNoise", **options})
    return config


def test_schedules_resume_where_they_were(ray_local: None, tmp_path: Path) -> None:
    algorithm = annealed(0).build_algo()
    try:
        result = [algorithm.train() for _ in range(3)][-1]
        steps = result["num_env_steps_sampled_lifetime"]
        assert 1 - (steps + 20) / 1000 <= noise_scale(result) <= 1 - (steps - 90) / 1000
        path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    finally:
        algorithm.stop()
    restored = Algorithm.from_checkpoint(path)
    try:
        scales = [noise_scale(restored.train()) for _ in range(2)]
    finally:
        restored.stop()
    assert scales[0] < 1 - (steps - 90) / 1000
    assert scales[1] < 1 - (steps + 60) / 1000


def test_schedules_follow_the_steps_of_all_runners(ray_local: None) -> None:
    algorithm = annealed(2).build_algo()
    try:
        result = [algorithm.train() for _ in range(3)][-1]
    finally:
        algorithm.stop()
    steps = result["num_env_steps_sampled_lifetime"]
    assert steps >= 240
    # RLlib tells its runners the total once per iteration
    assert 1 - (steps + 40) / 1000 <= noise_scale(result) <= 1 - (steps - 130) / 1000


def test_counts_survive_in_a_checkpoint(ray_local: None, tmp_path: Path) -> None:
    config = config_of(DQNConfig, envs=1, num_steps_sampled_before_learning_starts=10_000)
    configure(config, {"type": "UpperConfidenceBound", "bins": 10})
    configure(config, {"type": "CountBased", "eta": 1.0, "bins": 10})
    config.reporting(min_sample_timesteps_per_iteration=100, min_time_s_per_iteration=0)
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
        runners = result["env_runners"]
        assert runners["episode_return_mean"] == 0.0
        assert runners["edited_return"]["IntrinsicRewards"] > 0
        saved = [c.call_runners("get_runner_state") for c in algorithm.callbacks]
        path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    finally:
        algorithm.stop()
    restored = Algorithm.from_checkpoint(path)
    try:
        for callback, state in zip(restored.callbacks, saved, strict=True):
            again = callback.call_runners("get_runner_state")
            assert str(again) == str(state)
    finally:
        restored.stop()


def test_masked_actions_are_never_drawn() -> None:
    from types import SimpleNamespace

    from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical

    from rlkit.exploration.explorers import with_random

    place: Any = SimpleNamespace(
        space=gym.spaces.Discrete(3),
        rng=np.random.default_rng(0),
        allowed=lambda batch: batch["allowed"],
        own_distribution=lambda out: TorchCategorical.from_logits(out["action_dist_inputs"]),
    )
    logits = torch.tensor([[0.0, -1e38, 1.0], [-1e38, -1e38, 0.0]]).repeat(500, 1)
    for share in (0.0, 0.5, 1.0):
        out = with_random(place, {"action_dist_inputs": logits}, {"allowed": logits.numpy() > -1.0}, share)
        taken = out["actions"].numpy().reshape(-1, 2)
        assert set(taken[:, 0]) == {0, 2}
        assert set(taken[:, 1]) == {2}
        policy = torch.softmax(logits[0], 0)[taken[:, 0]].numpy()
        logp = out["action_logp"].numpy().reshape(-1, 2)
        np.testing.assert_allclose(logp[:, 0], np.log((1 - share) * policy + share / 2), rtol=1e-5)
        np.testing.assert_allclose(logp[:, 1], 0.0, atol=1e-6)
