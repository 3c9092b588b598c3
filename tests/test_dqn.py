"""DQN learns what is known: values of episodes that end and that are cut, the best action, CartPole by its recipe."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rlkit import registry
from rlkit.algos import DQNConfig
from rlkit.models.dense import mlp

GAMMA = 0.8


class FiveSteps(gym.Env):
    """Reward 1 per step for five steps, then terminated or truncated; the observation is the time."""

    observation_space = gym.spaces.Box(0, 1, (5,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: dict[str, Any]):
        self.end = config["end"]
        self.t = 0

    def observe(self) -> np.ndarray:
        return np.eye(5, dtype=np.float32)[min(self.t, 4)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        over = self.t == 5
        return self.observe(), 1.0, over and self.end == "terminated", over and self.end == "truncated", {}


class Match(gym.Env):
    """One step; the reward is 1 if the action is the one the observation shows."""

    observation_space = gym.spaces.Box(0, 1, (4,))
    action_space = gym.spaces.Discrete(4)

    def __init__(self, config: Any = None):
        self.target = 0
        self.rng = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.target = int(self.rng.integers(4))
        return np.eye(4, dtype=np.float32)[self.target], {}

    def step(self, action: Any) -> Any:
        return np.zeros(4, np.float32), float(action == self.target), True, False, {}


def trained(env: type[gym.Env], env_config: dict[str, Any], iterations: int, **training: Any) -> Any:
    config = DQNConfig().environment(env, env_config=env_config).env_runners(num_envs_per_env_runner=4)
    config.training(
        lr=3e-3, gamma=GAMMA, train_batch_size_per_learner=32, training_intensity=16, epsilon=0.5,
        num_steps_sampled_before_learning_starts=64, target_network_update_freq=32,
        **{"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 2000}, **training},
    )  # fmt: skip
    config.rl_module(model_config={"fcnet_hiddens": [32], "fcnet_activation": "relu"})
    config.debugging(seed=0, log_level="ERROR").reporting(min_sample_timesteps_per_iteration=256)
    algorithm = config.build_algo()
    for _ in range(iterations):
        algorithm.train()
    learners: list[Any] = []
    algorithm.learner_group.foreach_learner(learners.append)
    algorithm.stop()
    return learners[0].module[DEFAULT_MODULE_ID]


def q_values(module: Any, obs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.compute_q_values({"obs": torch.from_numpy(obs)})["qf_preds"].numpy()


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_values_stop_at_termination_and_go_through_truncation(end: str, n_step: int) -> None:
    """Terminated: the sum of what is left. Truncated: the last observation is worth what would have followed."""
    module = trained(FiveSteps, {"end": end}, 12, n_step=n_step)
    values = q_values(module, np.eye(5, dtype=np.float32)).max(axis=1)
    left = sum(GAMMA**i for i in range(5)), 1.0
    if end == "truncated":
        # the observation after the fifth step is that of the fifth: its value is worth itself, 1 / (1 -
        # gamma)
        left = 1 / (1 - GAMMA), 1 / (1 - GAMMA)
    assert values[0] == pytest.approx(left[0], rel=0.15)
    assert values[4] == pytest.approx(left[1], rel=0.15)


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    "training",
    [{}, {"replay_buffer_config": {"type": "PrioritizedEpisodeReplayBuffer", "capacity": 2000}},
     {"num_atoms": 21, "v_min": -0.5, "v_max": 1.5, "dueling": False}],
    ids=["uniform", "prioritized", "distributional"],
)  # fmt: skip
def test_the_best_action_is_found(training: dict[str, Any]) -> None:
    module = trained(Match, {}, 6, **training)
    values = q_values(module, np.eye(4, dtype=np.float32))
    assert values.argmax(axis=1).tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(values.max(axis=1), 1.0, atol=0.2)


def test_recipes_mean_this_dqn_and_rllibs_by_its_name() -> None:
    assert registry.resolve("algorithms", "DQN").__module__ == "rlkit.algos.dqn"
    assert registry.resolve("algorithms", "SAC").__module__ == "rlkit.algos.sac"
    assert registry.resolve("algorithms", "rllib/DQN").__module__.startswith("ray.rllib.")
    assert registry.resolve("algorithms", "rllib/SAC").__module__.startswith("ray.rllib.")


def test_scale_maps_bounded_dimensions_to_one() -> None:
    space = gym.spaces.Dict(
        a=gym.spaces.Box(
            np.array([-4.0, -np.inf, 0.0], np.float32), np.array([4.0, np.inf, 10.0], np.float32)
        ),
        b=gym.spaces.Discrete(2),
    )
    net = mlp(space, hiddens=[3], activation="linear", scale=True)
    torch.nn.init.eye_(net.layers[0].weight)
    out = net({"a": torch.tensor([[2.0, 7.0, 10.0]]), "b": torch.tensor([[0.0, 1.0]])})
    assert out.tolist() == [[0.5, 7.0, 1.0]]


def test_the_value_of_a_dueling_distribution_learns() -> None:
    config = DQNConfig().environment("CartPole-v1").training(num_atoms=5, v_min=0.0, v_max=1.0, dueling=True)
    module = config.build_learner(env=gym.make("CartPole-v1")).module["default_policy"]
    out = module.compute_q_values({"obs": torch.randn(3, 4)})
    assert out["qf_logits"].shape == (3, 2, 5)
    (-torch.log_softmax(out["qf_logits"], dim=-1)[..., 0].mean()).backward()
    assert max(float(p.grad.abs().max()) for p in module.vf.parameters()) > 0.01
