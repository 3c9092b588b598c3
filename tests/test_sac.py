"""SAC learns what is known: the best continuous action, and a temperature that moves towards its target entropy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.sac.sac_learner import LOGPS_KEY
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from rlkit.algos import SACConfig
from rlkit.algos.sac import automatic_entropy, expected_values, log_probs, soft_target, squared_for_huber


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


def test_what_is_logged_of_discrete_actions_is_expected_under_the_policy() -> None:
    probs = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    out = {
        "action_probs": probs, "action_log_probs": log_probs(probs),
        "qf_preds": torch.tensor([[4.0, 0.0], [1.0, 99.0]]), "qf_twin_preds": torch.tensor([[8.0, -4.0], [3.0, 9.0]]),
    }  # fmt: skip
    found = {name: float(value) for name, value in expected_values(out).items()}
    logp = 0.25 * np.log(0.25) + 0.75 * np.log(0.75)
    # .25 * 4 + .75 * -4 = -2, and 1
    assert found == pytest.approx({LOGPS_KEY: logp / 2, "qf_mean": -0.5, "qf_min": -2.0, "qf_max": 1.0})


def test_a_discrete_update_logs_them() -> None:
    config = SACConfig().environment(
        observation_space=gym.spaces.Box(-1, 1, (3,)), action_space=gym.spaces.Discrete(2)
    )
    config.training(train_batch_size_per_learner=4)
    config.validate()
    torch.manual_seed(0)
    spaces = {DEFAULT_MODULE_ID: (config.observation_space, config.action_space)}
    learner, seen = config.build_learner(spaces=spaces), []
    forward = learner.module[DEFAULT_MODULE_ID].unwrapped()._forward_train
    learner.module[DEFAULT_MODULE_ID].unwrapped()._forward_train = lambda batch: (
        seen.append(forward(batch)), seen[-1])[1]  # fmt: skip
    rng = np.random.default_rng(0)
    columns = {
        "obs": rng.normal(size=(1, 4, 3)).astype(np.float32), "new_obs": np.zeros((1, 4, 3), np.float32),
        "actions": np.zeros((1, 4), np.int64), "rewards": np.ones((1, 4), np.float32),
        "terminateds": np.zeros((1, 4), bool), "truncateds": np.zeros((1, 4), bool),
        "n_step": np.ones((1, 4), np.float32), "weights": np.ones((1, 4), np.float32),
    }  # fmt: skip
    found = learner.update_from_columns(
        [{DEFAULT_MODULE_ID: columns}], num_updates=1, env_steps=1,
        timesteps={"num_env_steps_sampled_lifetime": 1},
    )[DEFAULT_MODULE_ID]  # fmt: skip
    (out,) = seen
    entropy = -(out["action_probs"] * out["action_log_probs"]).sum(-1).mean()
    assert float(found[LOGPS_KEY].peek()) == pytest.approx(-float(entropy), abs=1e-5)


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


def test_the_automatic_entropy_of_discrete_actions_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def loss(self: Any, *, module_id: str, **_: Any) -> torch.Tensor:
        asked.append(float(self.target_entropy[module_id]))
        return torch.zeros(())

    config = SACConfig().environment("CartPole-v1").env_runners(num_env_runners=0)
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    monkeypatch.setattr(SACTorchLearner, "compute_loss_for_module", loss)
    batch, name = {Columns.OBS: torch.zeros(1, 4)}, DEFAULT_MODULE_ID
    learner.compute_loss_for_module(module_id=name, config=config, batch=batch, fwd_out={})
    assert asked == [pytest.approx(automatic_entropy(2))] == [pytest.approx(0.98 * 0.6931472)]
    assert float(learner.target_entropy[name]) == -1.0  # RLlib's, which no distribution over actions has
