"""Rows of fragments as sequences, for modules with a state.

Legend: T iterations and N environments of a fragment, S sequences of at most L rows.
"""

from __future__ import annotations

import numpy as np


def sequences(fresh: np.ndarray, goes_on: np.ndarray, length: int) -> np.ndarray:
    """Return which rows stand in which sequence: (S, L) int64 of row numbers t N + n, -1 where there is none.

    A sequence holds consecutive steps of one episode. It begins with the first step of the episode in this fragment, or
    where the one before is full, and is filled up at its end. Every step stands in one sequence; L is the longest.

    Args:
        fresh: (T, N) bool, rows that are no steps.
        goes_on: (T, N) bool, see `ArrayFragment.goes_on`.
        length: steps of a sequence at most.
    """
    assert fresh.shape == goes_on.shape, (fresh.shape, goes_on.shape)
    count, envs = fresh.shape
    step = ~fresh.T
    first = step.copy()
    first[:, 1:] &= ~goes_on.T[:, :-1]
    times = np.arange(count)
    place = times - np.maximum.accumulate(np.where(first, times, 0), axis=1)  # steps since the first one
    column = (place % length)[step]
    sequence = np.cumsum(column == 0) - 1
    rows = (times * envs + np.arange(envs)[:, None])[step]
    found = np.full((int(sequence[-1]) + 1 if len(rows) else 0, int(column.max(initial=0)) + 1), -1, np.int64)
    found[sequence, column] = rows
    return found
