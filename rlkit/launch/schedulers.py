"""Tune's schedulers as a recipe names them, for metrics that come late and checkpoints that are pruned.

Tune's own (2.60) take a missing metric for an error (population based training), for a number (HyperBand, median
stopping), or never look again; RLlib reports no `episode_return` before an episode has ended. `LateMetric` keeps such
results from them. Population based training gives a trial the checkpoint of a better one, and that one may have been
deleted by then; `PopulationBasedTraining` keeps what can still be asked for, and gives each trial a copy of its own.
"""

from __future__ import annotations

import math
import numbers
import os
import random
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import schedulers
from ray.tune.schedulers import TrialScheduler
from ray.tune.search.sample import Float, Integer

from rlkit import rllib
from rlkit.errors import UsageError, did_you_mean
from rlkit.metrics import path_of


class LateMetric(TrialScheduler):
    """Mixin: the scheduler hears of a trial only from the first result on that has a number for the metric."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Pass a result on if it has the metric; without it the trial goes on."""
        if not self._judged(result):
            return TrialScheduler.CONTINUE
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        """A trial that ends without the metric leaves like one that was removed."""
        if self._judged(result):
            super().on_trial_complete(tune_controller, trial, result)
        else:
            self.on_trial_remove(tune_controller, trial)

    def _judged(self, result: Mapping[str, Any]) -> bool:
        value = result.get(str(self.metric))
        return isinstance(value, numbers.Real) and not math.isnan(value)


class PopulationBasedTraining(LateMetric, schedulers.PopulationBasedTraining):
    """Tune's, with checkpoints that are there when they are asked for.

    Args:
        keep: finished checkpoints each trial keeps, beside those another trial may still go on from; None keeps all.
        hyperparam_mutations: Tune's, nested like a trial's config.
        **options: Tune's own.

    Attributes:
        gave_up: called with a trial that goes on from another's checkpoint, and the iteration from which on it has
            given up its own.
    """

    def __init__(
        self,
        *,
        keep: int | None = None,
        hyperparam_mutations: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(
            require_attrs=False,
            hyperparam_mutations=hyperparam_mutations,
            custom_explore_fn=lambda config: within(config, hyperparam_mutations or {}),
            **options,
        )
        self.keep = keep
        self.mutations = hyperparam_mutations or {}
        self.synch = bool(options.get("synch"))
        self.gave_up: Callable[[Any, int], None] = lambda trial, iteration: None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Draw a first value where the recipe gives none; Tune (2.60) does so at the top level of its config alone."""
        fill(trial.config, self.mutations)
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Let Tune decide; then give exploiting trials a checkpoint of their own, and prune."""
        trials = tune_controller.get_trials()
        if self.synch:  # the last one decides for all, while others may still write what they had reached
            rllib.wait_for_saves(trials)
        decision = super().on_trial_result(tune_controller, trial, result)
        rllib.forget_stops(tune_controller, trials)
        for other in trials:
            iteration = adopt(other)
            if iteration is not None:
                self.gave_up(other, iteration)
        self._prune(trials)
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Let Tune choose; where all trials wait for each other, the one that is behind goes on.

        With `synch` a trial waits until all have passed the next perturbation, which Tune (2.60) may set at its own
        last result: where trials report at different times, it would wait for ever once the others have ended.
        """
        chosen = super().choose_trial_to_run(tune_controller)
        trials = tune_controller.get_trials()
        if chosen is not None or not self.synch or any(trial.status == trial.RUNNING for trial in trials):
            return chosen
        waiting = [trial for trial in trials if trial.status in (trial.PENDING, trial.PAUSED)]
        return min(waiting, key=lambda trial: rllib.pbt_iteration(self, trial) or 0, default=None)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        """Let Tune end the trial; then prune: its last result does not pass `on_trial_result`."""
        super().on_trial_complete(tune_controller, trial, result)
        self._prune([trial])

    def _prune(self, trials: list[Any]) -> None:
        if self.keep is not None:
            for trial in trials:
                rllib.prune_checkpoints(trial, self.keep, protect=rllib.pbt_iteration(self, trial))


class AsyncHyperBand(LateMetric, schedulers.AsyncHyperBandScheduler):
    """Tune's ASHA."""


class HyperBand(LateMetric, schedulers.HyperBandScheduler):
    """Tune's HyperBand."""


class MedianStopping(LateMetric, schedulers.MedianStoppingRule):
    """Tune's median stopping rule."""


KINDS: dict[str, type] = {
    "asha": AsyncHyperBand,
    "hyperband": HyperBand,
    "median": MedianStopping,
    "pbt": PopulationBasedTraining,
}


def make(options: Mapping[str, Any], *, keep: int | None) -> Any:
    """Return the scheduler of `tune.scheduler`, or None for first in, first out.

    Args:
        options: `type` and the scheduler's own options; `time_attr` may be a tidy name, `mutations` are Tune's domains
            by recipe key.
        keep: `checkpoint.keep`, for population based training.

    Raises:
        UsageError: an unknown type, or an option the scheduler does not have.
    """
    given = dict(options)
    kind = str(given.pop("type", "fifo")).lower()
    if kind == "fifo":
        return None
    if kind not in KINDS:
        raise UsageError(f"tune.scheduler.type: unknown {kind!r}{did_you_mean(kind, [*KINDS, 'fifo'])}")
    given["time_attr"] = path_of(given.get("time_attr", "iteration"))
    if kind == "pbt":
        given["hyperparam_mutations"] = nested(given.pop("mutations", None) or {})
        given["keep"] = keep
    try:
        return KINDS[kind](**given)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"tune.scheduler: {kind}: {error}") from error


def within(config: dict[str, Any], mutations: Mapping[str, Any]) -> dict[str, Any]:
    """Return a perturbed config with every number inside its search space; Tune (2.60) multiplies without a limit."""
    for key, domain in mutations.items():
        if isinstance(domain, Mapping):
            within(config[key], domain)
        elif isinstance(domain, Integer):
            config[key] = int(min(max(config[key], domain.lower), domain.upper - 1))
        elif isinstance(domain, Float):
            config[key] = float(min(max(config[key], domain.lower), domain.upper))
    return config


def fill(config: dict[str, Any], mutations: Mapping[str, Any]) -> None:
    """Draw what a config lacks of the keys that mutate.

    A whole number in a range of fractions becomes a fraction: Tune (2.60) rounds what it perturbs where the old value
    is whole.
    """
    for key, domain in mutations.items():
        if isinstance(domain, Mapping):
            if config.get(key) is None:
                config[key] = {}
            fill(config[key], domain)
        elif key not in config:
            config[key] = random.choice(domain) if isinstance(domain, list) else domain.sample(None)
        elif isinstance(domain, Float) and isinstance(config[key], int):
            config[key] = float(config[key])


def adopt(trial: Any) -> int | None:
    """Give a trial that goes on from another trial's checkpoint a copy of it, in its own folder, as hard links.

    Its own checkpoints of the same and of later iterations are removed: they belong to what it has given up, and a
    resume after a crash goes on from the highest number. Returns the iteration; None where nothing is taken over.
    """
    source = rllib.latest_checkpoint(trial)
    folder = rllib.folder_of(trial)
    if source is None or folder is None or source.parent == folder or not source.is_dir():
        return None
    number = int(source.name.removeprefix("checkpoint_"))
    for own in folder.glob("checkpoint_*"):
        if (
            own.name.removeprefix("checkpoint_").isdigit()
            and int(own.name.removeprefix("checkpoint_")) >= number
        ):
            shutil.rmtree(own, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".writing_{source.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=_link)
    target = folder / source.name
    temporary.rename(target)
    rllib.exploit_checkpoint(trial, target)
    return number


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"config.training.lr": x} -> {"config": {"training": {"lr": x}}}, the shape of a trial's config."""
    out: dict[str, Any] = {}
    for path, value in flat.items():
        here = out
        *parents, last = path.split(".")
        for key in parents:
            here = here.setdefault(key, {})
        here[last] = value
    return out


__all__ = ["KINDS", "LateMetric", "PopulationBasedTraining", "adopt", "make", "nested"]
