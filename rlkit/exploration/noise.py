"""Noise for continuous actions, one row per environment, free of RLlib: plain numpy and its own generator."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


class GaussianProcess:
    """Independent N(0, `stddev`²) for every row, step and action dimension."""

    def __init__(self, stddev: float, rng: np.random.Generator):
        self.stddev, self.rng = stddev, rng

    def sample(self, keys: Sequence[Hashable], shape: tuple[int, ...]) -> np.ndarray:
        """Return (len(keys), *shape) float64."""
        return self.rng.normal(0.0, self.stddev, (len(keys), *shape))


class OrnsteinUhlenbeckProcess:
    """x ← x - θ·x + σ·N(0, 1), from x = 0 at the beginning of each episode.

    One state per key: a key is an episode (and agent), so a new episode begins at 0 by itself. An agent that pauses, or
    waits for its turn, goes on from its own state. In the long run x has mean 0, variance σ² / (1 - (1 - θ)²) and
    autocorrelation (1 - θ)^k at lag k.
    """

    KEPT = 1000  # states of keys that were not asked for in the last call; the oldest go first

    def __init__(self, theta: float, sigma: float, rng: np.random.Generator):
        self.theta, self.sigma, self.rng = theta, sigma, rng
        self._keys: list[Hashable] = []
        self._states = np.zeros((0,))
        self._kept: dict[Hashable, np.ndarray] = {}

    def sample(self, keys: Sequence[Hashable], shape: tuple[int, ...]) -> np.ndarray:
        """Advance the state of every key by one step; return (len(keys), *shape) float64."""
        keys = list(keys)
        if keys != self._keys or self._states.shape[1:] != shape:
            self._kept |= dict(zip(self._keys, self._states, strict=True))
            known = [self._kept.pop(key, None) for key in keys]
            rows = [np.zeros(shape) if row is None or row.shape != shape else row for row in known]
            self._states = np.array(rows).reshape(len(keys), *shape)
            self._keys = keys
            for key in list(self._kept)[: -self.KEPT]:
                del self._kept[key]
        self._states = (1.0 - self.theta) * self._states + self.sigma * self.rng.normal(
            size=self._states.shape
        )
        return self._states
