"""Postprocessors that change or add to the rewards the learner sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlkit.callbacks.postprocess import TrajectoryPostprocessor
from rlkit.callbacks.trajectory import Aligned, Trajectory


class RewardScale(TrajectoryPostprocessor):
    """reward · `scale` + `offset`, then clipped to [-`clip`, `clip`] if `clip` is given."""

    def __init__(
        self,
        scale: float = 1.0,
        offset: float = 0.0,
        clip: float | None = None,
        agents: Sequence[str] | None = None,
    ):
        super().__init__(agents=agents)
        if not (math.isfinite(scale) and math.isfinite(offset)):
            raise ValueError(f"scale and offset must be finite, got {scale} and {offset}")
        if clip is not None and not clip > 0:
            raise ValueError(f"clip must be positive, got {clip}")
        self.scale, self.offset, self.clip = scale, offset, clip

    def postprocess_trajectory(self, trajectory: Trajectory, others: Mapping[Any, Aligned]) -> None:
        rewards = trajectory.rewards * self.scale + self.offset
        trajectory.rewards = rewards if self.clip is None else np.clip(rewards, -self.clip, self.clip)


class RewardShaping(TrajectoryPostprocessor):
    """Potential-based shaping, r + γΦ(s') - Φ(s): the optimal policies stay the same (Ng et al., ICML 1999).

    Φ of a terminal state is 0; a truncated one keeps its potential. Give a function, or override
    `potential`, or, in a recipe, `weights` for Φ(s) = weights · s.

    Args:
        potential: observations (N, …) -> (N,) float. Has to be importable to reach remote runners.
        weights: one number per entry of a flat observation.
        gamma: default the algorithm's. Another value gives up the guarantee.
    """

    def __init__(
        self,
        potential: Callable[[Any], np.ndarray] | None = None,
        weights: Sequence[float] | None = None,
        gamma: float | None = None,
        agents: Sequence[str] | None = None,
    ):
        super().__init__(agents=agents)
        own = type(self).potential is not RewardShaping.potential
        if (potential is not None) + (weights is not None) + own != 1:
            raise ValueError("give exactly one of potential and weights, or override RewardShaping.potential")
        if gamma is not None and not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must be between 0 and 1, got {gamma}")
        self._function = potential
        self.weights = None if weights is None else np.asarray(weights, np.float64)
        self.gamma = gamma

    def potential(self, observations: Any) -> np.ndarray:
        """Return Φ of each observation: (N, …) -> (N,)."""
        if self._function is not None:
            return np.asarray(self._function(observations))
        flat = np.asarray(observations, np.float64).reshape(len(observations), -1)
        if self.weights is None or self.weights.shape != flat.shape[1:]:
            size = 0 if self.weights is None else len(self.weights)
            raise ValueError(f"weights has {size} entries, the observation {flat.shape[1]}")
        values: np.ndarray = flat @ self.weights
        return values

    def postprocess_trajectory(self, trajectory: Trajectory, others: Mapping[Any, Aligned]) -> None:
        phi = np.array(self.potential(trajectory.peek_observations()), dtype=np.float64)
        if phi.shape != (len(trajectory) + 1,):
            raise ValueError(f"potential returned shape {phi.shape}, expected {(len(trajectory) + 1,)}")
        if trajectory.terminated:
            phi[-1] = 0.0
        gamma = trajectory.gamma if self.gamma is None else self.gamma
        trajectory.rewards = trajectory.rewards + gamma * phi[1:] - phi[:-1]


class MonteCarloReturns(TrajectoryPostprocessor):
    """Adds the discounted sum of the rewards that follow each step as a column, from whole episodes.

    Nothing is added beyond a truncated episode's last reward.

    Args:
        column: name of the column in the train batch.
        gamma: default the algorithm's.
    """

    def __init__(
        self, column: str = "returns", gamma: float | None = None, agents: Sequence[str] | None = None
    ):
        super().__init__(scope="episode", agents=agents)
        if gamma is not None and not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must be between 0 and 1, got {gamma}")
        self.column, self.gamma = column, gamma

    def postprocess_trajectory(self, trajectory: Trajectory, others: Mapping[Any, Aligned]) -> None:
        gamma = trajectory.gamma if self.gamma is None else self.gamma
        trajectory.columns[self.column] = discounted_returns(trajectory.peek_rewards(), gamma).astype(
            np.float32
        )


def discounted_returns(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """G_t = r_t + γ G_{t+1}, with G = 0 behind the end: (T,) -> (T,)."""
    returns = np.empty(len(rewards), np.float64)
    following = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        following = rewards[t] + gamma * following
        returns[t] = following
    return returns
