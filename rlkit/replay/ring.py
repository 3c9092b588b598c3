"""The ring: preallocated columns of environment steps, linked into trajectories.

One row is one step: the observation (and every other *state* column) at time t, the action, reward and flags of the
step taken there, and a link to the row of t+1. The next observation is read through that link, so observations are
stored once. Where an episode ends, or a fragment ends whose continuation has not come yet, the link points to a small
side table of *tails* that holds the last observation. A later fragment of the same episode replaces the link.

Legend: T steps of a fragment, B rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlkit.errors import EnvError
from rlkit.replay.columns import Column, as_rows, first_bad_row

PRUNE_OPEN_ABOVE = 4096

# column -> leaf -> one array per fragment
Parts = dict[str, list[list[np.ndarray]]]


@dataclass(frozen=True)
class Fragment:
    """Consecutive steps of one episode.

    Attributes:
        key: The episode (and agent) the steps belong to; the same for all fragments of one episode.
        start: Index of the first step within its episode. A fragment is linked to the one before it only if
            that one ended exactly here, so that a lost fragment never joins what it does not connect.
        length: T.
        states: State columns, arrays or nested arrays of length T + 1 (the last is the state after the last step).
        steps: Step columns, arrays or nested arrays of length T.
        done: Whether the episode ended with the last step (terminated or truncated).
    """

    key: str
    start: int
    length: int
    states: Mapping[str, Any]
    steps: Mapping[str, Any]
    done: bool


class Ring:
    """Columns of at most `capacity` steps; the oldest are overwritten.

    Args:
        capacity: Steps to hold.
        states: Columns read at t and at t + 1 (observations, recurrent states).
        steps: Columns of the step itself (actions, rewards, flags).
        later: Names of further step columns, arrays whose shape and dtype are those of the first fragment.
    """

    def __init__(
        self, capacity: int, states: Sequence[Column], steps: Sequence[Column], later: Sequence[str] = ()
    ):
        if capacity < 1:
            raise ValueError(f"replay capacity must be at least 1, got {capacity}")
        self.capacity, self.states, self.steps = capacity, tuple(states), tuple(steps)
        self.later = tuple(later)
        self.size = 0
        self.head = 0
        self.total = 0
        self.data: dict[str, list[np.ndarray]] = {c.name: _allocate(c, capacity) for c in (*states, *steps)}
        self.link = np.full(capacity, -1, dtype=np.int64 if capacity >= 2**30 else np.int32)
        slots = min(capacity, 1024)
        self.tails: dict[str, list[np.ndarray]] = {c.name: _allocate(c, slots) for c in states}
        self._free = np.arange(slots, dtype=np.int32)[::-1].copy()
        self._num_free = slots
        # episode -> (its last row, `total` when that row was written, index of its next step)
        self._open: dict[str, tuple[int, int, int]] = {}

    def add(self, fragments: Iterable[Fragment]) -> np.ndarray:
        """Append fragments; return the rows they went to, in order.

        The rows of steps that were overwritten at once, because more came than fit, are left out.

        Raises:
            ValueError: a column with a wrong shape or dtype.
            EnvError: NaN or inf in a column, named with its episode and step.
        """
        batches: list[list[Fragment]] = [[]]
        room = self.capacity
        for fragment in fragments:
            if fragment.length < 1:
                continue
            fragment = _last_steps(fragment, self.capacity)
            if fragment.length > room:
                batches.append([])
                room = self.capacity
            batches[-1].append(fragment)
            room -= fragment.length
        written = [self._write(batch) for batch in batches if batch]
        if not written:
            return np.zeros(0, dtype=np.int64)
        rows = np.concatenate(written)
        return rows if len(written) == 1 else rows[-self.capacity :]

    def _add_later(self, arrays: Mapping[str, Any]) -> None:
        """Allocate the columns in `later`, shaped like these arrays (one row per step)."""
        columns = [Column.like(name, np.asarray(arrays[name])[0]) for name in self.later if name in arrays]
        self.later = tuple(name for name in self.later if name not in arrays)
        self.steps = (*columns, *self.steps)
        self.data |= {c.name: _allocate(c, self.capacity) for c in columns}

    def _write(self, fragments: list[Fragment]) -> np.ndarray:
        if self.later:
            self._add_later(fragments[0].steps)
        count = sum(f.length for f in fragments)
        ends = np.cumsum([f.length for f in fragments])
        # Every column is checked before the first one is written: a refused fragment leaves the ring as it was.
        states: Parts = {c.name: [[] for _ in c.leaves] for c in self.states}
        steps: Parts = {c.name: [[] for _ in c.leaves] for c in self.steps}
        for f in fragments:
            _collect(states, self.states, f.states, f, f.length + 1)
            _collect(steps, self.steps, f.steps, f, f.length)

        rows = (self.head + np.arange(count)) % self.capacity
        self._release(rows)
        last = rows[ends - 1]
        slots = self._take_slots(len(fragments))
        for column in self.states:
            for i, parts in enumerate(states[column.name]):
                self._put(self.data[column.name][i], [p[:-1] for p in parts])
                self.tails[column.name][i][slots] = [p[-1] for p in parts]
        for column in self.steps:
            for i, parts in enumerate(steps[column.name]):
                self._put(self.data[column.name][i], parts)
        self.link[rows] = (rows + 1) % self.capacity
        self.link[last] = -1 - slots

        self.head = int((self.head + count) % self.capacity)
        self.size = min(self.size + count, self.capacity)
        self.total += count
        self._join(fragments, rows, ends)
        return rows

    def _put(self, array: np.ndarray, parts: list[np.ndarray]) -> None:
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        first = min(len(values), self.capacity - self.head)
        array[self.head : self.head + first] = values[:first]
        if first < len(values):
            array[: len(values) - first] = values[first:]

    def _join(self, fragments: list[Fragment], rows: np.ndarray, ends: np.ndarray) -> None:
        """Link each fragment to the one of the same episode before it, and remember the episodes that go on."""
        for f, end in zip(fragments, ends.tolist(), strict=True):
            before = self._open.pop(f.key, None)
            if before is not None and before[2] == f.start and self.total - before[1] <= self.capacity:
                self._give_slots(-1 - int(self.link[before[0]]))
                self.link[before[0]] = rows[end - f.length]
            if not f.done:
                stamp = self.total - len(rows) + end - 1
                self._open[f.key] = (int(rows[end - 1]), stamp, f.start + f.length)
        if len(self._open) > PRUNE_OPEN_ABOVE:
            # episodes whose runner died never continue
            self._open = {k: v for k, v in self._open.items() if self.total - v[1] <= self.capacity}

    def _release(self, rows: np.ndarray) -> None:
        """Give back the tails of the rows about to be overwritten."""
        if self.size + len(rows) <= self.capacity:
            return
        old = self.link[rows[max(0, self.capacity - self.size) :]]
        self._give_slots(-1 - old[old < 0])

    def _give_slots(self, slots: np.ndarray | int) -> None:
        count = np.size(slots)
        self._free[self._num_free : self._num_free + count] = slots
        self._num_free += count

    def _take_slots(self, count: int) -> np.ndarray:
        while self._num_free < count:
            self._grow_tails()
        self._num_free -= count
        return self._free[self._num_free : self._num_free + count].copy()

    def _grow_tails(self) -> None:
        old = len(self._free)
        new = max(old * 2, 16)
        for arrays in self.tails.values():
            for i, array in enumerate(arrays):
                arrays[i] = np.concatenate([array, np.zeros((new - old, *array.shape[1:]), array.dtype)])
        self._free = np.concatenate([self._free, np.zeros(new - old, np.int32)])
        self._free[self._num_free : self._num_free + new - old] = np.arange(new - 1, old - 1, -1)
        self._num_free += new - old

    def at(self, column: str, rows: np.ndarray) -> list[np.ndarray]:
        """Return a column's leaves at `rows`, each `(*rows.shape, *leaf.shape)`."""
        return [array.take(rows, axis=0) for array in self.data[column]]

    def after(self, column: str, rows: np.ndarray) -> list[np.ndarray]:
        """Return a state column's leaves at the time after the step in `rows`."""
        link = self.link[rows]
        ended = link < 0
        nexts = np.where(ended, 0, link)
        out = [array.take(nexts, axis=0) for array in self.data[column]]
        if ended.any():
            slots = -1 - link[ended]
            for values, tails in zip(out, self.tails[column], strict=True):
                values[ended] = tails[slots]
        return out

    @property
    def nbytes(self) -> int:
        """Bytes held by all arrays."""
        groups = (*self.data.values(), *self.tails.values(), [self.link, self._free])
        return sum(array.nbytes for group in groups for array in group)

    def get_state(self) -> dict[str, Any]:
        """Return the arrays (views, the filled part only) and the JSON-able bookkeeping."""
        arrays: dict[str, np.ndarray] = {"link": self.link[: self.size], "free": self._free[: self._num_free]}
        for column in (*self.states, *self.steps):
            for leaf, array in zip(column.leaves, self.data[column.name], strict=True):
                arrays[f"column.{leaf.label(column.name)}"] = array[: self.size]
        for column in self.states:
            for leaf, array in zip(column.leaves, self.tails[column.name], strict=True):
                arrays[f"tail.{leaf.label(column.name)}"] = array
        counters = {
            "capacity": self.capacity,
            "size": self.size,
            "head": self.head,
            "total": self.total,
            "open": {k: list(v) for k, v in self._open.items()},
        }
        return {"arrays": arrays, "counters": counters}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Replace all contents by a saved state.

        Raises:
            ValueError: the state is of a ring with another capacity or other columns.
        """
        arrays, counters = state["arrays"], state["counters"]
        if self.later:
            self._add_later(
                {name: arrays[f"column.{name}"] for name in self.later if f"column.{name}" in arrays}
            )
        mine = set(self.get_state()["arrays"])
        if counters["capacity"] != self.capacity or set(arrays) != mine:
            raise ValueError(
                f"the saved replay buffer does not fit: got capacity {counters['capacity']} and columns "
                f"{sorted(arrays)}, expected capacity {self.capacity} and columns {sorted(mine)}"
            )
        size = self.size = int(counters["size"])
        self.head, self.total = int(counters["head"]), int(counters["total"])
        self.link[:size] = arrays["link"]
        for column in (*self.states, *self.steps):
            for i, leaf in enumerate(column.leaves):
                self.data[column.name][i][:size] = arrays[f"column.{leaf.label(column.name)}"]
        slots = len(self._free)
        for column in self.states:
            for i, leaf in enumerate(column.leaves):
                self.tails[column.name][i] = np.array(arrays[f"tail.{leaf.label(column.name)}"])
                slots = len(self.tails[column.name][i])
        self._free = np.zeros(slots, np.int32)
        self._num_free = len(arrays["free"])
        self._free[: self._num_free] = arrays["free"]
        self._open = {k: (int(v[0]), int(v[1]), int(v[2])) for k, v in counters["open"].items()}


def _allocate(column: Column, rows: int) -> list[np.ndarray]:
    try:
        return [np.zeros((rows, *leaf.shape), leaf.dtype) for leaf in column.leaves]
    except (MemoryError, ValueError) as error:  # more than the machine has, more than an index counts
        size = rows * sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in column.leaves)
        raise MemoryError(
            f"replay of {rows:,} steps: {column.name} alone takes {size / 1e9:,.1f} GB, which this machine does not "
            "have; lower capacity"
        ) from error


def _last_steps(fragment: Fragment, count: int) -> Fragment:
    """Return the last `count` steps of a fragment (all of it when it is not longer)."""
    cut = fragment.length - count
    if cut <= 0:
        return fragment

    def tail(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: tail(v) for k, v in value.items()}
        return tuple(map(tail, value)) if isinstance(value, tuple) else value[cut:]

    return Fragment(
        fragment.key, fragment.start + cut, count, tail(fragment.states), tail(fragment.steps), fragment.done
    )


def _collect(
    into: Parts,
    columns: Sequence[Column],
    values: Mapping[str, Any],
    fragment: Fragment,
    length: int,
) -> None:
    where = f"episode {fragment.key}, steps {fragment.start}-{fragment.start + fragment.length - 1}"
    for column in columns:
        if column.name not in values:
            raise ValueError(f"{where}: column {column.name!r} is missing, got {sorted(values)}")
        for i, leaf in enumerate(column.leaves):
            rows = as_rows(leaf, column.name, values[column.name], length, where)
            bad = first_bad_row(rows)
            if bad is not None:
                raise EnvError(
                    f"episode {fragment.key}, step {fragment.start + bad}: {leaf.label(column.name)} is "
                    f"{rows[bad].tolist()}, expected finite numbers; the environment (or a callback or "
                    f"connector that edits episodes) made it"
                )
            into[column.name][i].append(rows)
