"""Experiment trackers of `track:`: Tune's own callbacks for W&B and MLflow, and one for trackio.

They get tidy metric names by env step, the trial's recipe as hyper-parameters, and at the end the path of the best
checkpoint and the newest GIF that a callback made. What is local lies beside the runs: `runs/wandb`, `runs/mlflow.db`.
Each package's own variables say where else: WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, TRACKIO_SERVER_URL.

A tracker that fails is told of once, and the training goes on without it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from rlkit import rllib
from rlkit.errors import printable
from rlkit.launch.experiment import Experiment
from rlkit.launch.loggers import TensorBoardLogger
from rlkit.metrics import tidy

UPLOAD_S = 30  # how long the end of a run waits for uploads


def trackers(experiment: Experiment, say: Callable[[str], None]) -> list[Any]:
    """Return Tune callbacks for what a recipe's `track` names; `say` prints a line for the user."""
    names = experiment.recipe.track
    others: dict[str, Callable[..., Any]] = {name: MAKERS[name] for name in names if name in MAKERS}
    found: list[Any] = [TensorBoardLogger()] if "tensorboard" in names else []
    return [*found, *([Trackers(experiment, others, say)] if others else [])]


class Row(dict[str, float]):
    """Tidy metrics of one result; Tune's MLflow callback reads the x axis from it, which is no metric of its own."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get("env_steps" if key == "timesteps_total" else key, default)


class Shown:
    """A trial as trackers see it: its recipe is the config, its folder's name is its name."""

    def __init__(self, trial: Any, run: str, place: Path):
        self._trial = trial
        self.config = {key: value for key, value in trial.config.items() if not key.startswith("__")}
        self.name = f"{run}/{trial.storage.trial_dir_name}"
        self.local_path = str(place)  # where the tracker of a trial writes
        self._begun, self._moved = flat(self.config), set[str]()

    def mutated(self) -> dict[str, float]:
        """`param/<key>` -> number, of each that population based training has changed since the trial began."""
        now = {key: value for key, value in flat(self._trial.config).items() if type(value) in (int, float)}
        self._moved |= {key for key, value in now.items() if value != self._begun.get(key, value)}
        return {f"param/{key}": now[key] for key in sorted(self._moved & now.keys())}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def __str__(self) -> str:
        return self.name


class Trackers(tune.Callback):
    """Hands every result to each tracker; one that raises gets no more."""

    def __init__(
        self, experiment: Experiment, makers: Mapping[str, Callable[..., Any]], say: Callable[[str], None]
    ):
        self.experiment, self.makers, self.say = experiment, makers, say
        self.place = experiment.folder.parent.parent.resolve()
        self.active: dict[str, Any] = {}
        self.shown: dict[str, Shown] = {}
        self.gifs: dict[str, str] = {}

    def setup(self, **info: Any) -> None:
        for name, make in self.makers.items():
            self._try(name, partial(self._begin, name, make))

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        seen = self._seen(trial)

        def start(tracker: Any) -> None:
            if not rllib.mlflow_goes_on(tracker, seen):
                tracker.log_trial_start(seen)

        self._each(start)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        seen = self._seen(trial)
        row = Row({key: value for key, value in tidy(result).items() if not math.isnan(value)})
        row.update(seen.mutated())
        if result.get("gif"):
            self.gifs[trial.trial_id] = str(result["gif"])

        def log(tracker: Any) -> None:
            rllib.raise_of_wandb(tracker, seen)
            tracker.log_trial_result(iteration, seen, row)

        self._each(log)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._end(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._end(trial, failed=True)

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        for trial in trials:
            if trial.trial_id in self.shown:  # a run that was stopped ends its trials without a word
                self._end(trial, failed=False)
        self._each(lambda tracker: tracker.on_experiment_end(list(self.shown.values())))

    def _end(self, trial: Any, failed: bool) -> None:
        seen = self._seen(trial)
        best = self.experiment.info.trial_best.get(trial.storage.trial_dir_name)
        folder = self.experiment.folder.resolve()
        facts = {"best_checkpoint": str(folder / best.checkpoint)} if best else {}
        gif = self.gifs.get(trial.trial_id)
        if gif is not None and Path(gif).is_file():
            facts["video"] = gif

        def end(tracker: Any) -> None:
            TELL[type(tracker).__name__](tracker, seen, facts)
            tracker.log_trial_end(seen, failed)
            rllib.raise_of_wandb(tracker, seen, UPLOAD_S)

        self._each(end)
        del self.shown[trial.trial_id]

    def _seen(self, trial: Any) -> Shown:
        if trial.trial_id not in self.shown:
            self.shown[trial.trial_id] = Shown(trial, self.experiment.folder.name, self.place)
        return self.shown[trial.trial_id]

    def _begin(self, name: str, make: Callable[..., Any]) -> None:
        tracker = make(self.experiment, self.place)
        tracker.setup()
        self.active[name] = tracker

    def _each(self, call: Callable[[Any], None]) -> None:
        for name, tracker in list(self.active.items()):
            self._try(name, partial(call, tracker))

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to results; trackio prints
                call()
        except Exception as error:
            self.active.pop(name, None)
            text = printable(error).strip().splitlines()
            self.say(f"{name}: {text[-1] if text else type(error).__name__}; the training goes on without it")


def _wandb(experiment: Experiment, place: Path) -> Any:
    import wandb  # noqa: F401  of one that cannot be imported Ray says that it is not installed
    from ray.air.integrations.wandb import WandbLoggerCallback

    os.environ.setdefault("WANDB_SILENT", "true")
    tracker = WandbLoggerCallback(
        project=os.environ.get("WANDB_PROJECT", experiment.recipe.name),
        group=experiment.folder.name,
        resume="allow",
        upload_timeout=UPLOAD_S,
    )
    tracker.AUTO_CONFIG_KEYS = ["best_checkpoint"]
    rllib.draw_over(tracker, "env_steps")
    return tracker


def _tell_wandb(tracker: Any, trial: Shown, facts: Mapping[str, str]) -> None:
    told: dict[str, Any] = {**facts}
    if "video" in told:
        import wandb

        told["video"] = wandb.Video(told["video"], format="gif")
    if told:
        tracker.log_trial_result(0, trial, told)


def _mlflow(experiment: Experiment, place: Path) -> Any:
    import mlflow
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    # its own 7 retries of 120 s would stop the training for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri, name = os.environ.get("MLFLOW_TRACKING_URI"), experiment.recipe.name
    if uri is None:
        uri = f"sqlite:///{place / 'mlflow.db'}"
        client = mlflow.MlflowClient(uri)
        # Tune's callback would put files into the working folder
        if client.get_experiment_by_name(name) is None:
            client.create_experiment(name, artifact_location=(place / "mlflow-files").as_uri())
    return MLflowLoggerCallback(uri, experiment_name=name, tags={"run": str(experiment.folder.resolve())})


def _tell_mlflow(tracker: Any, trial: Shown, facts: Mapping[str, str]) -> None:
    import mlflow

    client, run = mlflow.MlflowClient(tracker.tracking_uri), rllib.mlflow_run(tracker, trial)
    if "best_checkpoint" in facts:
        client.set_tag(run, "best_checkpoint", facts["best_checkpoint"])
    if "video" in facts:
        client.log_artifact(run, facts["video"])


class Trackio:
    """Trackio has no callback in Tune: one run of it for each trial, with the methods of Tune's logger callbacks."""

    def __init__(self, project: str, group: str):
        self.project, self.group = project, group
        self.runs: dict[Any, Any] = {}

    def setup(self) -> None:
        import trackio

        self.trackio = trackio

    def log_trial_start(self, trial: Shown) -> None:
        def begin() -> Any:
            return self.trackio.init(
                self.project, str(trial), group=self.group, config=flat(trial.config), resume="allow",
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

        # `init` ends the run that is current in its context, which would be that of another trial
        self.runs[trial] = contextvars.Context().run(begin)

    def log_trial_result(self, iteration: int, trial: Shown, row: Mapping[str, Any]) -> None:
        self.runs[trial].log(dict(row), step=int(row.get("env_steps", iteration)))

    def log_trial_end(self, trial: Shown, failed: bool = False) -> None:
        self.runs.pop(trial).finish()

    def on_experiment_end(self, trials: list) -> None:
        """Nothing: every trial has ended."""


def _tell_trackio(tracker: Trackio, trial: Shown, facts: Mapping[str, str]) -> None:
    told: dict[str, Any] = {**facts}
    if "video" in told:
        told["video"] = tracker.trackio.Video(told["video"], format="gif")
    if told:
        tracker.runs[trial].log(told)


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings: `config/training/lr` -> value; a list stays one value."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    return {k: v for key, part in tree.items() for k, v in flat(part, f"{path}/{key}".lstrip("/")).items()}


MAKERS: dict[str, Callable[[Experiment, Path], Any]] = {
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": lambda experiment, place: Trackio(experiment.recipe.name, experiment.folder.name),
}
TELL: dict[str, Callable[[Any, Shown, Mapping[str, str]], None]] = {
    "WandbLoggerCallback": _tell_wandb,
    "MLflowLoggerCallback": _tell_mlflow,
    "Trackio": _tell_trackio,
}
