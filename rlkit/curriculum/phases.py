"""The same lessons as a training function: one algorithm per lesson, carrying over what it is told to.

    for result in train_phases(config, section, stop={"env_steps": 50_000}):
        tune.report(result)                    # or print, or nothing

A lesson's `config` changes settings that an algorithm fixes when it is built (learning rate, batch size, environment
arguments). What is carried is `weights`, `optimizer` and `replay`, each on by default; counters, metrics and the
curriculum's own state always go on, so the lessons end where they would with the callback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rlkit.curriculum.lessons import Lesson, Lessons
from rlkit.curriculum.section import active, configure
from rlkit.curriculum.transfer import hand_over
from rlkit.metrics import find


def train_phases(
    config: Any,
    curriculum: Mapping[str, Any],
    *,
    stop: Mapping[str, float],
    on_phase: Callable[[Any, Lesson], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train lesson after lesson, and yield the result of every iteration.

    Args:
        config: an AlgorithmConfig with its environment; it is copied, not changed.
        curriculum: a recipe's section `curriculum` of type lessons.
        stop: {"env_steps" | "iterations" | another metric: value}; the first one reached ends it.
        on_phase: called with the new algorithm and its lesson before each phase; the algorithm lives until the
            next call, and is stopped at the end.

    Raises:
        ValueError: see `validate`; or a lesson's `config` that AlgorithmConfig refuses.
    """
    options = dict(curriculum)
    lessons = {lesson.name: lesson for lesson in Lessons(options.get("lessons", ())).lessons}
    carry = {"weights": True, "optimizer": True, "replay": True, **(options.get("carry") or {})}
    plain = {**options, "lessons": [_without_config(lesson) for lesson in options["lessons"]], "carry": {}}
    for lesson in lessons.values():
        configured(config, lesson)  # a wrong setting of a later lesson is known before the first
    algorithm = _build(config, plain, next(iter(lessons.values())))
    try:
        if on_phase:
            on_phase(algorithm, next(iter(lessons.values())))
        while True:
            before = active(algorithm).curriculum.lesson.name
            result = algorithm.train()
            over = any(_reached(result, *limit) for limit in stop.items())
            now = active(algorithm).curriculum.lesson.name
            if now != before and not over:
                old, algorithm = algorithm, _build(config, plain, lessons[now])
                hand_over(old, algorithm, **carry)
                old.stop()
                if on_phase:
                    on_phase(algorithm, lessons[now])
            yield result
            if over:
                return
    finally:
        algorithm.stop()


def configured(config: Any, lesson: Lesson) -> Any:
    """Return a copy of the config with the lesson's settings.

    Raises:
        ValueError: names the lesson and the setting.
    """
    copy = config.copy(copy_frozen=False)
    for method, arguments in (lesson.config or {}).items():
        try:
            getattr(copy, method)(**arguments)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"lesson {lesson.name!r}: config.{method}: {error}") from error
    return copy


def _build(config: Any, section: Mapping[str, Any], lesson: Lesson) -> Any:
    made = configured(config, lesson)
    configure(made, section)
    return made.build_algo()


def _without_config(lesson: Lesson | Mapping[str, Any]) -> Any:
    if isinstance(lesson, Lesson):
        return {
            k: getattr(lesson, k) for k in ("name", "task", "until", "back") if getattr(lesson, k) is not None
        }
    return {key: value for key, value in lesson.items() if key != "config"}


def _reached(result: Mapping[str, Any], metric: str, limit: float) -> bool:
    value = find(result, "iteration" if metric == "iterations" else metric)
    return value is not None and value >= limit
