"""The few statistics of the reports: interquartile mean, bootstrap intervals, probability of improvement.

Definitions are rliable's (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice",
arXiv 2108.13264; google-research/rliable, rliable/metrics.py), for one task and one score per seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MIN_SEEDS = 3  # below this an interval over seeds says nothing
RESAMPLES = 10_000


def mean(scores: Array) -> Array:
    """Mean over the last axis."""
    return np.mean(scores, axis=-1)


def iqm(scores: ArrayLike) -> Array:
    """Interquartile mean over the last axis: the lowest and highest quarter (rounded down) are left out.

    The same numbers as `scipy.stats.trim_mean(scores, 0.25, axis=-1)`, which rliable uses.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    count = ordered.shape[-1]
    cut = int(0.25 * count)
    return np.mean(ordered[..., cut : count - cut], axis=-1)


def interval(
    scores: ArrayLike,
    statistic: Callable[[Array], Array] = mean,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of one-dimensional scores; same seed, same numbers."""
    values = np.asarray(scores, dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = values[rng.integers(len(values), size=(resamples, len(values)))]
    low, high = np.quantile(statistic(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def band(curves: Array, level: float = 0.95, resamples: int = 1_000, seed: int = 0) -> tuple[Array, Array]:
    """Pointwise bootstrap interval of the mean of curves (seeds, points), resampling whole seeds."""
    weights = _draws(np.random.default_rng(seed), resamples, len(curves))
    low, high = np.quantile(weights @ curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """P(X > Y) over all pairs of seeds, a tie counting half: rliable's Mann-Whitney U divided by n·m."""
    return float(np.mean(_above(x, y)))


def improvement_interval(
    x: ArrayLike, y: ArrayLike, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the probability of improvement, resampling the seeds of both sides."""
    rng = np.random.default_rng(seed)
    above = _above(x, y)
    rows, columns = (_draws(rng, resamples, size) for size in above.shape)
    values = np.einsum("rn,nm,rm->r", rows, above, columns, optimize=True)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _above(x: ArrayLike, y: ArrayLike) -> Array:
    a, b = np.asarray(x, dtype=np.float64)[:, None], np.asarray(y, dtype=np.float64)[None, :]
    return (a > b) + 0.5 * (a == b)


def _draws(rng: np.random.Generator, resamples: int, size: int) -> Array:
    """The share of each of `size` items in each resample, (resamples, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples) / size
