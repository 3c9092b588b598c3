"""The statistics of the reports: interquartile mean, bootstrap intervals, profiles, probability of improvement.

Definitions are rliable's (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice",
arXiv 2108.13264; google-research/rliable, rliable/metrics.py and library.py). A score is one number per seed. What
takes `tasks` takes an array of scores per environment, which need not have equally many seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MIN_SEEDS = 3  # below this an interval over seeds says nothing
RESAMPLES = 10_000
BAND_RESAMPLES = 1_000  # of a curve
AT_ONCE = 2_000_000  # numbers drawn at a time, 32 MB with their indices


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
    count = len(values)
    rows = max(1, AT_ONCE // count)
    found = [
        statistic(values[rng.integers(count, size=(min(rows, resamples - done), count))])
        for done in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def band(
    tasks: Sequence[Array], statistic: Callable[[Array], Array] = iqm, level: float = 0.95, seed: int = 0
) -> tuple[Array, Array]:
    """Pointwise bootstrap interval of a statistic of curves.

    Args:
        tasks: curves (seeds, points) per environment; whole seeds are drawn, in each environment by itself.
        statistic: over the last axis of (points, draws, seeds).

    Returns:
        The lower and the upper bound, (points,) each.
    """
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(curves), size=(BAND_RESAMPLES, len(curves))) for curves in tasks]
    bounds = []
    for start in range(0, tasks[0].shape[1], 50):  # 50 points at a time: a few MB
        parts = [c[:, start : start + 50].T[:, d] for c, d in zip(tasks, draws, strict=True)]
        found = statistic(np.concatenate(parts, axis=-1))
        bounds.append(np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=1))
    low, high = np.concatenate(bounds, axis=1)
    return low, high


def stratified_interval(
    tasks: Sequence[ArrayLike],
    statistic: Callable[[Array], Array],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of all scores; seeds are drawn in each environment by itself."""
    rng = np.random.default_rng(seed)
    values = [np.asarray(task, dtype=np.float64) for task in tasks]
    drawn = [v[rng.integers(len(v), size=(resamples, len(v)))] for v in values]
    low, high = np.quantile(statistic(np.concatenate(drawn, axis=1)), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Array:
    """How far scores stay below a target on average over the last axis; what is above it counts as the target."""
    return target - np.mean(np.minimum(np.asarray(scores, dtype=np.float64), target), axis=-1)


def profile(scores: ArrayLike, thresholds: Array) -> Array:
    """Performance profile: the share of scores above each threshold, (…, scores) to (…, thresholds)."""
    return np.mean(np.asarray(scores, dtype=np.float64)[..., None, :] > thresholds[:, None], axis=-1)


def first_reached(x: Array, y: Array, threshold: float) -> float | None:
    """Return the first x whose y is at least the threshold; None where there is none."""
    above = y >= threshold
    return float(x[np.argmax(above)]) if above.any() else None


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """P(X > Y) over all pairs of seeds, a tie counting half: rliable's Mann-Whitney U divided by n·m."""
    return float(np.mean(_above(x, y)))


def improvement_interval(
    tasks: Sequence[tuple[ArrayLike, ArrayLike]],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of the mean probability of improvement over (x, y) of each environment.

    The seeds of both sides are drawn again, in each environment by itself.
    """
    rng = np.random.default_rng(seed)
    values = np.zeros(resamples)
    for x, y in tasks:
        above = _above(x, y)
        rows, columns = (_draws(rng, resamples, size) for size in above.shape)
        values += np.einsum("rn,nm,rm->r", rows, above, columns, optimize=True) / len(tasks)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _above(x: ArrayLike, y: ArrayLike) -> Array:
    a, b = np.asarray(x, dtype=np.float64)[:, None], np.asarray(y, dtype=np.float64)[None, :]
    return (a > b) + 0.5 * (a == b)


def _draws(rng: np.random.Generator, resamples: int, size: int) -> Array:
    """The share of each of `size` items in each resample, (resamples, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples) / size
