"""RLlib's own algorithm classes in a recipe: their checkpoints are whole, and NaN or an error stops them too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlkit import registry
from rlkit.callbacks.base import CallbackError
from rlkit.launch.trial import trainable

REPLAY = {"train_batch_size_per_learner": 16, "num_steps_sampled_before_learning_starts": 40}
ROLLOUT = {"train_batch_size_per_learner": 64}
# Parameters that no sampled action needs, so that NaN in them is met in the loss or gradient.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "rllib/PPO": ("CartPole-v1", ROLLOUT | {"minibatch_size": 32, "num_epochs": 1}, "vf"),
    "IMPALA": ("CartPole-v1", ROLLOUT, "vf"),
    "APPO": ("CartPole-v1", ROLLOUT, "vf"),
    "rllib/DQN": ("CartPole-v1", REPLAY, "vf"),
    "rllib/SAC": ("Pendulum-v1", REPLAY, "target"),
    "TQC": ("Pendulum-v1", REPLAY, "target"),
}


def made(name: str, **training: Any) -> Any:
    env, settings, _ = KINDS[name]
    recipe = {
        "name": "own", "algorithm": name, "env": env, "seed": 0, "stop": {"iterations": 99},
        "config": {
            "training": settings | training,
            "env_runners": {"num_env_runners": 0, "rollout_fragment_length": 16},
            "learners": {"num_learners": 0},
            "reporting": {"min_sample_timesteps_per_iteration": 64, "min_time_s_per_iteration": 0},
        },
    }  # fmt: skip
    return trainable(registry.resolve("algorithms", name)().algo_class)(recipe)


def train_on(trial: Any) -> None:
    """Several iterations: IMPALA and APPO learn beside the sampling."""
    for _ in range(10):
        trial.train()


def saved(trial: Any, folder: Path) -> str:
    folder.mkdir()
    trial.save_checkpoint(str(folder))
    return str(folder)


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("name", KINDS)
def test_nan_ends_the_run_before_a_weight_changes(name: str) -> None:
    trial = made(name)
    trial.train()
    learner, part = trial.learner_group._learner, KINDS[name][2]
    module = learner.module["default_policy"]
    others = [p for key, p in module.named_parameters() if p.requires_grad and part not in key]
    poisoned = [p for key, p in module.named_parameters() if part in key]
    assert others
    assert poisoned
    for parameter in poisoned:  # new data: the learner's thread may be in a backward pass
        parameter.data = torch.full_like(parameter, torch.nan)
    with pytest.raises(CallbackError, match="'default_policy'"):
        train_on(trial)
    assert all(torch.isfinite(p).all() for p in others)
    trial.stop()


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("name", ["IMPALA", "APPO"])
def test_what_the_learner_thread_raises_ends_the_run(name: str) -> None:
    trial = made(name)
    learner = trial.learner_group._learner

    def broken(**_: Any) -> None:
        raise ArithmeticError("no such loss")

    learner.compute_loss_for_module = broken
    with pytest.raises(ArithmeticError, match="no such loss"):
        train_on(trial)
    trial.stop()


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rllib/DQN", "PrioritizedEpisodeReplayBuffer"),
        ("rllib/SAC", "EpisodeReplayBuffer"),
        ("TQC", "PrioritizedEpisodeReplayBuffer"),
    ],
)
def test_a_replay_buffer_comes_back(name: str, kind: str, tmp_path: Path) -> None:
    settings = {"replay_buffer_config": {"type": kind, "capacity": 1000}}
    first = made(name, **settings)
    first.train()
    path = saved(first, tmp_path / "checkpoint_000001")
    second = made(name, **settings)
    second.train()  # a buffer that is not empty: population based training restores into those
    second.restore(path)
    old, new = first.local_replay_buffer, second.local_replay_buffer
    assert new.get_num_timesteps() == old.get_num_timesteps() >= 64
    ask = {"num_items": 16, "n_step": 1, "gamma": 0.9, "sample_episodes": True}
    for a, b in zip(old.sample(**ask), new.sample(**ask), strict=True):
        assert np.array_equal(a.get_observations(), b.get_observations())
    first.stop()
    second.stop()


@pytest.mark.usefixtures("ray_local")
def test_a_replay_buffer_is_left_out_on_request(tmp_path: Path) -> None:
    first = made("rllib/DQN", store_buffer_in_checkpoints=False)
    first.train()
    assert not Path(saved(first, tmp_path / "checkpoint_000001"), "replay").exists()
    first.stop()


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("name", ["rllib/PPO", "APPO"])
def test_the_kl_coefficient_comes_back(name: str, tmp_path: Path) -> None:
    first, second = made(name, use_kl_loss=True), made(name, use_kl_loss=True)
    first.learner_group._learner.curr_kl_coeffs_per_module["default_policy"].data.fill_(7.5)
    second.restore(saved(first, tmp_path / "checkpoint_000001"))
    assert float(second.learner_group._learner.curr_kl_coeffs_per_module["default_policy"]) == 7.5
    first.stop()
    second.stop()
