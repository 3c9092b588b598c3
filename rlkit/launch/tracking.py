"""What happens on every result of a run: metrics.csv, stop rules, the best checkpoint, a stop on request."""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ray
from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from rlkit import rllib
from rlkit.launch.experiment import Experiment
from rlkit.launch.faults import DEATHS
from rlkit.launch.interrupt import Interrupt
from rlkit.launch.mirror import Mirror, destination
from rlkit.launch.progress import Progress
from rlkit.launch.trial import STORE, TRUST
from rlkit.metrics import find, measured, tidy, tidy_name
from rlkit.runs import manifest, signing
from rlkit.runs.layout import METRICS, iteration_of
from rlkit.runs.metrics_csv import MetricsWriter
from rlkit.runs.run import Best

SAVE_LIMIT_S = 25.0
WAIT_LIMIT_S = 20.0  # a trial starts within 10 s when the resources it asks for are free
NOTICES_EVERY_S = 2.0


def reason_in(path: Path, notices: Sequence[str]) -> str:
    """Return why a trial failed: the last exception in its error.txt, or what is known of a process that died."""
    reason = root_cause(path.read_text(errors="replace") if path.is_file() else "")
    if "worker process has died" not in reason:
        return reason
    last = f" ({notices[-1].splitlines()[0]})" if notices else ""
    return (
        f"its process ended without an exception{last}: killed, out of memory, os._exit, or a crash in native "
        "code, of the environment for example"
    )


def root_cause(text: str) -> str:
    """Return the last exception of a traceback that says something; RLlib ends some with an empty RuntimeError.

    Of an error.txt with several failures: of the last one.
    """
    text = re.split(r"^Failure # \d+ \(occurred at .*$", text, flags=re.MULTILINE)[-1]
    found = re.findall(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Interrupt|Exit)): (\S.*)$", text, re.MULTILINE)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ": ".join(found[-1]) if found else lines[-1] if lines else "no reason was recorded"


class StopRule(tune.Stopper):
    """Ends a trial at the first `stop:` key whose value is reached (`>=`, as in Tune).

    The limits belong to the class: on resume Tune brings back its own pickled copy of the stopper (2.60,
    `TuneController.__setstate__`), which must follow the limits of the run that goes on.
    """

    limits: ClassVar[dict[str, float]] = {}

    def __init__(self, stop: Mapping[str, float]):
        StopRule.limits = dict(stop)

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        row = tidy(result)
        values = {key: row.get(key, find(result, key)) for key in self.limits}
        return any(v is not None and v >= self.limits[key] for key, v in values.items())

    def stop_all(self) -> bool:
        return False


class Tracker(tune.Callback):
    """Tune's callback in the driver. One instance follows all trials of a run."""

    def __init__(
        self, experiment: Experiment, interrupt: Interrupt, show: Progress, mirror: Mirror | None = None
    ):
        recipe, info = experiment.recipe, experiment.info
        self.folder, self.info, self.interrupt, self.show = experiment.folder, info, interrupt, show
        self.mirror = mirror or Mirror(experiment.folder, info)
        self.metric = recipe.checkpoint.best
        self.sign, self.max_failures = recipe.best_sign, recipe.tune.max_failures
        self.writer = MetricsWriter(self.folder / METRICS)
        self.running: dict[str, bool] = {}  # trial -> is its checkpoint for the interrupt written?
        self.trial_best = {name: self.sign * entry.value for name, entry in info.trial_best.items()}
        self.scores: dict[str, float] = {}  # trial -> the metric in its last result
        self.errors: dict[str, str] = {}
        self._ended = False
        self._trouble: str | None = None
        self._placed = experiment.resume is None
        self._trust = experiment.trust or signing.read_key() is None  # without a key nothing can be signed
        self.notices: list[str] = []
        self._asked_for_notices = 0.0
        self._idle_since: float | None = None  # no trial is running since then

    # -- Tune's hooks --

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """On resume, before any trial starts: point each at the newest checkpoint on disk.

        Tune's notes are written every few seconds, so after a crash they can lag behind the folder.
        """
        if self._placed:
            return
        self._placed = True
        for trial in trials:
            if trial.status == trial.TERMINATED:
                continue
            trial.config[TRUST] = self._trust
            trial.config[STORE] = destination(self.folder)
            rllib.allow_failures(trial, self.max_failures)
            rllib.forget_deleted_checkpoints(trial)
            good, skipped = manifest.latest_good(self.folder / name_of(trial), trust=self._trust)
            for path, reason in skipped:
                self.show.say(f"passing over {path}: {reason}")
            if good is not None:
                rllib.point_to_checkpoint(trial, good.path, good)
                self.show.say(f"{name_of(trial)}: going on from {good.path.name}")
            else:
                self.show.say(f"{name_of(trial)}: no intact checkpoint, starting from the beginning")

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.running[name_of(trial)] = False
        self.show.trial(name_of(trial), "running")

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        name = name_of(trial)
        row = tidy(result)
        self.writer.write(name, row)
        self.show.result(name, row)
        for line in result.get(DEATHS, ()):
            self.show.say(f"{name}: {line}")
        self.scores[name] = measured(result, self.metric)
        score = self.sign * self.scores[name]
        if score > self.trial_best.get(name, -math.inf):
            self.trial_best[name] = score
            result[SHOULD_CHECKPOINT] = tidy_name(self.metric).startswith(("eval/", "evaluation/"))
        if self.interrupt.signal is not None:
            result[SHOULD_CHECKPOINT] = True

    def on_checkpoint(self, iteration: int, trials: list, trial: Any, checkpoint: Any, **info: Any) -> None:
        name = name_of(trial)
        self.mirror.fetch(Path(checkpoint.path))
        self.info.last_checkpoint = self._relative(checkpoint.path)
        value = self.scores.get(name, math.nan)
        if not math.isnan(value):
            entry = Best(name, self._relative(checkpoint.path), self.metric, value)
            if self._takes_over(entry, self.info.trial_best.get(name)):
                self.info.trial_best[name] = entry
            if self._takes_over(entry, self.info.best):
                self.info.best = entry
        self.info.write(self.folder)
        self.mirror.tick(at_once=True)
        if self.interrupt.signal is not None:
            self.running[name] = True
            self.show.trial(name, "saved")

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.running.pop(name_of(trial), None)
        self.show.trial(name_of(trial), "done")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.running.pop(name_of(trial), None)
        self._tell_notices(every_s=0.0)
        self.errors[name_of(trial)] = str(Path(trial.path or self.folder) / "error.txt")
        self.show.trial(name_of(trial), "failed")

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A failure that `tune.max_failures` allows: Tune starts the trial again from its last checkpoint."""
        name, path = name_of(trial), Path(trial.path or self.folder) / "error.txt"
        self._tell_notices(every_s=0.0)
        reason = reason_in(Path(trial.error_file or path), self.notices)  # Tune copies it to `path` later
        at = f"going on from {Path(trial.checkpoint.path).name}" if trial.checkpoint else "beginning again"
        count = f"failure {trial.num_failures} of {trial.max_failures} allowed"
        self.show.say(f"{name} failed: {reason}; {at} ({count}; {path})")

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        self._tell_of_waiting(trials)
        self._tell_notices()
        self._copy()
        if self.interrupt.signal is None or self._ended:
            return
        self.show.stopping()
        waited = time.monotonic() - self.interrupt.since
        if all(self.running.values()) or waited > SAVE_LIMIT_S:
            self._ended = True
            signal.raise_signal(signal.SIGUSR1)  # Tune's loop ends without waiting for checkpoints

    def gave_up(self, trial: Any, iteration: int) -> None:
        """A trial goes on from another's checkpoint: its own from that iteration on are gone, the best of them too."""
        name, entries = name_of(trial), self.info.trial_best
        if name in entries and (iteration_of(entries[name].checkpoint) or 0) >= iteration:
            del entries[name]
            self.trial_best.pop(name, None)
            if self.info.best is not None and self.info.best.trial == name:
                self.info.best = max(entries.values(), key=lambda e: self.sign * e.value, default=None)
            self.info.write(self.folder)

    # -- helpers --

    def _tell_of_waiting(self, trials: list) -> None:
        """Say once per wait what the next trial lacks: with the cluster full, Tune waits for ever in silence.

        A trial that Ray is starting holds its resources already: then nothing is missing for long.
        """
        waiting = [trial for trial in trials if trial.status == trial.PENDING]
        if self.running or not waiting:
            self._idle_since = None
            return
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > WAIT_LIMIT_S:
            lacks = missing(waiting[0].placement_group_factory)
            if lacks:
                self._idle_since = math.inf
                self.show.say(f"waiting for Ray: {lacks}")

    def _tell_notices(self, every_s: float = NOTICES_EVERY_S) -> None:
        """Show what processes of the run had to say, such as that an environment has blocked for a minute."""
        now = time.monotonic()
        if now - self._asked_for_notices > every_s:
            self._asked_for_notices = now
            for line in rllib.take_notices():
                self.notices.append(line)
                self.show.say(line)

    def _copy(self) -> None:
        """Copy to object storage what is due, and say once what stands in the way."""
        trouble = self.mirror.trouble
        if trouble and trouble != self._trouble:
            self.show.say(f"{trouble}; trying again")
        self._trouble = trouble
        self.mirror.tick()

    def _takes_over(self, entry: Best, before: Best | None) -> bool:
        """Whether a checkpoint is the best now. Of a trial's equal ones it is the newest: Tune keeps the newest."""
        if before is None or entry.value == before.value:
            return before is None or entry.trial == before.trial
        return self.sign * entry.value > self.sign * before.value

    def _relative(self, path: str) -> str:
        return str(Path(path).resolve().relative_to(self.folder.resolve()))


def missing(request: Any) -> str:
    """Return what a trial that has not started lacks; empty while Ray is starting it.

    What is free cannot tell: Ray takes it before the trial starts. A trial that lacks something has a reservation
    (a placement group) that is still pending, and on one node too little is free.
    """
    bundles = [{name: amount for name, amount in bundle.items() if amount} for bundle in request.bundles]
    groups = ray.util.placement_group_table().values()
    if not any(g["state"] == "PENDING" and [*g["bundles"].values()] == bundles for g in groups):
        return ""
    have, need = ray.available_resources(), request.required_resources
    asked = ", ".join(f"{amount:g} {name}" for name, amount in need.items())
    free = ", ".join(f"{have.get(name, 0.0):g} {name}" for name in need)
    enough = all(have.get(name, 0.0) >= need[name] for name in need)
    if enough and sum(node["Alive"] for node in ray.nodes()) == 1:
        return ""  # just set free: Ray is about to start the trial
    where = ", on no node together" if enough else ""
    return f"the next trial needs {asked}; free are {free}{where}"


def name_of(trial: Any) -> str:
    """Return the name of a trial's folder, which is its name everywhere in rlkit."""
    return str(trial.storage.trial_dir_name)
