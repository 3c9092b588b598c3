"""`track`: what trackers are told, a tracker that fails, and a package that is not there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlkit.launch import trackers
from rlkit.recipe import check

RESULT = {
    "training_iteration": 3,
    "num_env_steps_sampled_lifetime": 640,
    "env_runners": {"episode_return_mean": 12.5},
}


class Notes:
    """A tracker with the methods of Tune's logger callbacks that writes down what it is told."""

    def __init__(self, fails_at: str = ""):
        self.fails_at, self.told = fails_at, []

    def setup(self) -> None:
        self._note("setup")

    def log_trial_start(self, trial: Any) -> None:
        self._note("start", str(trial), trial.config)

    def log_trial_result(self, iteration: int, trial: Any, row: dict) -> None:
        self._note("result", dict(row), row.get("timesteps_total"))

    def log_trial_end(self, trial: Any, failed: bool) -> None:
        self._note("end", failed)

    def on_experiment_end(self, trials: list) -> None:
        self._note("over")

    def _note(self, what: str, *values: Any) -> None:
        self.told.append((what, *values))
        if what == self.fails_at:
            raise ConnectionError("no route to host")


def trial() -> Any:
    return SimpleNamespace(
        trial_id="a_0",
        config={"algorithm": "DQN", "__names": object()},
        storage=SimpleNamespace(trial_dir_name="trial_0"),
    )


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run one trial's hooks on trackers; return what was said to the user and what was told as facts."""

    def run(**notes: Notes) -> tuple[list[str], list[Any]]:
        said: list[str] = []
        facts: list[Any] = []
        monkeypatch.setitem(trackers.TELL, "Notes", lambda tracker, seen, given: facts.append(given))
        best = SimpleNamespace(checkpoint="trial_0/checkpoint_000002")
        info = SimpleNamespace(trial_best={"trial_0": best})
        experiment: Any = SimpleNamespace(folder=tmp_path / "runs" / "a" / "now", info=info)
        makers = {name: (lambda e, p, note=note: note) for name, note in notes.items()}
        callback, one = trackers.Trackers(experiment, makers, said.append), trial()
        gif = tmp_path / "x.gif"
        gif.write_bytes(b"GIF89a")
        callback.setup()
        callback.on_trial_start(0, [one], one)
        callback.on_trial_result(1, [one], one, {**RESULT, "gif": str(gif)})
        callback.on_trial_complete(1, [one], one)
        callback.on_experiment_end([one])
        return said, facts

    return run


def test_a_tracker_gets_tidy_names_the_recipe_the_best_checkpoint_and_the_gif(
    play: Any, tmp_path: Path
) -> None:
    note = Notes()
    said, facts = play(wandb=note)
    assert not said
    assert [what for what, *_ in note.told] == ["setup", "start", "result", "end", "over"]
    assert note.told[1][1:] == ("now/trial_0", {"algorithm": "DQN"})
    row, steps = note.told[2][1:]
    assert row["env_steps"] == steps == 640
    assert row["episode_return"] == 12.5
    assert "timesteps_total" not in row
    best = tmp_path.resolve() / "runs" / "a" / "now" / "trial_0" / "checkpoint_000002"
    assert facts == [{"best_checkpoint": str(best), "video": str(tmp_path / "x.gif")}]


def test_a_mutated_hyper_parameter_is_a_metric(tmp_path: Path) -> None:
    note = Notes()
    experiment: Any = SimpleNamespace(folder=tmp_path / "runs" / "a" / "now")
    callback, one = trackers.Trackers(experiment, {"wandb": lambda e, p: note}, print), trial()
    callback.setup()
    for lr in (0.1, 0.2, 0.1):
        one.config = {"config": {"training": {"lr": lr, "gamma": 0.9}}, "env": "CartPole-v1"}
        callback.on_trial_result(1, [one], one, RESULT)
    rows = [told[1] for told in note.told if told[0] == "result"]
    assert [row.get("param/config/training/lr") for row in rows] == [None, 0.2, 0.1]
    assert not any("gamma" in key for row in rows for key in row)


@pytest.mark.parametrize("where", ["setup", "start", "result", "end"])
def test_a_tracker_that_fails_is_told_of_once_and_the_others_go_on(play: Any, where: str) -> None:
    bad, good = Notes(where), Notes()
    said, _ = play(wandb=bad, mlflow=good)
    assert said == ["wandb: no route to host; the training goes on without it"]
    assert bad.told[-1][0] == where
    assert good.told[-1] == ("over",)


def test_a_tracker_whose_package_is_broken_says_what_breaks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "__init__.py").write_text("raise ImportError('libwandb.so: no such symbol')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    said: list[str] = []
    experiment: Any = SimpleNamespace(folder=tmp_path / "runs" / "a" / "now")
    trackers.Trackers(experiment, {"wandb": trackers._wandb}, said.append).setup()
    assert said == ["wandb: libwandb.so: no such symbol; the training goes on without it"]


def written(tmp_path: Path, track: str) -> Path:
    file = tmp_path / "a.yaml"
    file.write_text(f"algorithm: DQN\nenv: CartPole-v1\nstop: {{env_steps: 10000}}\ntrack: {track}\n")
    return file


def test_a_package_that_is_not_installed_is_an_error_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else find(name))
    (problem,) = check(written(tmp_path, "[tensorboard, mlflow]"))
    assert "pip install 'rlkit-rllib[mlflow]'" in str(problem)


def test_unknown_and_repeated_trackers_are_errors(tmp_path: Path) -> None:
    assert "wandbb" in str(check(written(tmp_path, "[wandbb]"))[0])
    assert "named twice" in str(check(written(tmp_path, "[tensorboard, tensorboard]"))[0])
    assert not check(written(tmp_path, "[]"))


class Server:
    """A server of MLflow, as its client and Tune's callback see it."""

    def __init__(self) -> None:
        self.runs: list[Any] = []

    def MlflowClient(self, uri: str) -> Server:
        assert uri == "here"
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=name) if self.runs else None

    def search_runs(self, experiments: list[str], words: str) -> list[Any]:
        assert experiments == ["dqn"]
        return [run for run in self.runs if words == f"tags.trial_name = '{run.data.tags['trial_name']}'"]

    def update_run(self, run: str, status: str) -> None:
        next(one for one in self.runs if one.info.run_id == run).info.status = status


class MlflowTracker(Notes):
    """Makes a run on a server for each trial that begins; knows those of its own process."""

    tracking_uri, experiment_name = "here", "dqn"

    def __init__(self, server: Server, folder: str):
        super().__init__()
        self.server, self.tags = server, {"run": folder}
        self._trial_runs: dict[Any, str] = {}

    def log_trial_start(self, trial: Any) -> None:
        info = SimpleNamespace(run_id=f"{len(self.server.runs)}", status="RUNNING")
        tags = {**self.tags, "trial_name": str(trial)}
        self.server.runs.append(SimpleNamespace(info=info, data=SimpleNamespace(tags=tags)))
        self._trial_runs[trial] = info.run_id


def test_a_trial_that_a_new_process_goes_on_with_stays_one_run_of_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    monkeypatch.setitem(sys.modules, "mlflow", server)
    for folder, run in (("a", "0"), ("a", "0"), ("b", "1")):
        tracker = MlflowTracker(server, folder)
        experiment: Any = SimpleNamespace(folder=tmp_path / "runs" / folder / "now")
        callback = trackers.Trackers(experiment, {"mlflow": lambda e, p, t=tracker: t}, print)
        callback.setup()
        one = trial()
        callback.on_trial_start(0, [one], one)
        assert [*tracker._trial_runs.values()] == [run]
        assert server.runs[-1].info.status == "RUNNING"
        server.runs[-1].info.status = "FINISHED"
    assert len(server.runs) == 2


def test_nested_recipes_become_flat_parameters() -> None:
    assert trackers.flat({"config": {"training": {"lr": 0.1}}, "seed": 0}) == {
        "config/training/lr": 0.1,
        "seed": 0,
    }
