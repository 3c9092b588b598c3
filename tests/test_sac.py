"""SAC learns what is known: the best continuous action, and a temperature that moves towards its target entropy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rlkit.algos import SACConfig
from rlkit.algos.sac import soft_target, squared_for_huber


class Aim(gym.Env):
    """One step; the reward is minus the squared distance of the action to the target shown, in [-0.5, 0.5]."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, config: Any = None):
        self.rng = np.random.default_rng(0)
        self.target = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.target = self.rng.uniform(-0.5, 0.5, 1).astype(np.float32)
        return self.target, {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), -float(((action - self.target) ** 2).sum()), True, False, {}


def test_targets_and_squared_errors_by_hand() -> None:
    target = soft_target(
        torch.tensor([1.0, 1.0]), torch.tensor([False, True]), torch.tensor(0.5), torch.tensor([4.0, 4.0])
    )
    assert target.tolist() == [3.0, 1.0]
    q, weights = torch.tensor([6.0, 1.5]), torch.tensor([1.0, 2.0])
    # errors 3 and .5: squares 4.5 and .125, Huber 2.5 and .125
    assert squared_for_huber(q, target, weights).item() == pytest.approx((4.5 - 2.5) / 2)


@pytest.mark.usefixtures("ray_local")
def test_the_best_action_is_found() -> None:
    config = SACConfig().environment(Aim).env_runners(num_envs_per_env_runner=8)
    config.training(
        actor_lr=3e-3, critic_lr=3e-3, alpha_lr=3e-3, initial_alpha=0.2, train_batch_size_per_learner=64,
        training_intensity=32, num_steps_sampled_before_learning_starts=128,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 5000},
    )  # fmt: skip
    config.rl_module(model_config={"fcnet_hiddens": [32, 32], "fcnet_activation": "relu"})
    config.reporting(min_sample_timesteps_per_iteration=512, min_time_s_per_iteration=0)
    algorithm = config.debugging(seed=0, log_level="ERROR").build_algo()
    try:
        results = [algorithm.train() for _ in range(4)]
        learners: list[Any] = []
        algorithm.learner_group.foreach_learner(learners.append)
        module = learners[0].module[DEFAULT_MODULE_ID]
        targets = np.linspace(-0.5, 0.5, 9, dtype=np.float32)[:, None]
        with torch.no_grad():
            inputs = module.forward_inference({"obs": torch.from_numpy(targets)})["action_dist_inputs"]
            actions = module.get_inference_action_dist_cls().from_logits(inputs).to_deterministic().sample()
    finally:
        algorithm.stop()
    np.testing.assert_allclose(actions.numpy(), targets, atol=0.12)
    alphas = [float(r["learners"][DEFAULT_MODULE_ID]["alpha_value"]) for r in results]
    # the policy is more random than its target of -1 nat at first: the temperature falls
    assert alphas[-1] < alphas[0] < 0.25
