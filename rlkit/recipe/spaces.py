"""Search spaces: the only tags a recipe knows. Tune turns them into values, one trial at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlkit.recipe.problems import Path

LISTS = ("grid", "choice")
RANGES = ("uniform", "loguniform", "randint")
KINDS = LISTS + RANGES


@dataclass(frozen=True)
class SearchSpace:
    """`!grid [a, b]`, `!choice [a, b]`, `!uniform [lo, hi]`, `!loguniform [lo, hi]`, `!randint [lo, hi]`.

    Attributes:
        kind: one of `KINDS`.
        args: the values of a grid or choice; `(lo, hi)` of a range, `hi` excluded for `randint`.
    """

    kind: str
    args: tuple[Any, ...]

    def candidates(self) -> tuple[Any, ...]:
        """Return values that any member lies between: all of a list, the lowest and highest of a range."""
        if self.kind == "randint":
            return (self.args[0], self.args[1] - 1)
        return self.args

    def __str__(self) -> str:
        return f"!{self.kind} [{', '.join(map(str, self.args))}]"


def space_error(kind: str, args: object) -> tuple[str, str] | None:
    """Return what is wrong with the arguments of a search space and the fix, or None."""
    if not isinstance(args, list | tuple):
        return f"!{kind} takes a list", f"!{kind} [{'1, 2' if kind in LISTS else '0.1, 0.9'}]"
    if any(next(spaces_in(item), None) for item in args):
        return f"!{kind} cannot hold another search space", "give each key one search space"
    if kind in LISTS:
        return None if args else (f"!{kind} has no values", f"!{kind} [1, 2]")
    number = int if kind == "randint" else (int, float)
    if len(args) != 2 or not all(isinstance(x, number) and not isinstance(x, bool) for x in args):
        what = "whole numbers" if kind == "randint" else "numbers"
        example = "1, 9" if kind == "randint" else "0.1, 0.9"
        return f"!{kind} takes two {what}, lowest and highest", f"!{kind} [{example}]"
    low, high = args
    if low == high:
        fix = f"!randint [{low}, {low + 1}]" if kind == "randint" else f"write {low} without !{kind}"
        return f"!{kind}: between {low} and {high} there is nothing to choose", fix
    if not low < high:
        return f"!{kind}: the lowest value {low} is not below the highest {high}", f"!{kind} [{high}, {low}]"
    if kind == "loguniform" and low <= 0:
        return f"!loguniform needs values above 0, its lowest is {low}", f"!uniform [{low}, {high}]"
    return None


def spaces_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, SearchSpace]]:
    """Yield (path, space) for every search space in plain data."""
    if isinstance(value, SearchSpace):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from spaces_in(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from spaces_in(item, (*path, index))


def candidates(value: Any) -> tuple[Any, ...]:
    """Return the value itself as a 1-tuple, or the candidates of a search space."""
    return value.candidates() if isinstance(value, SearchSpace) else (value,)


def variants(value: Any) -> Iterator[Any]:
    """Yield the value with its search spaces replaced, until every candidate of every space has stood in it once."""
    count = max((len(space.candidates()) for _, space in spaces_in(value)), default=1)
    for index in range(count):
        yield _filled(value, index)


def _filled(value: Any, index: int) -> Any:
    if isinstance(value, SearchSpace):
        found = value.candidates()
        return found[min(index, len(found) - 1)]
    if isinstance(value, Mapping):
        return {key: _filled(item, index) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, index) for item in value]
    return value
