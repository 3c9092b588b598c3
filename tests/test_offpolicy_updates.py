"""One update from columns is RLlib's own update, to 1e-6, whatever the options."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.algorithms.sac import SACConfig as RLlibSACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlkit.algos import DQNConfig, SACConfig

B = 32


def batch_of(
    env: gym.Env, rng: np.random.Generator, *, n_step: bool = False, weights: bool = False
) -> dict[str, Any]:
    space, act = env.observation_space, env.action_space
    actions = (
        rng.integers(0, act.n, B)
        if isinstance(act, gym.spaces.Discrete)
        else rng.uniform(-1, 1, (B, *act.shape)).astype(np.float32)
    )
    return {
        "obs": rng.standard_normal((B, *space.shape), np.float32),
        "new_obs": rng.standard_normal((B, *space.shape), np.float32),
        "actions": actions,
        "rewards": rng.standard_normal(B).astype(np.float32),
        "terminateds": rng.random(B) < 0.3,
        "truncateds": np.zeros(B, bool),
        "weights": rng.random(B).astype(np.float32) if weights else np.ones(B, np.float32),
        "n_step": rng.integers(1, 4, B).astype(np.float32) if n_step else np.ones(B, np.float32),
    }


def both_learners(
    ours: Any, theirs: Any, env_name: str, training: dict[str, Any], model: dict[str, Any]
) -> tuple[Any, ...]:
    learners = []
    for config in (ours, theirs):
        config.environment(env_name).training(**training).rl_module(model_config=model)
        config.validate()
        learners.append(config.build_learner(env=gym.make(env_name)))
    mine, rllibs = learners
    rllibs.module.set_state(mine.module.get_state())
    return mine, rllibs


def update_both(mine: Any, rllibs: Any, batch: dict[str, Any], timestep: int) -> None:
    update_mine(mine, batch, timestep)
    update_rllibs(rllibs, batch, timestep)


def update_mine(mine: Any, batch: dict[str, Any], timestep: int) -> Any:
    chunk = {DEFAULT_MODULE_ID: {k: v[None] for k, v in batch.items()}}
    torch.manual_seed(timestep)
    timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: timestep}
    return mine.update_from_columns([chunk], num_updates=1, env_steps=100, timesteps=timesteps)


def update_rllibs(rllibs: Any, batch: dict[str, Any], timestep: int) -> Any:
    torch.manual_seed(timestep)
    timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: timestep}
    tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
    return rllibs.update(
        batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(tensors)}, B), timesteps=timesteps
    )


def assert_same_weights(mine: Any, rllibs: Any, atol: float = 1e-6) -> None:
    a = mine.module[DEFAULT_MODULE_ID].state_dict()
    b = rllibs.module[DEFAULT_MODULE_ID].state_dict()
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


MODEL = {"fcnet_hiddens": [32, 32], "fcnet_activation": "relu"}

DQN_OPTIONS = {
    "plain": {"double_q": False, "dueling": False},
    "double": {"double_q": True, "dueling": False},
    "dueling": {"double_q": False, "dueling": True},
    # with dueling on, RLlib's C51 adds the value head to every atom alike: its gradient is 0 but for
    # rounding, which Adam blows up to the size of a step in both learners
    "distributional": {"num_atoms": 11, "v_min": -3.0, "v_max": 3.0, "dueling": False},
    "n_step": {"n_step": 3},
    "prioritized": {"replay_buffer_config": {"type": "PrioritizedEpisodeReplayBuffer"}},
    "uniform": {"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 1000}},
    "mse, clipped hard": {"td_error_loss_fn": "mse", "grad_clip": 0.1},
    "clip by value": {"grad_clip": 0.01, "grad_clip_by": "value"},
    "soft targets": {"tau": 0.05, "target_network_update_freq": 0},
    "schedule": {"lr": [[0, 1e-3], [1000, 1e-5]]},
}


@pytest.mark.parametrize("options", DQN_OPTIONS.values(), ids=DQN_OPTIONS)
def test_a_dqn_update_is_rllibs(options: dict[str, Any]) -> None:
    training = {"lr": 1e-3, "target_network_update_freq": 250, **options}
    mine, rllibs = both_learners(DQNConfig(), RLlibDQNConfig(), "CartPole-v1", training, MODEL)
    rng = np.random.default_rng(0)
    env = gym.make("CartPole-v1")
    for timestep in (100, 200, 300, 400):
        batch = batch_of(env, rng, n_step="n_step" in options, weights="replay_buffer_config" in options)
        update_both(mine, rllibs, batch, timestep)
        assert_same_weights(mine, rllibs)


SAC_OPTIONS = {
    "continuous": ("Pendulum-v1", {}),
    "one critic": ("Pendulum-v1", {"twin_q": False}),
    "clipped": ("Pendulum-v1", {"grad_clip": 0.5}),
    "n_step": ("Pendulum-v1", {"n_step": 3}),
    "discrete": ("CartPole-v1", {"target_entropy": 0.3}),
}


@pytest.mark.parametrize(("env_name", "options"), SAC_OPTIONS.values(), ids=SAC_OPTIONS)
def test_a_sac_update_is_rllibs(env_name: str, options: dict[str, Any]) -> None:
    training = {"actor_lr": 1e-3, "critic_lr": 1e-3, "alpha_lr": 1e-3, **options}
    mine, rllibs = both_learners(SACConfig(), RLlibSACConfig(), env_name, training, MODEL)
    rng = np.random.default_rng(0)
    env = gym.make(env_name)
    for timestep in (100, 200, 300):
        update_both(mine, rllibs, batch_of(env, rng, n_step="n_step" in options, weights=True), timestep)
        assert_same_weights(mine, rllibs)
        alphas = [learner.curr_log_alpha[DEFAULT_MODULE_ID].item() for learner in (mine, rllibs)]
        assert alphas[0] == pytest.approx(alphas[1], abs=1e-6)


def test_a_discrete_sac_update_with_one_critic() -> None:
    """RLlib's learner asks for a second critic. Its policy loss is Σ π (α log π - min Q), the smaller Q that of one."""
    env = gym.make("CartPole-v1")
    config = SACConfig().environment("CartPole-v1").training(twin_q=False, td_error_loss_fn="mse")
    config.rl_module(model_config=MODEL).validate()
    mine = config.build_learner(env=env)
    module, batch = mine.module[DEFAULT_MODULE_ID], batch_of(env, np.random.default_rng(0))
    alpha = mine.curr_log_alpha[DEFAULT_MODULE_ID].exp().item()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        out = module.forward_train({k: torch.from_numpy(v) for k, v in batch.items()})
    expected = out["action_probs"] * (alpha * out["action_log_probs"] - out["qf_preds"])
    logged = update_mine(mine, batch, 100)[DEFAULT_MODULE_ID]
    assert float(logged["policy_loss"].peek()) == pytest.approx(expected.sum(-1).mean().item(), rel=1e-5)
    moved = {
        name.split(".")[0] for name, value in module.state_dict().items() if (value != before[name]).any()
    }
    assert {"pi", "pi_encoder", "qf", "qf_encoder"} <= moved


class HalfSquares:
    """Stands for `torch.nn.HuberLoss`: (a - b)² / 2 everywhere."""

    def __init__(self, reduction: str, delta: float):
        assert (reduction, delta) == ("none", 1.0)

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b) ** 2 / 2


# own_gradients: the learner takes the gradients of each loss by itself
MSE_OPTIONS = SAC_OPTIONS | {
    "clipped by value": ("Pendulum-v1", {"grad_clip": 1e6, "grad_clip_by": "value"}),
    "discrete, clipped by value": (
        "CartPole-v1",
        {"target_entropy": 0.3, "grad_clip": 1e6, "grad_clip_by": "value"},
    ),
}


@pytest.mark.parametrize(("env_name", "options"), MSE_OPTIONS.values(), ids=MSE_OPTIONS)
def test_a_sac_update_from_squared_errors_is_rllibs_without_huber(
    env_name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"actor_lr": 1e-3, "critic_lr": 1e-3, "alpha_lr": 1e-3, **options}
    config = SACConfig().training(td_error_loss_fn="mse")
    mine, rllibs = both_learners(config, RLlibSACConfig(), env_name, training, MODEL)
    rng = np.random.default_rng(0)
    env = gym.make(env_name)
    for timestep in (100, 200, 300):
        batch = batch_of(env, rng, n_step="n_step" in options, weights=True)
        batch["rewards"] *= 5  # errors beyond 1, where Huber's loss is another one
        logged = [update_mine(mine, batch, timestep)]
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn, "HuberLoss", HalfSquares)
            logged.append(update_rllibs(rllibs, batch, timestep))
        assert_same_weights(mine, rllibs, atol=1e-5)  # Adam's steps are 1e-3
        losses = [float(metrics[DEFAULT_MODULE_ID]["qf_loss"].peek()) for metrics in logged]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert losses[0] > 1.0
