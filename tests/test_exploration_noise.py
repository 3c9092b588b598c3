"""The noise processes, schedules and counters against their formulas; no RLlib."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from rlkit import exploration, registry
from rlkit.exploration.counts import StateCounter
from rlkit.exploration.epsilon_greedy import PerWorkerEpsilonGreedy
from rlkit.exploration.noise import GaussianProcess, OrnsteinUhlenbeckProcess
from rlkit.exploration.schedule import Schedule, anneal


def autocorrelation(x: np.ndarray, lag: int) -> float:
    """Of a zero-mean process, over the first axis."""
    return float((x[lag:] * x[:-lag]).mean() / (x**2).mean()) if lag else 1.0


def test_gaussian_noise_is_white_with_the_stated_deviation() -> None:
    process = GaussianProcess(0.3, np.random.default_rng(0))
    x = np.array([process.sample(range(50), (2,)) for _ in range(2000)])
    assert x.shape == (2000, 50, 2)
    assert x.mean() == pytest.approx(0.0, abs=0.003)
    assert x.std() == pytest.approx(0.3, rel=0.01)
    # kurtosis of a normal distribution is 3
    assert ((x / 0.3) ** 4).mean() == pytest.approx(3.0, abs=0.08)
    for lag in (1, 2, 10):
        assert autocorrelation(x, lag) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("theta", "sigma"), [(0.15, 0.2), (0.5, 1.0), (1.0, 0.3)])
def test_ornstein_uhlenbeck_has_its_variance_and_autocorrelation(theta: float, sigma: float) -> None:
    process = OrnsteinUhlenbeckProcess(theta, sigma, np.random.default_rng(1))
    x = np.array([process.sample(range(200), (1,)) for _ in range(3000)])[300:]
    assert x.mean() == pytest.approx(0.0, abs=0.02 * sigma / theta)
    assert x.var() == pytest.approx(sigma**2 / (1 - (1 - theta) ** 2), rel=0.03)
    for lag in (1, 2, 5, 10):
        assert autocorrelation(x, lag) == pytest.approx((1 - theta) ** lag, abs=0.02)


def test_ornstein_uhlenbeck_starts_each_episode_at_zero_and_keeps_the_others() -> None:
    process = OrnsteinUhlenbeckProcess(0.1, 0.0, np.random.default_rng(0))
    process.sample(["a", "b"], (1,))
    process._states[:] = [[4.0], [8.0]]
    np.testing.assert_allclose(process.sample(["b", "c"], (1,)), [[7.2], [0.0]])
    np.testing.assert_allclose(process.sample(["c", "b"], (1,)), [[0.0], [6.48]])
    variances = []
    process = OrnsteinUhlenbeckProcess(0.15, 0.2, np.random.default_rng(0))
    for _ in range(4):
        variances.append(process.sample(range(100_000), (1,)).var())
    expected = [0.04 * sum(0.85 ** (2 * i) for i in range(n)) for n in range(1, 5)]
    np.testing.assert_allclose(variances, expected, rtol=0.02)


def test_an_agent_that_waits_for_its_turn_goes_on_from_its_own_state() -> None:
    process = OrnsteinUhlenbeckProcess(0.5, 0.0, np.random.default_rng(0))
    process.sample(["a"], (1,))
    process._states[:] = 8.0
    assert process.sample(["b"], (1,)).item() == 0.0
    assert process.sample(["a"], (1,)).item() == 4.0
    for number in range(2000):
        process.sample([number], (1,))
    assert len(process._kept) <= process.KEPT


def test_schedules_are_linear_between_their_points() -> None:
    epsilon = anneal(1.0, 0.1, 100, warmup=50)
    assert [epsilon(t) for t in (0, 50, 100, 150, 10_000)] == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])
    assert epsilon.rllib() == [[0, 1.0], [50, 1.0], [150, 0.1]]
    assert anneal(1.0, 0.1, 0)(0) == 0.1
    assert Schedule(0.3)(5) == 0.3
    for wrong in ([], [[5, 1.0], [1, 0.5]], [[0, float("nan")]]):
        with pytest.raises(ValueError, match="schedule"):
            Schedule(wrong)


def test_epsilon_per_worker_is_that_of_ape_x() -> None:
    epsilon = [PerWorkerEpsilonGreedy().epsilon_of(i, 8) for i in range(1, 9)]
    np.testing.assert_allclose(epsilon, [0.4 ** (1 + 7 * i / 7) for i in range(8)])
    assert PerWorkerEpsilonGreedy().epsilon_of(1, 1) == pytest.approx(0.4)


def test_counters_tell_cells_apart() -> None:
    box = StateCounter(
        gym.spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 10.0]), dtype=np.float64), bins=10
    )
    cells = box.cells(np.array([[-1.0, 0.0], [-0.81, 0.9], [-0.79, 0.9], [1.0, 10.0], [5.0, 99.0]]))
    assert cells[0] == cells[1] != cells[2]
    assert cells[3] == cells[4]
    np.testing.assert_array_equal(box.visit(cells), [1, 2, 1, 1, 2])
    restored = StateCounter(box.space, bins=10)
    restored.set_state(box.get_state())
    np.testing.assert_array_equal(restored.counts_of(cells)[:, 0], [2, 2, 1, 2, 2])
    hashed = StateCounter(gym.spaces.Box(-np.inf, np.inf, (3,)), bits=16)
    far = hashed.cells(np.array([[1.0, 2.0, 3.0], [1.001, 2.0, 3.0], [-3.0, -2.0, 5.0]]))
    assert far[0] == far[1] != far[2]
    with pytest.raises(ValueError, match="low must not be above high"):
        StateCounter(gym.spaces.Box(-1, 1, (2,)), low=1.0, high=0.0)
    constant = StateCounter(gym.spaces.Box(np.array([0.0, 7.0]), np.array([1.0, 7.0]), dtype=np.float64))
    cells = constant.cells(np.array([[0.0, 7.0], [1.0, 7.0], [0.0, 7.0]]))
    assert cells[0] == cells[2] != cells[1]
    with pytest.raises(ValueError, match="cannot count observations"):
        StateCounter(gym.spaces.Text(3))


def test_registry_and_table_name_the_same_types() -> None:
    assert (
        set(exploration.TYPES)
        == set(registry.TABLES["explorations"])
        == set(exploration.__all__) & set(exploration.TYPES)
    )
    for name in exploration.TYPES:
        assert type(exploration.create({"type": name})).__name__ == name
        assert registry.resolve("explorations", name) is getattr(exploration, name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "Epsilongreedy"}, "unknown exploration type 'Epsilongreedy'; did you mean 'EpsilonGreedy'"),
        ({}, "unknown exploration type None"),
        ({"type": "EpsilonGreedy", "initial_epsilom": 1.0}, "did you mean 'initial_epsilon'"),
        ({"type": "EpsilonGreedy", "final_epsilon": 1.5}, "final_epsilon must be a probability"),
        ({"type": "EpsilonGreedy", "epsilon_schedule": [[0, 1.0], [10, 2.0]]}, "probability"),
        ({"type": "GaussianNoise", "stddev": -0.1}, "stddev must be a number of at least 0"),
        ({"type": "OrnsteinUhlenbeckNoise", "ou_theta": 2.5}, "ou_theta must be below 2"),
        ({"type": "SoftQ", "temperature": 0}, "temperature must be above 0"),
        ({"type": "CountBased", "eta": -1.0}, "cannot be negative"),
        ({"type": "RND", "hiddens": [0]}, "hiddens must be a number of at least 1"),
        ({"type": "Curiosity", "beta": 2}, "beta must be a probability"),
        ({"type": "ParameterNoise", "initial_stddev": True}, "initial_stddev must be a number"),
    ],
)
def test_wrong_options_are_named(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exploration.create(given)


def test_options_can_be_checked_without_ray_or_torch() -> None:
    code = (
        "import sys; from rlkit import exploration\n"
        "for name in exploration.TYPES: exploration.create({'type': name})\n"
        "assert not {'ray', 'torch', 'gymnasium'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
