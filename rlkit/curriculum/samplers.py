"""Task values that are drawn anew for every episode: `{uniform: [lo, hi]}` and its kin.

A task is a dict of values; each value is a literal, or one of the samplers below. The same form stands in recipes
and in Python: `parse({"uniform": [0, 1]})`. Nothing here imports numpy: the random generator is given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rlkit.errors import did_you_mean

if TYPE_CHECKING:
    from numpy.random import Generator

Task = dict[str, Any]


@dataclass(frozen=True)
class Sampler:
    """A random value. `corners` are the values at the ends of what it can give, for checks before a run."""

    word: ClassVar[str]

    def draw(self, rng: Generator) -> Any:
        raise NotImplementedError

    def corners(self) -> list[Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Sampler):
    """A float, uniform in [lo, hi)."""

    lo: float
    hi: float
    word = "uniform"

    def __post_init__(self) -> None:
        _ordered(self.word, self.lo, self.hi)

    def draw(self, rng: Generator) -> float:
        return self.lo + (self.hi - self.lo) * rng.random()  # a tenth of the time of rng.uniform

    def corners(self) -> list[Any]:
        return [float(self.lo), float(self.hi)]


@dataclass(frozen=True)
class Integer(Sampler):
    """An int, uniform in [lo, hi], both ends included."""

    lo: int
    hi: int
    word = "integer"

    def __post_init__(self) -> None:
        _ordered(self.word, self.lo, self.hi)
        if not isinstance(self.lo, int) or not isinstance(self.hi, int):
            raise ValueError(
                f"integer: got [{self.lo}, {self.hi}], expected two whole numbers; or use uniform"
            )

    def draw(self, rng: Generator) -> int:
        return int(rng.integers(self.lo, self.hi + 1))

    def corners(self) -> list[Any]:
        return [self.lo, self.hi]


@dataclass(frozen=True)
class Gaussian(Sampler):
    """A float from a normal distribution, clipped to [lo, hi] where given: `{gaussian: [mean, std, lo, hi]}`."""

    mean: float
    std: float
    lo: float = -math.inf
    hi: float = math.inf
    word = "gaussian"

    def __post_init__(self) -> None:
        for value in (self.mean, self.std, self.lo, self.hi):
            _number(self.word, value)
        if self.std < 0:
            raise ValueError(f"gaussian: got a standard deviation of {self.std}, expected one >= 0")
        if self.lo > self.hi:
            raise ValueError(f"gaussian: got lo {self.lo} > hi {self.hi}; swap them")

    def draw(self, rng: Generator) -> float:
        return float(min(max(rng.normal(self.mean, self.std), self.lo), self.hi))

    def corners(self) -> list[Any]:
        ends = (self.mean - 3 * self.std, self.mean + 3 * self.std)
        return [min(max(value, self.lo), self.hi) for value in ends]


@dataclass(frozen=True)
class MultiRange(Sampler):
    """A float, uniform over the union of several intervals: `{multirange: [[0, 1], [4, 5]]}`."""

    ranges: tuple[tuple[float, float], ...]
    word = "multirange"

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("multirange: got no interval, expected [[lo, hi], ...]")
        for lo, hi in self.ranges:
            _ordered(self.word, lo, hi)

    def draw(self, rng: Generator) -> float:
        widths = [hi - lo for lo, hi in self.ranges]
        x = rng.uniform(0.0, sum(widths))
        for (lo, _), width in zip(self.ranges, widths, strict=True):
            if x < width:
                return float(lo + x)
            x -= width
        return float(self.ranges[-1][1])

    def corners(self) -> list[Any]:
        return [float(end) for interval in self.ranges for end in interval]


@dataclass(frozen=True)
class Choice(Sampler):
    """One of the given values, each as likely."""

    values: tuple[Any, ...]
    word = "choice"

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("choice: got no value, expected a list of at least one")

    def draw(self, rng: Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def corners(self) -> list[Any]:
        return list(self.values)


WORDS = ("uniform", "integer", "gaussian", "multirange", "choice")


def parse(value: Any) -> Any:
    """Return a `Sampler` for `{word: arguments}`, and any other value unchanged.

    Raises:
        ValueError: an unknown word, lo > hi, or arguments of the wrong shape.
    """
    if not isinstance(value, Mapping):
        return value
    if len(value) != 1:
        raise ValueError(
            f"got a mapping with keys {sorted(map(str, value))}, expected a value or {{sampler: [...]}}"
        )
    word, arguments = next(iter(value.items()))
    if word not in WORDS:
        raise ValueError(f"unknown sampler {word!r}{did_you_mean(word, WORDS)}; known: {', '.join(WORDS)}")
    if not isinstance(arguments, Sequence) or isinstance(arguments, str):
        raise ValueError(f"{word}: got {arguments!r}, expected a list")
    if word == "choice":
        return Choice(tuple(arguments))
    if word == "multirange":
        if not all(isinstance(r, Sequence) and not isinstance(r, str) and len(r) == 2 for r in arguments):
            raise ValueError(f"multirange: got {list(arguments)!r}, expected [[lo, hi], ...]")
        return MultiRange(tuple((r[0], r[1]) for r in arguments))
    if word == "gaussian":
        if len(arguments) not in (2, 4):
            raise ValueError(
                f"gaussian: got {list(arguments)!r}, expected [mean, std] or [mean, std, lo, hi]"
            )
        return Gaussian(*arguments)
    if len(arguments) != 2:
        raise ValueError(f"{word}: got {list(arguments)!r}, expected [lo, hi]")
    return Uniform(*arguments) if word == "uniform" else Integer(*arguments)


def parse_task(task: Mapping[str, Any]) -> Task:
    """Parse every value of a task."""
    return {str(key): parse(value) for key, value in task.items()}


def draw(task: Mapping[str, Any], rng: Generator) -> Task:
    """Draw a task: literals stay, samplers are drawn in the order of the keys."""
    return {key: value.draw(rng) if isinstance(value, Sampler) else value for key, value in task.items()}


def is_random(task: Mapping[str, Any]) -> bool:
    """Does any value of the task vary between episodes?"""
    return any(isinstance(value, Sampler) for value in task.values())


def corner_tasks(task: Mapping[str, Any]) -> list[Task]:
    """Tasks that try every end of every sampler, the other values at their first: what a check plays beforehand."""
    first = {k: v.corners()[0] if isinstance(v, Sampler) else v for k, v in task.items()}
    others = [
        {**first, key: end}
        for key, value in task.items()
        if isinstance(value, Sampler)
        for end in value.corners()[1:]
    ]
    return [first, *others]


def corners_by_name(task: Mapping[str, Any]) -> dict[str, Task]:
    """Return `corner_tasks` under the names they have in metrics."""
    return {name_of(corner): corner for corner in corner_tasks(task)}


def name_of(task: Mapping[str, Any]) -> str:
    """Name a task by its values: `size=3,gravity=9.8`."""
    return ",".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in task.items())


def named(tasks: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return tasks by name; those whose short names are alike have all their digits."""
    listed = list(tasks)
    short = [name_of(task) for task in listed]
    count = Counter(short)
    exact = [",".join(f"{key}={value!r}" for key, value in task.items()) for task in listed]
    return {(x if count[s] > 1 else s): task for s, x, task in zip(short, exact, listed, strict=True)}


def box_of(space: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the ends of a space in which every value is `{uniform: [lo, hi]}`.

    Raises:
        ValueError: another sampler, or a literal.
    """
    box: dict[str, tuple[float, float]] = {}
    for key, value in space.items():
        sampler = value if isinstance(value, Sampler) else parse(value)
        if not isinstance(sampler, Uniform):
            raise ValueError(f"{key}: got {value!r}, expected {{uniform: [lo, hi]}}")
        box[key] = (float(sampler.lo), float(sampler.hi))
    return box


def _number(word: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise ValueError(f"{word}: got {value!r}, expected a number")


def _ordered(word: str, lo: Any, hi: Any) -> None:
    for value in (lo, hi):
        _number(word, value)
    if lo > hi:
        raise ValueError(f"{word}: got lo {lo} > hi {hi}; swap them")
