"""Lessons: tasks in an order, each until its condition holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlkit.curriculum.base import Clock, Curriculum, Outcome, State
from rlkit.curriculum.conditions import Condition, Meter
from rlkit.curriculum.samplers import Task, draw, parse_task

if TYPE_CHECKING:
    from numpy.random import Generator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lesson:
    """One lesson.

    Attributes:
        name: shown in metrics, messages and pictures.
        task: values or samplers (see `rlkit.curriculum.samplers`), drawn anew for every episode.
        until: the lesson is over when this holds; None for the last one.
        back: return to the lesson before when this holds (default direction: below), None to stay.
        config: {AlgorithmConfig method: {argument: value}} that `train_phases` sets for this lesson.
    """

    name: str
    task: Task
    until: Condition | None = None
    back: Condition | None = None
    config: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def parse(cls, lesson: Mapping[str, Any] | Lesson) -> Lesson:
        """Make a Lesson from the form it has in a recipe.

        Raises:
            ValueError: see `Condition` and `rlkit.curriculum.samplers.parse`.
        """
        if isinstance(lesson, Lesson):
            return lesson
        fields = dict(lesson)
        for key, direction in (("until", "above"), ("back", "below")):
            if isinstance(fields.get(key), Mapping):
                given = {name: value for name, value in fields[key].items() if value is not None}
                fields[key] = Condition(**{"direction": direction, **given})
        return cls(**{**fields, "task": parse_task(fields.get("task", {}))})


class Lessons(Curriculum):
    """Play `lessons[0]` until its condition holds, then the next; back on collapse where a lesson asks for it.

    At most one change per iteration: the episodes that a new lesson is measured by are its own.

    Raises:
        ValueError: no lessons, two of one name, a condition on the last, none on another, `back` on the first.
    """

    def __init__(self, lessons: Sequence[Lesson | Mapping[str, Any]]):
        self.lessons = [Lesson.parse(lesson) for lesson in lessons]
        for path, message in problems(self.lessons):
            raise ValueError(
                f"lessons{''.join(f'[{p}]' if isinstance(p, int) else f'.{p}' for p in path)}: {message}"
            )
        conditions = [c for lesson in self.lessons for c in (lesson.until, lesson.back) if c]
        needs = {
            "success": any(c.measure == "success" for c in conditions),
            "returns": any(c.of for c in conditions),
        }
        self.needs = frozenset(name for name, needed in needs.items() if needed)
        self.history: list[dict[str, Any]] = []
        self._begin(0, 0)
        self._metrics = self._describe(None)

    def _begin(self, index: int, env_steps: int) -> None:
        self.index = index
        self.began = env_steps
        lesson = self.lessons[index]
        self._until = Meter(lesson.until, env_steps) if lesson.until else None
        self._back = Meter(lesson.back, env_steps) if lesson.back else None
        self._episodes = 0
        self._warned = False

    @property
    def lesson(self) -> Lesson:
        return self.lessons[self.index]

    def sample(self, rng: Generator) -> Task:
        return draw(self.lesson.task, rng)

    def update(self, task: Task, outcome: Outcome) -> None:
        self._episodes += 1
        for meter in (self._until, self._back):
            if meter:
                meter.update(outcome)

    def advance(self, clock: Clock) -> None:
        """Go on, go back, or stay."""
        for meter in (self._until, self._back):
            if meter:
                meter.tick(clock)
        self._metrics = self._describe(self._until.value(clock) if self._until else None)
        if self._until and self._until.reached(clock):
            self._move(self.index + 1, self._until, clock)
        elif self._back and self._back.reached(clock):
            self._move(self.index - 1, self._back, clock)
        elif self._until and not self._warned and (reason := self._until.out_of_reach()):
            self._warned = True
            logger.warning("curriculum: lesson %r may never end: %s", self.lesson.name, reason)

    def _move(self, index: int, meter: Meter, clock: Clock) -> None:
        value, condition = meter.value(clock), meter.condition
        self.history.append(
            {
                "from": self.lesson.name,
                "to": self.lessons[index].name,
                "env_steps": clock.env_steps,
                "episodes": self._episodes,
                "measure": condition.measure,
                "value": value,
            }
        )
        logger.info(
            "curriculum: lesson %r -> %r after %d env steps and %d episodes (%s %g, threshold %g)",
            self.lesson.name, self.lessons[index].name, clock.env_steps - self.began, self._episodes,
            condition.measure, value, condition.threshold,
        )  # fmt: skip
        self.stage += 1
        self._begin(index, clock.env_steps)

    def final(self, rng: Generator) -> Task:
        return draw(self.lessons[-1].task, rng)

    def each(self) -> dict[str, Task]:
        return {lesson.name: lesson.task for lesson in self.lessons}

    def label(self, task: Task) -> str | None:
        return self.lesson.name

    def metrics(self) -> dict[str, Any]:
        """Return `lesson` (number, from 0), `lesson_name`, `lesson_episodes`, `measure` and `threshold`.

        They describe the lesson that the last iteration played, also when it has just ended.
        """
        return self._metrics

    def _describe(self, measure: float | None) -> dict[str, Any]:
        values: dict[str, Any] = {
            "lesson": self.index,
            "lesson_name": self.lesson.name,
            "lesson_episodes": self._episodes,
        }
        if self.lesson.until:
            values["threshold"] = self.lesson.until.threshold
            if measure is not None:
                values["measure"] = measure
        return values

    @property
    def state(self) -> State:
        return {
            "lesson": self.lesson.name,
            "stage": self.stage,
            "began": self.began,
            "episodes": self._episodes,
            "until": self._until.state if self._until else None,
            "back": self._back.state if self._back else None,
            "history": list(self.history),
            "warned": self._warned,
        }

    @state.setter
    def state(self, state: State) -> None:
        """Take up a saved state. Lessons are found by name, so that a recipe may insert one before resuming.

        Raises:
            ValueError: the saved lesson is not in the list.
        """
        names = [lesson.name for lesson in self.lessons]
        if state["lesson"] not in names:
            raise ValueError(f"the checkpoint is in lesson {state['lesson']!r}, which is not among {names}")
        self._begin(names.index(state["lesson"]), state["began"])
        self.stage, self._episodes = state["stage"], state["episodes"]
        self.history, self._warned = list(state["history"]), state["warned"]
        for meter, saved in ((self._until, state["until"]), (self._back, state["back"])):
            if meter and saved:
                meter.state = saved
        self._metrics = self._describe(None)


def problems(lessons: Sequence[Lesson]) -> list[tuple[tuple[int | str, ...], str]]:
    """Return what is wrong with lessons as a sequence: (path below `lessons`, message)."""
    if not lessons:
        return [((), "the list is empty; a curriculum needs at least one lesson")]
    found: list[tuple[tuple[int | str, ...], str]] = []
    names: dict[str, int] = {}
    for i, lesson in enumerate(lessons):
        if lesson.name in names:
            found.append(((i, "name"), f"lesson {names[lesson.name]} has the name {lesson.name!r} already"))
        names.setdefault(lesson.name, i)
    for i, lesson in enumerate(lessons[:-1]):
        if lesson.until is None:
            found.append(
                ((i,), f"lesson {lesson.name!r} has no `until`, so the lessons after it are never played")
            )
    if lessons[-1].until is not None:
        message = f"lesson {lessons[-1].name!r} is the last one: nothing follows it; remove `until`"
        found.append(((len(lessons) - 1, "until"), message))
    if lessons[0].back is not None:
        found.append(
            ((0, "back"), f"lesson {lessons[0].name!r} is the first one: there is nothing to go back to")
        )
    return found
