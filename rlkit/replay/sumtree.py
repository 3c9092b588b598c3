"""A sum tree over row priorities, wide and shallow, every operation vectorised over a batch of rows.

Nodes have 16 children, and the levels stop at a top of at most 4,096 nodes that is searched as one sorted
array of running sums: a million rows need two gathers below it instead of the twenty of a binary tree. A
parent is always recomputed from its children, never adjusted by a difference: sums do not drift, and a tree
rebuilt from its leaves is bit for bit the tree that was saved.
"""

from __future__ import annotations

import numpy as np

FAN = 16
TOP = 4096


class SumTree:
    """Priorities of `capacity` rows. Rows that were never set weigh 0 and are never drawn."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        sizes = [-(-capacity // FAN)]
        while sizes[-1] > TOP:
            sizes.append(-(-sizes[-1] // FAN))
        # Level 0 holds the rows as nodes of FAN children, the last level is the top: one entry per node below it.
        self._sums = [np.zeros((n, FAN)) for n in sizes]
        self._mins = [np.full((n, FAN), np.inf) for n in sizes[1:]]
        self._top_sums = np.zeros(sizes[-1])
        self._top_mins = np.full(sizes[-1], np.inf)
        self._edges: np.ndarray | None = None

    def _running(self) -> np.ndarray:
        if self._edges is None:
            self._edges = self._top_sums.cumsum()
        return self._edges

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self._running()[-1])

    @property
    def minimum(self) -> float:
        """The smallest priority above 0 (inf when there is none)."""
        return float(self._top_mins.min())

    @property
    def nbytes(self) -> int:
        """Bytes held by the tree's arrays."""
        return sum(a.nbytes for a in (*self._sums, *self._mins, self._top_sums, self._top_mins))

    def set(self, rows: np.ndarray, values: np.ndarray | float) -> None:
        """Set the priorities of `rows` (int array of any shape); of a row given twice the last value stays."""
        nodes = np.asarray(rows).reshape(-1)
        self._sums[0].reshape(-1)[nodes] = np.asarray(values).reshape(-1) if np.ndim(values) else values
        sums_above = [*self._sums[1:], self._top_sums]
        mins_above = [*self._mins, self._top_mins]
        for level, children in enumerate(self._sums):
            nodes = nodes // FAN
            if len(nodes) > FAN:
                nodes = np.unique(nodes)
            below = children[nodes]
            least = np.where(below > 0, below, np.inf) if level == 0 else self._mins[level - 1][nodes]
            sums_above[level].reshape(-1)[nodes] = below.sum(axis=1)
            mins_above[level].reshape(-1)[nodes] = least.min(axis=1)
        self._edges = None

    def get(self, rows: np.ndarray) -> np.ndarray:
        """Return the priorities of `rows`."""
        return self._sums[0].reshape(-1)[rows]

    def find(self, mass: np.ndarray) -> np.ndarray:
        """Return, for each value of `mass` in [0, total), the row in whose share of the total it falls."""
        edges = self._running()
        # rounding must not push a draw past the last node, or past the last child of a node
        mass = np.minimum(mass, np.nextafter(edges[-1], 0.0))
        rows = np.searchsorted(edges, mass, side="right")
        mass = mass - np.where(rows > 0, edges[rows - 1], 0.0)
        lines = np.arange(len(mass))
        for level in reversed(self._sums):
            edges = level[rows].cumsum(axis=1)
            mass = np.minimum(mass, np.nextafter(edges[:, -1], 0.0))
            child = (edges <= mass[:, None]).sum(axis=1)
            mass = mass - np.where(child > 0, edges[lines, child - 1], 0.0)
            rows = rows * FAN + child
        return rows

    def leaves(self, size: int) -> np.ndarray:
        """Return the priorities of the first `size` rows (a view)."""
        return self._sums[0].reshape(-1)[:size]

    def load(self, leaves: np.ndarray) -> None:
        """Replace all priorities by those of a saved tree."""
        for array, empty in ((a, 0.0) for a in (*self._sums, self._top_sums)):
            array.fill(empty)
        for array in (*self._mins, self._top_mins):
            array.fill(np.inf)
        self._edges = None
        if len(leaves):
            self.set(np.arange(len(leaves)), leaves)
