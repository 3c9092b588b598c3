"""Statistics of runs against the numbers that rliable 1.2.0 prints for the same scores.

rliable itself cannot be installed beside pandas 3 (its requirement arch fails on import), so its answers stand here.
Its resamples come out of numpy's old generator, whose numbers never change, so the tests draw the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlkit.runs import statistics
from rlkit.runs.statistics import (
    band,
    first_reached,
    improvement_interval,
    interval,
    iqm,
    mean,
    optimality_gap,
    probability_of_improvement,
    profile,
    stratified_interval,
)

DRAWS = 500
# (runs, tasks)
X = np.array(
    [
        [0.609, 0.69, 0.518],
        [0.333, 0.464, 0.303],
        [0.618, 1.002, 0.452],
        [0.414, 0.747, 0.707],
        [0.632, 0.321, 0.591],
    ]
)
Y = np.array([[0.609, -0.003, 0.263], [-0.17, 0.013, -0.153], [0.329, 0.02, 0.481], [0.447, 0.344, -0.355]])


def test_point_estimates_equal_rliable() -> None:
    assert iqm(X.ravel()) == pytest.approx(0.5542222222222222, abs=1e-6)
    assert np.mean(X) == pytest.approx(0.5600666666666666, abs=1e-6)
    assert optimality_gap(X.ravel()) == pytest.approx(0.4400666666666667, abs=1e-6)
    chance = np.mean([probability_of_improvement(x, y) for x, y in zip(X.T, Y.T, strict=True)])
    assert chance == pytest.approx(0.875, abs=1e-6)
    shares = profile(X.ravel(), np.array([0, 0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(shares, [1.0, 1.0, 0.6, 1 / 15, 1 / 15], atol=1e-6)


class Drawn:
    """Stands for numpy's generator, with the resamples that rliable drew: (draws, runs), one array after the other."""

    def __init__(self, *indices: np.ndarray):
        self.indices = iter(indices)

    def integers(self, high: int, size: tuple[int, int]) -> np.ndarray:
        drawn = next(self.indices)
        assert (drawn.shape, drawn.max()) == (size, high - 1)
        return drawn

    def multinomial(self, n: int, shares: np.ndarray, size: int) -> np.ndarray:
        drawn = self.integers(n, (size, n))
        return (drawn[..., None] == np.arange(n)).sum(axis=1)


def rliable_draws(*scores: np.ndarray) -> list[np.ndarray]:
    """Indices (DRAWS, runs, tasks) of each array: rliable 1.2.0 calls `np.random.choice` in this order, seed 7."""
    state = np.random.RandomState(7)
    found = [[state.choice(len(s), s.shape, replace=True) for s in scores] for _ in range(DRAWS)]
    return [np.array(each) for each in zip(*found, strict=True)]


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        (iqm, (0.44892499999999996, 0.6461694444444442)),
        (mean, (0.47663, 0.6529033333333334)),
        (optimality_gap, (0.3474966666666667, 0.52337)),
    ],
)
def test_an_interval_of_the_same_resamples_is_rliable_s(
    statistic: Callable[..., Any], expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`get_interval_estimates({"x": X}, …, reps=500)` after `np.random.seed(7)`."""
    (drawn,) = rliable_draws(X)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Drawn(*np.moveaxis(drawn, 2, 0)))
    assert stratified_interval(list(X.T), statistic, resamples=DRAWS) == pytest.approx(expected, abs=1e-6)


def test_the_interval_of_improvement_of_the_same_resamples_is_rliable_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`get_interval_estimates({"xy": (X, Y)}, probability_of_improvement, reps=500)` after `np.random.seed(7)`."""
    x, y = rliable_draws(X, Y)
    drawn = [indices[..., task] for task in range(X.shape[1]) for indices in (x, y)]
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Drawn(*drawn))
    found = improvement_interval(list(zip(X.T, Y.T, strict=True)), resamples=DRAWS)
    assert found == pytest.approx((0.7333333333333333, 0.9833333333333334), abs=1e-6)


def test_draws_of_its_own_give_rliable_s_interval_up_to_chance() -> None:
    """20,000 resamples of ours beside 50,000 of rliable's."""
    low, high = stratified_interval(list(X.T), iqm, resamples=20_000)
    assert (low, high) == pytest.approx((0.44744, 0.64156), abs=0.006)


def test_resamples_are_drawn_a_part_at_a_time_and_give_the_same_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, sizes = np.random.default_rng(0).normal(size=300), []
    whole = interval(values, resamples=200)
    monkeypatch.setattr(statistics, "AT_ONCE", 1000)

    def watched(drawn: np.ndarray) -> np.ndarray:
        sizes.append(drawn.size)
        return mean(drawn)

    assert interval(values, watched, resamples=200) == whole
    assert (max(sizes), sum(sizes)) == (900, 200 * 300)
    monkeypatch.setattr(statistics, "AT_ONCE", 100)  # less than one resample
    assert interval(values, resamples=200) == whole


def test_strata_are_drawn_by_themselves() -> None:
    """Two environments far apart: a resample never has the seeds of one alone, so the mean cannot move far."""
    low, high = stratified_interval([[0.0, 0.1], [10.0, 10.1]], lambda scores: np.mean(scores, axis=-1))
    assert 5.0 <= low < high <= 5.1
    low, high = improvement_interval([([1, 2, 3], [4, 5, 6]), ([4, 5, 6], [1, 2, 3])])
    assert (low, high) == (0.5, 0.5)


def test_the_band_of_iqm_leaves_out_what_one_seed_does() -> None:
    curves = np.ones((9, 120))
    curves[0] = 100.0
    low, high = band([curves])
    assert low.shape == high.shape == (120,)
    np.testing.assert_allclose(low, 1.0)
    assert np.all(high < 100 / 3)


def test_the_first_reaching_of_a_value() -> None:
    x, y = np.array([10.0, 20, 30]), np.array([1.0, 5, 2])
    assert first_reached(x, y, 5) == 20
    assert first_reached(x, y, 6) is None
