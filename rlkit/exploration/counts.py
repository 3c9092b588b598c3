"""How often each state, and each action in it, was visited: exact for discrete observations, by cells for others."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.roster import split_mask


class StateCounter:
    """Visit counts by cell of the observation space.

    | observation | cell |
    |---|---|
    | Discrete, MultiDiscrete | the value itself |
    | bounded Box with at most `MAX_GRID` entries | a grid of `bins` per dimension |
    | any other Box | SimHash: the signs of `bits` fixed random projections (Tang et al., 2017, arXiv 1611.04717) |

    A mask of legal actions beside an observation is no part of its cell.

    Args:
        action_space: of the same agent; None: observations have no mask.
        low, high: bounds of the grid, for a Box that is unbounded or wider than what is visited.
        seed: of the projections; the same in every runner.
    """

    MAX_GRID = 8

    def __init__(
        self,
        space: gym.Space,
        bins: int = 20,
        bits: int = 32,
        low: Any = None,
        high: Any = None,
        seed: int = 0,
        action_space: gym.Space | None = None,
    ):
        space, self._key, _ = split_mask(space, action_space)
        self.space, self.bins = space, bins
        self.table: dict[bytes, np.ndarray] = {}
        self._grid: tuple[np.ndarray, np.ndarray] | None = None
        self._planes: np.ndarray | None = None
        if isinstance(space, gym.spaces.Box):
            bottom = np.asarray(space.low if low is None else low, np.float64).reshape(-1)
            top = np.asarray(space.high if high is None else high, np.float64).reshape(-1)
            size = int(np.prod(space.shape))
            if bottom.size not in (1, size) or top.size not in (1, size):
                raise ValueError(f"low and high need one number or {size}, got {bottom.size} and {top.size}")
            bottom, top = np.broadcast_to(bottom, size), np.broadcast_to(top, size)
            bounded = bool((np.abs(bottom) < 1e18).all() and (np.abs(top) < 1e18).all())
            if bounded and (size <= self.MAX_GRID or low is not None):
                if (bottom > top).any():
                    raise ValueError(f"low must not be above high, got {bottom.tolist()} and {top.tolist()}")
                width = top - bottom  # 0: a constant, in one cell
                self._grid = (bottom, np.divide(bins, width, out=np.zeros(size), where=width > 0))
            else:
                self._planes = np.random.default_rng(seed).normal(size=(size, bits))
        elif not isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
            raise ValueError(f"cannot count observations of {space}; expected Box, Discrete or MultiDiscrete")

    def __len__(self) -> int:
        return len(self.table)

    def cells(self, observations: Any, rows: int | None = None) -> list[bytes]:
        """Return the cell of each observation: (N, …) -> N keys.

        A Discrete observation may come as the one-hot vector that RLlib's modules get.
        """
        values = np.asarray(observations if self._key is None else observations[self._key])
        values = values.reshape(len(values) if rows is None else rows, -1)
        if self._grid is not None:
            bottom, scale = self._grid
            cells = np.clip((values - bottom) * scale, 0, self.bins - 1).astype(np.int32)
        elif self._planes is not None:
            cells = np.packbits(values @ self._planes > 0, axis=1)
        else:
            cells = values.astype(np.int32)
        return [row.tobytes() for row in np.ascontiguousarray(cells)]

    def counts_of(self, cells: list[bytes], actions: int = 1) -> np.ndarray:
        """Return how often each action was taken in each cell: (N, actions) float64."""
        none = np.zeros(actions)
        return np.array([self.table.get(cell, none) for cell in cells]).reshape(len(cells), actions)

    def add(self, cells: list[bytes], actions: np.ndarray | None = None, size: int = 1) -> None:
        """Count one visit of each cell (and action, of `size`)."""
        for i, cell in enumerate(cells):
            counts = self.table.get(cell)
            if counts is None:
                counts = self.table[cell] = np.zeros(size)
            counts[0 if actions is None else actions[i]] += 1

    def visit(self, cells: list[bytes]) -> np.ndarray:
        """Count one visit of each cell, in order; return (N,) the count of each one after its visit."""
        out = np.empty(len(cells))
        for i, cell in enumerate(cells):
            counts = self.table.get(cell)
            if counts is None:
                counts = self.table[cell] = np.zeros(1)
            counts[0] += 1
            out[i] = counts[0]
        return out

    def get_state(self) -> dict[str, Any]:
        """Cells and counts as two arrays."""
        keys = list(self.table)
        width = len(keys[0]) if keys else 0
        return {
            "cells": np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), width).copy(),
            "counts": np.array([self.table[k] for k in keys]),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.table = {
            cell.tobytes(): counts.copy()
            for cell, counts in zip(state["cells"], state["counts"], strict=True)
        }
