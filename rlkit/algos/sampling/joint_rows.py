"""Joint fragments written straight into columns: what `rlkit.replay.episodes.joint_fragments` makes of episodes.

A `TeamLayout` says who plays and how values are laid out; `JointRows` is the memory of one sample: a row per
environment and step, with one row more for the last observation of each fragment. Fragments are views of it.

Legend: E environments, N agents, T steps, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.replay.buffer import ACTIONS, OBS, REWARDS, TERMINATEDS, TRUNCATEDS
from rlkit.replay.columns import Column
from rlkit.replay.episodes import ACTED, PRESENT, joint_columns
from rlkit.replay.ring import Fragment
from rlkit.roster import module_space

Leaves = list[np.ndarray]  # one array per leaf of a column


class TeamLayout:
    """The agents of a fixed team, sorted by id, and the leaves of their observations and actions.

    Args:
        name: what messages call the environment.
        observation_spaces, action_spaces: of each agent.

    Raises:
        ValueError: a space without a fixed shape.
    """

    def __init__(
        self, name: str, observation_spaces: Mapping[str, gym.Space], action_spaces: Mapping[str, gym.Space]
    ):
        self.name = name
        self.agents = sorted(observation_spaces)
        self.index = {agent: i for i, agent in enumerate(self.agents)}
        self.members = frozenset(self.agents)
        self.action_spaces = {agent: action_spaces[agent] for agent in self.agents}
        self.observation_spaces = {agent: observation_spaces[agent] for agent in self.agents}
        acting = {agent: module_space(space) for agent, space in self.action_spaces.items()}  # as modules act
        states, steps = joint_columns(self.agents, self.observation_spaces, acting)
        self.obs, self.actions = states[OBS], steps[ACTIONS]
        # where each agent's leaves are
        self.leaves_of = {
            agent: [i for i, leaf in enumerate(self.obs.leaves) if leaf.path[0] == agent]
            for agent in self.agents
        }
        self.columns = {agent: Column.of(OBS, space) for agent, space in self.observation_spaces.items()}

    def observation(self, agent: str, leaves: Sequence[Any]) -> Any:
        """Return the agent's part of a value per leaf, nested like its space."""
        return self.columns[agent].nest([leaves[i] for i in self.leaves_of[agent]])

    def empty(self, rows: int) -> Leaves:
        """Return uninitialised observations, (rows, ...) per leaf."""
        return [np.empty((rows, *leaf.shape), leaf.dtype) for leaf in self.obs.leaves]


class JointRows:
    """The steps of E environments in one sample.

    Every environment has a cursor: the row of the observation it is in. A step fills that row and moves the
    cursor on; `cut` ends a fragment at the cursor and begins the next one in the row after it.
    """

    def __init__(self, roster: TeamLayout, num_envs: int, steps: int):
        self.roster = roster
        count, rows = len(roster.agents), 2 * steps + 1  # at worst every step ends an episode
        self.every = np.arange(num_envs)
        self.cursor = np.zeros(num_envs, np.int64)
        self.begin = np.zeros(num_envs, np.int64)
        # pages that are never written to cost no memory
        self.obs = [np.empty((num_envs, rows, *leaf.shape), leaf.dtype) for leaf in roster.obs.leaves]
        self.actions = [np.empty((num_envs, rows, *leaf.shape), leaf.dtype) for leaf in roster.actions.leaves]
        self.rewards = np.empty((num_envs, rows, count), np.float64)
        self.terminateds = np.empty((num_envs, rows, count), bool)
        self.truncateds = np.empty((num_envs, rows, count), bool)
        self.steps = np.zeros((num_envs, rows), bool)  # rows that are a step, not a last observation
        self.outputs: dict[str, Leaves] = {}  # what the modules gave beside actions, per agent

    def observe(self, leaves: Leaves, envs: np.ndarray | None = None) -> None:
        """Write observations (E, ...) at the cursors, of all environments or of `envs` alone."""
        if envs is None:
            for array, values in zip(self.obs, leaves, strict=True):
                array[self.every, self.cursor] = values
            return
        for array, values in zip(self.obs, leaves, strict=True):
            array[envs, self.cursor[envs]] = values[envs]

    def step(
        self,
        actions: Leaves,
        rewards: np.ndarray,
        terminateds: np.ndarray,
        truncateds: np.ndarray,
        outputs: Mapping[str, Leaves] | None = None,
    ) -> None:
        """Complete the row at every cursor: actions (E, ...) per leaf, the rest (E, N); move on.

        Args:
            outputs: (E, ...) per agent by name, see `Acting.outputs`.
        """
        at = self.every, self.cursor
        for name, leaves in (outputs or {}).items():
            if name not in self.outputs:
                shape = self.rewards.shape[:2]
                self.outputs[name] = [  # without rows for an agent whose module gives none
                    np.zeros((*shape, *leaf.shape[1:]) if len(leaf) else (shape[0], 0), leaf.dtype)
                    for leaf in leaves
                ]
            for array, values in zip(self.outputs[name], leaves, strict=True):
                if len(values):
                    array[at] = values
        for array, values in zip(self.actions, actions, strict=True):
            array[at] = values
        self.rewards[at] = rewards
        self.terminateds[at] = terminateds
        self.truncateds[at] = truncateds
        self.steps[at] = True
        self.cursor = self.cursor + 1

    def fragment(self, env: int, key: str, start: int, *, done: bool) -> Fragment:
        """Return the steps of an environment since its last `cut`, as views."""
        first, last = int(self.begin[env]), int(self.cursor[env])
        shape = (last - first, len(self.roster.agents))
        return Fragment(
            key,
            start,
            last - first,
            {
                OBS: self.roster.obs.nest([array[env, first : last + 1] for array in self.obs]),
                PRESENT: np.ones((shape[0] + 1, shape[1]), bool),
            },
            {
                ACTIONS: self.roster.actions.nest([array[env, first:last] for array in self.actions]),
                ACTED: np.ones(shape, bool),
                REWARDS: self.rewards[env, first:last].astype(np.float32),
                TERMINATEDS: self.terminateds[env, first:last],
                TRUNCATEDS: self.truncateds[env, first:last],
            },
            done,
        )

    def cut(self, env: int) -> None:
        """Begin a new fragment behind the cursor; its first observation is still to be written."""
        self.cursor[env] += 1
        self.begin[env] = self.cursor[env]
