"""Postprocessors with replay: columns reach the loss, hindsight copies are correct; and the example script."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray import cloudpickle
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit.algos.dqn import DQNConfig
from rlkit.callbacks import Callback, HindsightRelabel, MonteCarloReturns, RewardScale

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Reach(gym.Env):
    """A goal environment on a line: 6 steps, action 1 right, 0 left; reward 0 at the goal, else -1."""

    def __init__(self, config: Any = None):
        place = gym.spaces.Box(-10.0, 10.0, (1,), np.float32)
        self.observation_space = gym.spaces.Dict(
            {"observation": place, "achieved_goal": place, "desired_goal": place}
        )
        self.action_space = gym.spaces.Discrete(2)

    def _observation(self) -> dict[str, np.ndarray]:
        here, goal = np.array([self.place], np.float32), np.array([7.0], np.float32)
        return {"observation": here, "achieved_goal": here.copy(), "desired_goal": goal}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.place = self.t = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.place += 1 if action == 1 else -1
        observation = self._observation()
        reward = self.compute_reward(observation["achieved_goal"], observation["desired_goal"], {})
        return observation, float(reward), False, self.t == 6, {}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> Any:
        return np.where(np.abs(achieved - desired)[..., 0] < 0.5, 0.0, -1.0)


@pytest.mark.parametrize("fragment", [1, 4, 50])
@pytest.mark.parametrize("strategy", ["future", "final"])
def test_hindsight_copies_reach_their_goal(strategy: str, fragment: int) -> None:
    config = RLlibDQNConfig().environment(Reach).debugging(seed=1)
    config.env_runners(rollout_fragment_length=fragment)
    config.callbacks([HindsightRelabel.bind(copies=3, strategy=strategy, terminate=True)])
    from ray.rllib.connectors.env_to_module import FlattenObservations

    config.env_runners(env_to_module_connector=lambda env, spaces, device: FlattenObservations())
    runner = SingleAgentEnvRunner(config=config)
    episodes: list[Any] = []
    while len(episodes) < 8:
        episodes += runner.sample(random_actions=True)
    made = [e for e in episodes if e.is_terminated]
    originals = [e for e in episodes if not e.is_terminated]
    assert len(made) == len(originals) * (3 if strategy == "future" else 1)
    assert len({e.id_ for e in episodes}) == len(episodes)
    for episode in originals:
        assert len(episode) == 6
        assert (episode.get_observations()[:, 1] == 7.0).all()
        assert (np.array(episode.get_rewards()) == -1.0).all()
    for episode in made:
        episode.validate()
        achieved, desired, place = episode.get_observations().T
        np.testing.assert_array_equal(achieved, place)
        assert (desired == achieved[-1]).all()
        expected = np.where(achieved[1:] == achieved[-1], 0.0, -1.0)
        np.testing.assert_array_equal(episode.get_rewards(), expected)
        assert strategy == "future" or len(episode) == 6
    assert runner.get_metrics()["episode_return_mean"].peek() == -6.0


def test_hindsight_needs_replay(ray_local: None) -> None:
    config = PPOConfig().environment("CartPole-v1").callbacks([HindsightRelabel])
    with pytest.raises(Exception, match="PPO learns on-policy; relabelled goals need a replay buffer"):
        config.build_algo()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": 0}, "copies"),
        ({"strategy": "past"}, "'future' or 'final'"),
        ({"tolerance": 0}, "tolerance"),
    ],
)
def test_hindsight_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HindsightRelabel.bind(**options)


class Sees(Callback):
    """Checks in the learner what came through replay."""

    batches: list[Any] = []  # noqa: RUF012 - read by the test

    def on_learn_on_batch(self, *, train_batch: Any, **kwargs: Any) -> None:
        Sees.batches.append({k: np.asarray(v) for k, v in train_batch.items() if not isinstance(v, dict)})


def test_edits_and_columns_reach_the_loss_through_replay(ray_local: None) -> None:
    Sees.batches.clear()
    config = (
        DQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_envs_per_env_runner=4, rollout_fragment_length=8)
        .training(
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=50,
            gamma=0.9,
            replay_buffer_config={
                "type": "EpisodeReplayBuffer",
                "capacity": 1000,
                "columns": ["extra/mc"],
            },
        )
        .callbacks([RewardScale.bind(scale=100.0), MonteCarloReturns.bind(column="mc"), Sees])
        .reporting(min_sample_timesteps_per_iteration=200, min_time_s_per_iteration=0)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    try:
        runners = algorithm.train()["env_runners"]
    finally:
        algorithm.stop()
    assert 8 < runners["episode_return_mean"] < 100
    assert runners["edited_return"]["RewardScale"] == pytest.approx(100 * runners["episode_return_mean"])
    assert Sees.batches
    for batch in Sees.batches:
        assert set(batch["rewards"].tolist()) == {100.0}
        (name,) = [key for key in batch if key.endswith("mc")]
        # G = 100 (1 - 0.9^k) / 0.1 with k steps to go
        to_go = np.log1p(-batch[name] / 1000) / np.log(0.9)
        np.testing.assert_allclose(to_go, np.round(to_go), atol=2e-3)
        assert (to_go > 0.5).all()


def test_the_example_runs_with_nothing_else_of_rlkit(
    ray_local: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(__file__).parents[1] / "examples" / "callbacks_only.py"
    source = path.read_text()
    assert [line for line in source.splitlines() if "rlkit" in line and "import" in line] == [
        "from rlkit.callbacks import ("
    ]
    spec = importlib.util.spec_from_file_location("callbacks_only", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["callbacks_only"] = module
    cloudpickle.register_pickle_by_value(module)
    spec.loader.exec_module(module)
    result = module.main(2)
    runners = result["env_runners"]
    assert 0 < runners["edited_return"]["PunishSpeed"] < runners["episode_return_mean"]
    assert runners["edited_return"]["RewardScale"] == pytest.approx(
        runners["edited_return"]["PunishSpeed"] / 100
    )
    assert "restored: best return so far" in capsys.readouterr().out
