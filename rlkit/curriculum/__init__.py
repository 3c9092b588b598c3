"""Curriculum learning for RLlib's new API stack: lessons, automatic curricula, self-play.

    from rlkit.curriculum import CurriculumCallback          # in anyone's own RLlib script
    config.callbacks([CurriculumCallback.bind(task={"via": "attribute"}, lessons=[...])])

`configure(config, section)` does the same from a recipe's section `curriculum`, `validate(section)` checks it without
importing ray. `train_phases` is the same curriculum as a training function. docs/curriculum.md explains the options.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlkit.curriculum.base import Clock, Curriculum, Outcome
    from rlkit.curriculum.callback import CurriculumCallback
    from rlkit.curriculum.conditions import Condition
    from rlkit.curriculum.lessons import Lesson, Lessons
    from rlkit.curriculum.phases import train_phases
    from rlkit.curriculum.route import Route
    from rlkit.curriculum.schema import TYPES, validate
    from rlkit.curriculum.section import active, configure
    from rlkit.curriculum.task_env import TaskEnv, TaskEnvCreator

_WHERE = {
    "TYPES": "schema",
    "Clock": "base",
    "Condition": "conditions",
    "Curriculum": "base",
    "CurriculumCallback": "callback",
    "Lesson": "lessons",
    "Lessons": "lessons",
    "Outcome": "base",
    "Route": "route",
    "TaskEnv": "task_env",
    "TaskEnvCreator": "task_env",
    "active": "section",
    "configure": "section",
    "train_phases": "phases",
    "validate": "schema",
}

__all__ = [
    "TYPES",
    "Clock",
    "Condition",
    "Curriculum",
    "CurriculumCallback",
    "Lesson",
    "Lessons",
    "Outcome",
    "Route",
    "TaskEnv",
    "TaskEnvCreator",
    "active",
    "configure",
    "train_phases",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
