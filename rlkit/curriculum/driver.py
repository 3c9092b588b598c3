"""The driver's half: outcomes in, decisions, and the message that every runner gets."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlkit.curriculum.base import Clock, Curriculum, EpisodeReport, State
from rlkit.curriculum.samplers import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Push:
    """What a runner needs to draw tasks.

    Attributes:
        number: increases with every iteration.
        life: increases with every restore.
        births: runners recreated so far, so that a new one does not draw its predecessor's tasks again.
        seed: of the run; with the numbers above, the worker and the sub-environment it seeds a task sequence.
    """

    number: int
    life: int
    births: int
    seed: int
    state: State


class Decider:
    """Feeds a curriculum with the outcomes of an iteration and describes it for the metrics.

    Args:
        curriculum: the copy that decides.
        seed: of the task sequences; None draws one, which is saved with the state.
    """

    def __init__(self, curriculum: Curriculum, seed: int | None, total_steps: int | None):
        import numpy as np

        self.curriculum = curriculum
        self.seed = int(seed if seed is not None else np.random.SeedSequence().generate_state(1)[0])
        self.total_steps = total_steps
        self.life = 0
        self.births = 0
        self._number = 0
        self._push: Push | None = None

    def end_iteration(
        self, reports: Iterable[EpisodeReport], result: Mapping[str, Any], evaluated: bool
    ) -> dict[str, Any]:
        """Update, advance, and return the iteration's `curriculum` metrics."""
        stage, reports = self.curriculum.stage, list(reports)
        counted = sorted(
            (r for r in reports if r.life == self.life and r.stage == stage), key=lambda report: report.order
        )
        for report in counted:
            self.curriculum.update(report.task, report.outcome)
        summary = summarise([(self.curriculum.label(r.task), r) for r in counted])
        self.curriculum.advance(
            Clock(
                env_steps=int(result.get("num_env_steps_sampled_lifetime") or 0),
                total_steps=self.total_steps,
                result=result,
                evaluated=evaluated,
            )
        )
        self._push = None
        ignored = len(reports) - len(counted)
        return {**self.curriculum.metrics(), "stage": stage, **summary, "ignored": ignored}

    def reborn(self) -> Push:
        """Return the push for runners that were just recreated."""
        self.births += 1
        return replace(self.push(), births=self.births)

    def push(self) -> Push:
        """Return what all runners must have now."""
        if self._push is None:
            self._number += 1
            self._push = Push(self._number, self.life, self.births, self.seed, self.curriculum.runner_state())
        return self._push

    def get_state(self) -> State:
        """Return everything a resumed run needs."""
        return {
            "curriculum": self.curriculum.state,
            "number": self._number,
            "life": self.life,
            "births": self.births,
            "seed": self.seed,
        }

    def set_state(self, state: State) -> None:
        """Take up a saved run. A new life begins: outcomes on their way from before do not count any more."""
        self.curriculum.state = state["curriculum"]
        self.life = max(self.life, state["life"]) + 1
        self.births, self.seed = state["births"], state["seed"]
        self._number = max(self._number, state["number"])
        self._push = None


def summarise(reports: list[tuple[str | None, EpisodeReport]]) -> dict[str, Any]:
    """Return episodes, mean returns and success per named task, and the mean and range of each task value."""
    values: dict[str, list[float]] = defaultdict(list)
    returns: dict[str, list[float]] = defaultdict(list)
    successes: dict[str, list[float]] = defaultdict(list)
    for name, report in reports:
        for key, value in report.task.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values[key].append(float(value))
        if name is not None:
            returns[name].append(report.outcome.episode_return)
            if report.outcome.success is not None:
                successes[name].append(report.outcome.success)
    summary: dict[str, Any] = {"episodes": len(reports)}
    for key, column in (("task", values), ("return", returns), ("success", successes)):
        if column:
            summary[key] = {name: sum(v) / len(v) for name, v in column.items()}
    ranges = {name: (min(v), max(v)) for name, v in values.items() if min(v) != max(v)}
    if ranges:
        summary["task_min"] = {name: lo for name, (lo, _) in ranges.items()}
        summary["task_max"] = {name: hi for name, (_, hi) in ranges.items()}
    return summary


class Evaluations:
    """Which task an evaluation episode plays: `current`, `final`, or `each` in turn."""

    MODES = ("current", "final", "each")

    def __init__(self, mode: str):
        if mode not in self.MODES:
            raise ValueError(f"evaluate_on: got {mode!r}, expected one of {', '.join(self.MODES)}")
        self.mode = mode

    def task(self, curriculum: Curriculum, turn: int, rng: Any) -> tuple[str | None, Task]:
        """Return (name, task) of evaluation episode number `turn`."""
        from rlkit.curriculum.samplers import draw

        if self.mode == "each" and (tasks := curriculum.each()):
            name = list(tasks)[turn % len(tasks)]
            return name, draw(tasks[name], rng)
        task = curriculum.sample(rng) if self.mode == "current" else curriculum.final(rng)
        return None, task
