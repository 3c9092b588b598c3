"""Schedulers of `tune:`: metrics that come late, and population based training with checkpoints that are pruned."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint, CheckpointConfig
from ray.tune.schedulers import TrialScheduler

import rlkit
from rlkit import rllib
from rlkit.errors import UsageError
from rlkit.launch import schedulers

METRIC = "env_runners/episode_return_mean"


class Pays(gym.Env):
    """Episodes of ten steps that pay `pay` each; the first ends after `late` of them."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, pay: float = 1.0, late: int = 0):
        self.pay, self.late = pay, late

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = -self.late
        self.late = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return np.zeros(1, np.float32), self.pay, self.t >= 10, False, {}


rlkit.register_env("pays", Pays)


def recipe(**tune: Any) -> dict[str, Any]:
    return {
        "name": "schedulers",
        "algorithm": "PPO",
        "env": "pays",
        "seed": 0,
        "config": {
            "training": {
                "train_batch_size_per_learner": 20,
                "minibatch_size": 20,
                "num_epochs": 1,
                "lr": 1e-3,
            },
            "env_runners": {"num_env_runners": 0},
        },
        "model": {"name": "mlp", "hiddens": [8]},
        "checkpoint": {"every": 1, "keep": 1},
        "stop": {"iterations": 12},
        "tune": tune,
    }


@dataclass
class FakeTrial:
    run_metadata: Any
    storage: Any

    @property
    def checkpoint(self) -> Any:
        latest = self.run_metadata.checkpoint_manager.latest_checkpoint_result
        return latest and latest.checkpoint


def fake_trial(folder: Path, iterations: list[int], keep: int | None = None) -> Any:
    """A trial as the schedulers see it, with checkpoints on disk; their scores fall."""
    manager = _CheckpointManager(CheckpointConfig(num_to_keep=keep, checkpoint_score_attribute="score"))
    for iteration in iterations:
        path = folder / f"checkpoint_{iteration:06d}"
        path.mkdir(parents=True)
        (path / "weights").write_text(f"{folder.name} {iteration}")
        metrics = {"training_iteration": iteration, "score": -iteration}
        manager.register_checkpoint(_TrainingResult(Checkpoint.from_directory(str(path)), metrics))
    storage = SimpleNamespace(
        storage_filesystem=SimpleNamespace(type_name="local"), trial_fs_path=str(folder)
    )
    return FakeTrial(SimpleNamespace(checkpoint_manager=manager), storage)


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("checkpoint_")) for path in folder.glob("checkpoint_*"))


def test_pruning_keeps_the_best_the_newest_and_what_others_may_go_on_from(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a", [1, 2, 3, 4, 5])
    rllib.prune_checkpoints(trial, 1, protect=3)
    assert numbers(tmp_path / "a") == [1, 3, 5]
    rllib.prune_checkpoints(trial, 1, protect=None)
    assert numbers(tmp_path / "a") == [1, 5]


def test_an_exploiting_trial_gets_its_own_copy_and_gives_up_its_later_checkpoints(tmp_path: Path) -> None:
    donor, trial = fake_trial(tmp_path / "a", [2]), fake_trial(tmp_path / "b", [1, 2, 3])
    manager = trial.run_metadata.checkpoint_manager
    manager._latest_checkpoint_result = donor.run_metadata.checkpoint_manager.latest_checkpoint_result
    schedulers.adopt(trial)
    assert numbers(tmp_path / "b") == [1, 2]
    assert Path(trial.checkpoint.path).parent == tmp_path / "b"
    # Its own of the same number is forgotten, not deleted again.
    rllib.prune_checkpoints(trial, 0, protect=None)
    rllib.prune_checkpoints(donor, 0, protect=None)
    assert (tmp_path / "b" / "checkpoint_000002" / "weights").read_text() == "a 2"
    schedulers.adopt(trial)  # its own already: nothing happens
    assert numbers(tmp_path / "b") == [2]


@pytest.mark.parametrize("kind", sorted(schedulers.KINDS))
def test_a_result_without_the_metric_is_no_error_and_no_judgement(kind: str) -> None:
    mutations = {"mutations": {"config.training.lr": [0.1, 0.2]}} if kind == "pbt" else {}
    scheduler = schedulers.make({"type": kind, "time_attr": "iteration", **mutations}, keep=None)
    scheduler.set_search_properties(METRIC, "max")
    controller = SimpleNamespace(get_trials=list)
    for missing in ({}, {METRIC: float("nan")}):
        result = {"training_iteration": 50, **missing}
        assert scheduler.on_trial_result(controller, object(), result) == TrialScheduler.CONTINUE


def test_options_are_checked_and_types_named() -> None:
    with pytest.raises(UsageError, match="did you mean 'asha'"):
        schedulers.make({"type": "ashaa"}, keep=None)
    with pytest.raises(UsageError, match=r"tune\.scheduler: median: .*grace"):
        schedulers.make({"type": "median", "grace": 3}, keep=None)


def population(pay: list[float], stop: int) -> dict[str, Any]:
    """Trials that earn `pay` a step each, for PBT to spread and change every second iteration."""
    scheduler = {
        "type": "pbt",
        "time_attr": "iteration",
        "perturbation_interval": 2,
        "quantile_fraction": 0.5,
        "resample_probability": 1.0,
        "mutations": {"config.training.lr": [0.01, 0.02], "env_config.pay": [3.0, 4.0]},
    }
    return {
        **recipe(metric="episode_return", scheduler=scheduler),
        "env_config": {"pay": {"grid_search": pay}},
        "stop": {"iterations": stop},
    }


def trial_rows(run: Any, number: int) -> Any:
    rows = run.metrics
    return rows[rows.trial.str.startswith(f"trial_{number:05d}")].sort_values("iteration")


RATE = "loss/default_policy/default_optimizer_learning_rate"


def test_population_based_training_spreads_what_is_better_mutates_it_and_goes_on(
    ray_local: None, tmp_path: Path
) -> None:
    """Trial 1 earns nothing; it goes on from trial 0, with another environment and learning rate, also when resumed."""
    run = rlkit.train(population([1.0, 0.0], stop=4), out=tmp_path)
    assert run.status == "done"
    before = trial_rows(run, 1).iloc[-1]
    assert before.episode_return in (30.0, 40.0)
    assert before[RATE] in (0.01, 0.02)
    run = rlkit.resume(run.path, {"stop.iterations": 5})
    rows = trial_rows(run, 1)
    assert list(rows.iteration) == list(range(1, 6))
    assert rows.iloc[-1].episode_return in (30.0, 40.0)
    assert rows.iloc[-1][RATE] in (0.01, 0.02)
    assert all(numbers(trial.path)[-1] == 5 and len(numbers(trial.path)) <= 3 for trial in run.trials)


KILLED = """
import sys, rlkit
from test_schedulers import population
rlkit.train(population([1.0, 0.0], stop=1000), out=sys.argv[1])
"""


@pytest.mark.slow
def test_a_population_whose_driver_is_killed_goes_on_with_its_mutated_values(tmp_path: Path) -> None:
    env = {**os.environ, "RAY_ADDRESS": ""}
    driver = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=env)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("schedulers/*/trial_00001*/checkpoint_000005")):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        threading.Event().wait(0.2)
    driver.kill()
    driver.wait()
    (folder,) = tmp_path.glob("schedulers/*")
    reached = max(int(rlkit.open_run(folder).metrics.iteration.max()), 5)
    words = [
        sys.executable,
        "-m",
        "rlkit",
        "train",
        "--resume",
        str(folder),
        f"stop.iterations={reached + 3}",
    ]
    subprocess.run([*words, "--import", __file__, "--quiet"], env=env, check=True)
    run = rlkit.open_run(folder)
    assert run.status == "done"
    rows = trial_rows(run, 1)
    assert list(rows.iteration) == list(range(1, reached + 4))
    assert set(rows.iloc[4:].episode_return) <= {30.0, 40.0}
    assert set(rows.iloc[4:][RATE]) <= {0.01, 0.02}


@pytest.mark.parametrize("kind", ["asha", "hyperband", "median"])
def test_schedulers_end_trials_by_a_metric_that_comes_late(
    kind: str, ray_local: None, tmp_path: Path
) -> None:
    options = {
        "asha": {"grace_period": 2, "max_t": 8},
        "hyperband": {"max_t": 8},
        "median": {"grace_period": 3},
    }
    run = rlkit.train(
        {
            **recipe(metric="episode_return", scheduler={"type": kind, **options[kind]}, concurrent=2),
            "env_config": {"pay": {"grid_search": [1.0, 0.0]}, "late": 50},
            "stop": {"iterations": 8},
        },
        out=tmp_path,
    )
    assert run.status == "done"
    best = run.metrics[run.metrics.trial.str.startswith("trial_00000")]
    assert best.iteration.max() == 8
