"""Strict fields for pydantic models of options: no text or bool for a number, finite, in range; schedules in order.

A fault that is no matter of type or range is a ValueError whose message ends in `; fix: what to write`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

Positive = Annotated[int, Field(ge=1)]
"""A whole number of at least 1."""


class Options(BaseModel):
    """Base of an algorithm's options: all strict."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def number(**bounds: Any) -> Any:
    """Return the type of a finite number; `bounds` are those of pydantic's Field: gt, ge, lt, le."""
    return Annotated[float, Strict(), Field(allow_inf_nan=False, **bounds)]


def whole(**bounds: Any) -> Any:
    """Return the type of a whole number."""
    return Annotated[int, Strict(), Field(**bounds)]


def schedule(**bounds: Any) -> Any:
    """Return the type of RLlib's schedules: [[env step, value], …], linear in between. A learning rate may end at 0."""
    relaxed = {"ge" if name == "gt" else name: bound for name, bound in bounds.items()}
    point: Any = tuple[number(), number(**relaxed)]  # type: ignore[misc]
    point = Annotated[point, Strict(False)]
    points: Any = list[point]
    return Annotated[points, BeforeValidator(_pairs), AfterValidator(_in_order)]


_FIX = "; fix: write [[0, 1e-3], [100000, 1e-4]]"


def _pairs(points: Any) -> Any:
    if isinstance(points, list) and not (
        len(points) > 1 and all(isinstance(point, list | tuple) and len(point) == 2 for point in points)
    ):
        raise ValueError(f"a schedule needs two or more [step, value]{_FIX}")
    return points


def _in_order(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    steps = [step for step, _ in points]
    if steps[0] != 0 or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(f"a schedule begins at step 0, and its steps must increase{_FIX}")
    return points


if TYPE_CHECKING:
    Schedule = list[tuple[float, float]]
else:
    Schedule = schedule(ge=0)
