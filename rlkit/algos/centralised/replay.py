"""What joint replay needs beside `rlkit.replay`: reward statistics, a check on turns, teams of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlkit.replay import Fragment
from rlkit.replay.buffer import ACTIONS, OBS, REWARDS, TERMINATEDS, TRUNCATEDS
from rlkit.replay.episodes import ACTED, PRESENT


class RewardStatistics:
    """Mean and variance of every agent's reward over all steps it acted in.

    Args:
        agents: N.
    """

    def __init__(self, agents: int):
        self.count = np.zeros(agents)
        self.mean = np.zeros(agents)
        self.squares = np.zeros(agents)

    def see(self, fragments: Iterable[Fragment]) -> None:
        """Add joint fragments (Chan et al. 1979)."""
        for fragment in fragments:
            acted = np.asarray(fragment.steps[ACTED])
            rewards = np.where(acted, fragment.steps[REWARDS], 0.0).astype(np.float64)
            rows = acted.sum(axis=0)
            mean = rewards.sum(axis=0) / np.maximum(rows, 1)
            squares = (np.where(acted, rewards - mean, 0.0) ** 2).sum(axis=0)
            total = np.maximum(self.count + rows, 1)
            shift = mean - self.mean
            self.squares += squares + shift**2 * self.count * rows / total
            self.mean += shift * rows / total
            self.count += rows

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviations, (N,); 1 where it is (nearly) 0."""
        deviation = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(deviation > 1e-6, deviation, 1.0)

    def standardized(self, rewards: np.ndarray, acted: np.ndarray) -> np.ndarray:
        """Return rewards of single steps (..., N) as (r - mean) / deviation; without the mean where nobody acted.

        Args:
            rewards: (..., N).
            acted: (..., N) bool: the agent acted; behind its end there is nothing to take a mean from.
        """
        return ((rewards - np.where(acted, self.mean, 0.0)) / self.deviation).astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        return {name: values.tolist() for name, values in vars(self).items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for name, values in state.items():
            setattr(self, name, np.asarray(values, np.float64))


class Turns:
    """Notices agents that take turns: what follows an action is then not in the next joint row.

    Args:
        agents: N.
    """

    def __init__(self, agents: Sequence[str]):
        self.agents = list(agents)
        self.acted = np.zeros(len(agents), np.int64)
        self.followed = np.zeros(len(agents), np.int64)

    def see(self, fragments: Sequence[Fragment]) -> None:
        """Count the steps in joint fragments.

        Raises:
            ValueError: an agent has acted 32 times or more and seen what followed in less than half of them.
        """
        for fragment in fragments:
            turns, ended = (np.asarray(fragment.steps[name]) for name in (ACTED, TERMINATEDS))
            self.acted += turns.sum(axis=0)
            self.followed += (turns & (fragment.states[PRESENT][1:] | ended)).sum(axis=0)
        for agent, steps, seen in zip(self.agents, self.acted.tolist(), self.followed.tolist(), strict=True):
            if steps >= 32 and seen < steps / 2:
                raise ValueError(
                    f"agent {agent!r} acted in {steps} steps and saw the next one in {seen} of them; MADDPG needs "
                    "agents that act together, not in turns (env_config: {api: parallel} where the environment has it)"
                )

    def get_state(self) -> dict[str, Any]:
        return {"acted": self.acted.tolist(), "followed": self.followed.tolist()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for name, counts in state.items():
            setattr(self, name, np.asarray(counts, np.int64))


def as_joint(part: Fragment, agent: str) -> Fragment:
    """The fragment of a single agent as a joint row of one."""
    flags = {name: np.asarray(part.steps[name])[:, None] for name in (REWARDS, TERMINATEDS, TRUNCATEDS)}
    ones = np.ones((part.length + 1, 1), bool)
    return Fragment(
        part.key,
        part.start,
        part.length,
        {OBS: {agent: part.states[OBS]}, PRESENT: ones},
        {ACTIONS: {agent: part.steps[ACTIONS]}, ACTED: ones[:-1], **flags},
        part.done,
    )
