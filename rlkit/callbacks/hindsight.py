"""Hindsight experience replay (Andrychowicz et al., 2017, arXiv 1707.01495) for goal-conditioned environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit import seeds
from rlkit.callbacks.postprocess import TrajectoryPostprocessor
from rlkit.callbacks.trajectory import Aligned, Trajectory

KEYS = ("observation", "achieved_goal", "desired_goal")


class HindsightRelabel(TrajectoryPostprocessor):
    """Adds, for every episode, copies whose goal is one that the episode did reach.

    Observations are Gymnasium's GoalEnv dicts: `observation`, `achieved_goal`, `desired_goal`. A copy ends where its
    goal was reached: all of its transitions share one goal, so that n-step returns over it stay correct. (The paper
    draws a goal per transition; with a chain of observations that would join two goals in one transition.)

    Args:
        copies: relabelled copies per episode.
        strategy: `future` draws the step whose outcome becomes the goal, `final` takes the last.
        reward: (achieved (T, G), desired (T, G)) -> (T,). Default: the environment's own `compute_reward`,
            or, with `tolerance`, 0 within that distance and -1 beyond.
        tolerance: distance at which a goal counts as reached, for the default sparse reward.
        terminate: end the copy as terminated at its goal.
        seed: of the draws; by default each runner has a stream of its own from the run's seed.
    """

    def __init__(
        self,
        copies: int = 4,
        strategy: str = "future",
        reward: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        tolerance: float | None = None,
        terminate: bool = False,
        seed: int | None = None,
    ):
        super().__init__(scope="episode")
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        if strategy not in ("future", "final"):
            raise ValueError(f"strategy must be 'future' or 'final', got {strategy!r}")
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance}")
        self.copies, self.strategy, self.reward = copies, strategy, reward
        self.tolerance, self.terminate = tolerance, terminate
        self.rng = None if seed is None else np.random.default_rng(seed)

    def on_algorithm_init(self, *, algorithm: Any, metrics_logger: Any = None, **kwargs: Any) -> None:
        """Relabelled episodes were not made by the current policy: only replay can use them."""
        if not hasattr(algorithm.config, "replay_buffer_config"):
            raise ValueError(
                f"{type(algorithm).__name__} learns on-policy; relabelled goals need a replay buffer"
            )

    def postprocess_trajectory(
        self, trajectory: Trajectory, others: Mapping[Any, Aligned]
    ) -> list[Trajectory]:
        layout = self._layout(trajectory.peek_observations())
        if self.rng is None:
            self.rng = seeds.of_runner(self.env_runner, "hindsight")
        made = []
        for _ in range(1 if self.strategy == "final" else self.copies):
            last = len(trajectory)
            if self.strategy == "future":
                last = int(self.rng.integers(1, len(trajectory) + 1))
            copy = trajectory.copy(last)
            achieved, desired = (layout(copy.observations, key) for key in ("achieved_goal", "desired_goal"))
            desired[:] = achieved[-1]
            copy.rewards = np.asarray(self._rewards(achieved[1:], desired[1:], copy), np.float64)
            copy.terminated, copy.truncated = self.terminate, not self.terminate
            made.append(copy)
        return made

    def _layout(self, observations: Any) -> Callable[[Any, str], np.ndarray]:
        """Return a function that gives the part of observations (T + 1, …) under a key, as a view to write to.

        RLlib's FlattenObservations puts vectors into the episodes: the parts in sorted order of their keys.
        """
        if isinstance(observations, dict) and all(key in observations for key in KEYS):
            return lambda values, key: values[key]
        space = self.env_runner.env.single_observation_space
        if not isinstance(space, gym.spaces.Dict) or any(key not in space.spaces for key in KEYS):
            raise ValueError(f"observations need the keys {', '.join(KEYS)}, got {space}")
        shapes = {key: tuple(space[key].shape or ()) for key in sorted(space.spaces)}
        ends = dict(zip(shapes, np.cumsum([int(np.prod(shape)) for shape in shapes.values()]), strict=True))
        if np.asarray(observations).shape[1:] != (max(ends.values()),):
            raise ValueError(
                f"observations have shape {np.asarray(observations).shape[1:]} in the episode, expected the "
                f"dict {space} or it flattened, ({max(ends.values())},)"
            )
        return lambda values, key: values[:, ends[key] - int(np.prod(shapes[key])) : ends[key]]

    def _rewards(self, achieved: np.ndarray, desired: np.ndarray, copy: Trajectory) -> np.ndarray:
        if self.reward is not None:
            return self.reward(achieved, desired)
        if self.tolerance is not None:
            distance = np.linalg.norm((achieved - desired).reshape(len(achieved), -1), axis=1)
            return np.where(distance <= self.tolerance, 0.0, -1.0)
        env = self.env_runner.env.unwrapped.envs[0].unwrapped
        if not hasattr(env, "compute_reward"):
            raise ValueError(f"{type(env).__name__} has no compute_reward; give `tolerance` or `reward`")
        rewards: np.ndarray = env.compute_reward(achieved, desired, np.array(copy.infos[1:], dtype=object))
        return rewards
