"""Columns: a gymnasium space as a fixed set of preallocated arrays, one per leaf.

`Box`, `Discrete`, `MultiDiscrete` and `MultiBinary` are leaves; `Dict` and `Tuple` nest them to any depth.
Images stay `uint8`; `float64` is stored as `float32`, which is what RLlib's modules compute in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

Path = tuple[str | int, ...]

ACCEPTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"


class Place(int):
    """The place of a part in a Tuple; a plain int in a path is a key of a Dict, such as an agent's id."""


@dataclass(frozen=True)
class Leaf:
    """One array of a column: where it sits in the nested value, and the shape and dtype of one row."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    def label(self, column: str) -> str:
        """Return the leaf's name in messages and file names, such as `obs.image` or `obs.0`."""
        return ".".join([column, *map(str, self.path)])


@dataclass(frozen=True)
class Column:
    """A named value per row, made of one or more leaves."""

    name: str
    leaves: tuple[Leaf, ...]

    @staticmethod
    def of(
        name: str, space: gym.Space | None = None, *, shape: Sequence[int] = (), dtype: Any = np.float32
    ) -> Column:
        """Build a column from a space, or from one shape and dtype.

        Raises:
            ValueError: the space has a part that has no fixed shape.
        """
        if space is None:
            return Column(name, (Leaf((), tuple(shape), np.dtype(dtype)),))
        return Column(name, tuple(_leaves(space, (), name)))

    @staticmethod
    def like(name: str, value: Any) -> Column:
        """Build a column for values shaped like `value`, an array or a nested dict of arrays (one row)."""
        return Column(name, tuple(_leaves_like(value, ())))

    def nest(self, values: Sequence[Any]) -> Any:
        """Put one value per leaf back into the shape of the space (dicts, tuples, or the bare value)."""
        return _nest(list(zip((leaf.path for leaf in self.leaves), values, strict=True)))


def _leaves(space: gym.Space, path: Path, column: str) -> Iterator[Leaf]:
    if isinstance(space, gym.spaces.Dict):
        for key, sub in space.spaces.items():
            yield from _leaves(sub, (*path, key), column)
    elif isinstance(space, gym.spaces.Tuple):
        for index, sub in enumerate(space.spaces):
            yield from _leaves(sub, (*path, Place(index)), column)
    elif isinstance(
        space, gym.spaces.Box | gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary
    ):
        dtype = np.dtype(space.dtype)
        shape = tuple(space.shape or ())
        yield Leaf(path, shape, np.dtype(np.float32) if dtype == np.float64 else dtype)
    else:
        where = Leaf(path, (), np.dtype(np.float32)).label(column)
        raise ValueError(
            f"the replay buffer cannot hold {where}: got {type(space).__name__} ({space}), "
            f"expected {ACCEPTED}; encode it in the environment or with an env-to-module connector"
        )


def _leaves_like(value: Any, path: Path) -> Iterator[Leaf]:
    if isinstance(value, Mapping):
        for key, sub in value.items():
            yield from _leaves_like(sub, (*path, key))
    else:
        array = np.asarray(value)
        yield Leaf(path, array.shape, np.dtype(np.float32) if array.dtype == np.float64 else array.dtype)


def _nest(items: list[tuple[Path, Any]]) -> Any:
    if len(items) == 1 and not items[0][0]:
        return items[0][1]
    groups: dict[str | int, list[tuple[Path, Any]]] = {}
    for path, value in items:
        groups.setdefault(path[0], []).append((path[1:], value))
    nested = {key: _nest(sub) for key, sub in groups.items()}
    return tuple(nested.values()) if isinstance(items[0][0][0], Place) else nested


def pick(value: Any, path: Path) -> Any:
    """Return the part of a nested value that `path` names."""
    for key in path:
        value = value[key]
    return value


def as_rows(leaf: Leaf, column: str, value: Any, length: int, where: str) -> np.ndarray:
    """Return one leaf of a fragment as an array `(length, *shape)` in the leaf's dtype.

    Raises:
        ValueError: a shape or dtype that does not fit; the message names the column and the episode.
    """
    try:
        rows = np.asarray(pick(value, leaf.path))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{where}: {leaf.label(column)} is missing (got {type(value).__name__})") from error
    expected = (length, *leaf.shape)
    if rows.shape != expected:
        raise ValueError(
            f"{where}: {leaf.label(column)} has shape {rows.shape}, expected {expected} "
            f"(a connector that changes observations must write them back into the episode)"
        )
    if rows.dtype != leaf.dtype:
        if not np.can_cast(rows.dtype, leaf.dtype, "same_kind") and rows.dtype.kind not in "biu":
            raise ValueError(f"{where}: {leaf.label(column)} has dtype {rows.dtype}, expected {leaf.dtype}")
        rows = rows.astype(leaf.dtype)
    return rows


def first_bad_row(rows: np.ndarray) -> int | None:
    """Return the index of the first row with NaN or inf, or None. Integer and bool arrays have none."""
    if rows.dtype.kind != "f" or np.isfinite(rows.sum(dtype=np.float64)):
        return None
    return int(np.argmin(np.isfinite(rows).reshape(len(rows), -1).all(axis=1)))
