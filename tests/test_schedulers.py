"""Schedulers of `tune:`: metrics that come late, and population based training with checkpoints that are pruned."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray import tune
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint, CheckpointConfig
from ray.tune.schedulers import TrialScheduler

import rlkit
from rlkit import recipe as recipes
from rlkit import rllib
from rlkit.callbacks import Callback
from rlkit.errors import UsageError
from rlkit.launch import schedulers
from rlkit.launch.tracking import Tracker
from rlkit.recipe.spaces import SearchSpace
from rlkit.runs.run import Best, RunInfo

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


class Waits(Pays):
    """Pays nothing at once, or one from when `begun` is there."""

    def __init__(self, pay: float, begun: str):
        super().__init__(pay)
        self.begun = Path(begun)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict]:
        deadline = time.monotonic() + 60
        while self.pay and not self.begun.exists() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        return super().reset(**options)


class SlowToSave(Callback):
    """A trial that earns nothing says when it begins its first checkpoint, and takes two seconds for it."""

    def __init__(self, begun: str):
        self.begun = Path(begun)
        self.slow = False

    def on_algorithm_init(self, *, algorithm: Any, **kwargs: Any) -> None:
        self.slow = algorithm.config.env_config["pay"] == 0

    def get_state(self) -> dict[str, Any]:
        if self.slow and not self.begun.exists():
            self.begun.touch()
            threading.Event().wait(2.0)
        return {}


rlkit.register_env("pays", Pays)
rlkit.register_env("waits", Waits)
rlkit.register_callback("SlowToSave", SlowToSave)


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


@pytest.mark.parametrize("value", [np.float32(3.0), np.int64(3), 3, 3.0])
def test_a_number_of_any_kind_is_judged(value: Any) -> None:
    found = schedulers.make({"type": "asha"}, keep=1)
    found.set_search_properties("score", "max")
    assert found._judged({"score": value})
    assert not found._judged({"score": np.float32("nan")})


@dataclass(eq=False)
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


def test_a_trial_of_a_population_that_ends_keeps_its_best_and_its_newest(tmp_path: Path) -> None:
    mutations = {"config.training.lr": [0.1, 0.2]}
    scheduler = schedulers.make({"type": "pbt", "time_attr": "iteration", "mutations": mutations}, keep=1)
    trial = fake_trial(tmp_path / "a", [1, 2, 3])
    scheduler.on_trial_complete(SimpleNamespace(), trial, {"training_iteration": 3})
    assert numbers(tmp_path / "a") == [1, 3]


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


def test_population_based_training_spreads_what_is_better_and_mutates_it(
    ray_local: None, tmp_path: Path
) -> None:
    """Trial 1 earns nothing; it goes on from trial 0, with another environment and learning rate."""
    run = rlkit.train(
        {
            **recipe(
                metric="episode_return",
                scheduler={
                    "type": "pbt",
                    "time_attr": "iteration",
                    "perturbation_interval": 2,
                    "quantile_fraction": 0.5,
                    "resample_probability": 1.0,
                    "mutations": {"config.training.lr": [0.01, 0.02], "env_config.pay": [3.0, 4.0]},
                },
            ),
            "env_config": {"pay": {"grid_search": [1.0, 0.0]}},
        },
        out=tmp_path,
    )
    assert run.status == "done"
    rows = run.metrics[run.metrics.trial.str.startswith("trial_00001")].sort_values("iteration")
    assert list(rows.iteration) == list(range(1, 13))
    last = rows.iloc[-1]
    assert last.episode_return in (30.0, 40.0)
    assert last["loss/default_policy/default_optimizer_learning_rate"] in (0.01, 0.02)
    kept = [numbers(trial.path) for trial in run.trials]
    assert all(numbers_[-1] == 12 and len(numbers_) <= 3 for numbers_ in kept), kept


def together(**more: Any) -> dict[str, Any]:
    """Two trials of a population that wait for each other every two iterations; the second one is better."""
    scheduler = {
        "type": "pbt",
        "synch": True,
        "time_attr": "iteration",
        "perturbation_interval": 2,
        "quantile_fraction": 0.5,
        "resample_probability": 1.0,
        "mutations": {"config.training.lr": [0.01, 0.02]},
    }
    stop = {"stop": {"iterations": 4}, "checkpoint": {"every": 3, "keep": 1}}
    return {**recipe(metric="episode_return", scheduler=scheduler), **stop, **more}


def test_a_trial_that_still_saves_when_it_takes_over_another_goes_on_to_the_end(
    ray_local: None, tmp_path: Path
) -> None:
    begun = str(tmp_path / "begun")
    run = rlkit.train(
        together(
            env="waits",
            env_config={"pay": {"grid_search": [0.0, 1.0]}, "begun": begun},
            callbacks=[{"name": "SlowToSave", "begun": begun}],
        ),
        out=tmp_path,
    )
    assert run.status == "done"
    for name, rows in run.metrics.groupby("trial"):
        assert list(rows.iteration) == [1, 2, 3, 4], name
    worse = run.metrics[run.metrics.trial.str.startswith("trial_00000")].sort_values("iteration")
    assert list(worse.episode_return)[:2] == [0.0, 0.0]
    assert worse.iloc[-1].episode_return == 10.0  # it plays the better one's environment
    assert worse.iloc[-1]["loss/default_policy/default_optimizer_learning_rate"] in (0.01, 0.02)


def test_a_population_that_waits_for_a_metric_that_comes_late_ends(ray_local: None, tmp_path: Path) -> None:
    """The second trial's first episode ends in iteration 5: between two perturbations of the other."""
    run = rlkit.train(
        together(env_config={"pay": 1.0, "late": {"grid_search": [0, 90]}}, stop={"iterations": 6}),
        out=tmp_path,
    )
    assert run.status == "done"
    assert set(run.metrics.groupby("trial").iteration.max()) == {6}


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


def test_a_perturbed_number_stays_in_its_space_and_a_list_is_a_list() -> None:
    from rlkit.launch.search import scheduler

    mutations = {
        "config.training.gamma": SearchSpace("uniform", (0.9, 0.999)),
        "config.training.num_epochs": SearchSpace("randint", (1, 5)),
        "config.training.lr": SearchSpace("choice", (0.1, 0.2)),
    }
    values = {
        "name": "p", "algorithm": "PPO", "env": "CartPole-v1", "stop": {"iterations": 9},
        "tune": {"samples": 4, "scheduler": {"type": "pbt", "time_attr": "iteration", "mutations": mutations}},
    }  # fmt: skip
    made = scheduler(recipes.from_mapping(values))
    assert made.mutations["config"]["training"]["lr"] == [0.1, 0.2]
    config = {"config": {"training": {"gamma": 1.19, "num_epochs": 6, "lr": 0.1}}}
    explored = schedulers.within(config, made.mutations)["config"]["training"]
    assert explored == {"gamma": 0.999, "num_epochs": 4, "lr": 0.1}


def test_a_mutation_that_the_recipe_does_not_give_is_drawn() -> None:
    config: dict[str, Any] = {"config": {"training": {"lr": 0.1}}}
    mutations = {
        "config": {"training": {"lr": [0.3], "gamma": [0.9]}, "learners": {"num": tune.randint(2, 3)}}
    }
    schedulers.fill(config, mutations)
    assert config == {"config": {"training": {"lr": 0.1, "gamma": 0.9}, "learners": {"num": 2}}}


def test_a_whole_number_in_a_range_of_fractions_is_perturbed() -> None:
    from ray.tune.schedulers import pbt

    mutations = schedulers.nested({"config.training.lambda_": tune.uniform(0, 1)})
    config: dict[str, Any] = {"config": {"training": {"lambda_": 1}}}
    schedulers.fill(config, mutations)
    found = set()
    for _ in range(200):
        config, _ = pbt._explore(
            config, mutations, 0.25, (1.2, 0.8), lambda c: schedulers.within(c, mutations)
        )
        found.add(config["config"]["training"]["lambda_"])
    assert len(found) > 50
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in found)


POPULATION = {"name": "p", "algorithm": "PPO", "env": "CartPole-v1", "stop": {"iterations": 9}}


def mutated(mutations: dict[str, Any], **recipe: Any) -> recipes.Recipe:
    options = {"type": "pbt", "time_attr": "iteration", "mutations": mutations}
    return recipes.from_mapping({**POPULATION, **recipe, "tune": {"samples": 4, "scheduler": options}})


@pytest.mark.parametrize(
    ("mutations", "beside", "message"),
    [
        ({"exploration.final_epsilon": SearchSpace("uniform", (0.01, 0.1))}, {}, "exploration: .*'type' is missing"),
        ({"config.training": [1, 2], "config.training.lr": [0.1, 0.2]}, {}, "config.training.lr is a part of"),
        ({"model.hidens": [[8], [16]]}, {"model": {"name": "mlp"}}, "did you mean 'hiddens'"),
        ({"model.name": ["mlp", "lstm"]}, {}, "'model.name' is not a key below .* that can change"),
        ({"env_config.typo": [1, 2]}, {}, "has no argument 'typo'"),
        ({"config.training.lr.0": [0.1, 0.2]}, {"config": {"training": {"lr": 0.1}}}, "lr is no mapping, got 0.1"),
        ({"config.training.lr.0.a": [0.1, 0.2]}, {"config": {"training": {"lr": 0.1}}}, "lr is no mapping, got 0.1"),
        ({"config.training.grad_clip": SearchSpace("uniform", (0.1, 1.0))},
         {"config": {"training": {"grad_clip": None}}}, "multiplies config.training.grad_clip, which is no number"),
        ({"config.training.gamma": [0.9, 5]}, {}, "mutations.config.training.gamma: gamma is out of range.*got 5"),
        ({"config.training.minibatch_size": [64, 8000]}, {}, "minibatch_size 8000 is larger than the batch"),
        ({"config.training.lr": []}, {}, "!choice has no values"),
    ],
)  # fmt: skip
def test_a_mutation_that_no_trial_can_take_is_refused(
    mutations: dict[str, Any], beside: dict[str, Any], message: str
) -> None:
    with pytest.raises(recipes.RecipeError, match=message) as caught:
        mutated(mutations, **beside)
    assert all(problem.path.startswith("tune.scheduler.mutations.") for problem in caught.value.problems)


def test_mutations_that_trials_can_take_pass() -> None:
    mutations = {
        "config.training.lr": SearchSpace("loguniform", (1e-5, 1e-2)),
        "config.training.grad_clip": [None, 1.0],
        "model.hiddens": [[8], [16]],
        "env_config.max_episode_steps": SearchSpace("randint", (100, 200)),
    }
    found = mutated(
        mutations, model={"name": "mlp"}, config={"training": {"lr": SearchSpace("choice", (0.1, 0.2))}}
    )
    assert set(found.tune.scheduler["mutations"]) == set(mutations)


@pytest.mark.parametrize(
    "name", ["agent_steps", "steps_per_s", "env_runners/num_agent_steps_sampled_lifetime"]
)
def test_a_metric_that_tune_cannot_see_is_refused(name: str) -> None:
    scheduler = {"type": "asha", "time_attr": name, "max_t": 9}
    with pytest.raises(recipes.RecipeError) as caught:
        recipes.from_mapping({**POPULATION, "tune": {"metric": name, "scheduler": scheduler}})
    assert [problem.path for problem in caught.value.problems] == ["tune.metric", "tune.scheduler.time_attr"]
    assert all(f"Tune cannot see {name}" in problem.message for problem in caught.value.problems)


def test_what_tune_asserts_is_said() -> None:
    with pytest.raises(UsageError, match=r"tune\.scheduler: asha: .*brackets"):
        schedulers.make({"type": "asha", "brackets": 0}, keep=None)


@pytest.mark.parametrize(("iteration", "left"), [(10, "b"), (11, "a")])
def test_a_best_checkpoint_that_a_trial_has_given_up_is_not_named(
    tmp_path: Path, iteration: int, left: str
) -> None:
    best = {
        name: Best(name, f"{name}/checkpoint_000010", "m", value) for name, value in (("a", 2.0), ("b", 1.0))
    }
    info = RunInfo(name="r", trial_best=dict(best), best=best["a"])
    tracker = SimpleNamespace(info=info, sign=1.0, folder=tmp_path, trial_best={"a": 2.0, "b": 1.0})
    trial = SimpleNamespace(storage=SimpleNamespace(trial_dir_name="a"))
    Tracker.gave_up(tracker, trial, iteration)
    assert info.best is not None
    assert info.best.trial == left
    assert ("a" in info.trial_best) is ("a" in tracker.trial_best) is (left == "a")
