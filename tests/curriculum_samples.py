"""Lessons, outcomes and random numbers for tests of curricula."""

from __future__ import annotations

import numpy as np

from rlkit.curriculum.base import Outcome

LESSONS = [
    {"name": "a", "task": {"x": 1}, "until": {"measure": "return", "threshold": 10, "min_episodes": 5}},
    {
        "name": "b",
        "task": {"x": 2},
        "until": {"measure": "success", "threshold": 0.5, "min_episodes": 4},
        "back": {"measure": "success", "threshold": 0.1, "min_episodes": 8},
    },
    {"name": "c", "task": {"x": {"uniform": [3, 4]}}},
]
SPACE = {"x": {"uniform": [0, 10]}, "y": {"uniform": [-1, 1]}}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def played(value: float = 0.0, success: float | None = None, **more: object) -> Outcome:
    return Outcome(episode_return=value, length=10, success=success, **more)  # type: ignore[arg-type]
