"""The centralised-training example: each agent's batch gets what the others saw and did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import tree
from gymnasium.spaces import utils

from rlkit.callbacks.postprocess import TrajectoryPostprocessor
from rlkit.callbacks.trajectory import Aligned, Trajectory
from rlkit.roster import module_space


class MergeAgentObservations(TrajectoryPostprocessor):
    """Adds `others_obs`, `others_next_obs`, `others_actions` and `others_present` to every agent's train batch.

    O and A are the summed sizes of the other agents' flattened observations and actions (the module's, see
    `rlkit.algos.sampling.actions`; Discrete as one-hot), in sorted order of the agents, whether they are present or
    not; absent ones are zeros. All are float32: `others_obs`
    and `others_next_obs` (T, O), `others_actions` (T, A), `others_present` (T, number of others).

    Args:
        actions: also add the actions.
        scope: `episode` where agents pause or take turns: a step that crosses the border of a fragment sees nobody
            who acted before it.
    """

    def __init__(self, actions: bool = True, agents: Sequence[str] | None = None, scope: str = "fragment"):
        super().__init__(scope=scope, agents=agents)
        self.actions = actions

    def postprocess_trajectory(self, trajectory: Trajectory, others: Mapping[Any, Aligned]) -> None:
        observation_spaces, action_spaces = self._spaces()
        names = sorted((a for a in observation_spaces if a != trajectory.agent), key=str)
        if not names:
            raise ValueError("the environment has one agent: there is nothing to merge")
        size = len(trajectory)
        observations, actions = [], []
        present = np.zeros((size, len(names)), np.float32)
        for i, name in enumerate(names):
            space, acting = observation_spaces[name], module_space(action_spaces[name])
            if name not in others:
                observations.append(np.zeros((size + 1, utils.flatdim(space)), np.float32))
                actions.append(np.zeros((size, utils.flatdim(acting)), np.float32))
                continue
            other = others[name]
            observations.append(flat_rows(space, other.observations, other.observed))
            actions.append(flat_rows(acting, other.actions, other.present))
            present[:, i] = other.present
        merged = np.concatenate(observations, axis=1)
        trajectory.columns["others_obs"] = merged[:-1]
        trajectory.columns["others_next_obs"] = merged[1:]
        trajectory.columns["others_present"] = present
        if self.actions:
            trajectory.columns["others_actions"] = np.concatenate(actions, axis=1)

    def _spaces(self) -> tuple[Mapping[Any, gym.Space], Mapping[Any, gym.Space]]:
        env = self.env_runner.env
        spaces = getattr(env, "single_observation_space", None), getattr(env, "single_action_space", None)
        if not all(isinstance(s, gym.spaces.Dict) for s in spaces):
            raise ValueError(
                "MergeAgentObservations needs a multi-agent environment with one space per agent"
            )
        return spaces[0].spaces, spaces[1].spaces  # type: ignore[union-attr]


def flat_rows(space: gym.Space, values: Any, present: np.ndarray) -> np.ndarray:
    """Flatten each row of `values` as `gymnasium.spaces.flatten` does; zeros where absent. -> (rows, size) float32.

    Rows that are flat already, as RLlib's FlattenObservations leaves them in episodes, stay as they are.
    """
    if isinstance(space, gym.spaces.Box):
        return np.asarray(values, np.float32).reshape(len(present), -1)
    out = np.zeros((len(present), utils.flatdim(space)), np.float32)
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.shape == out.shape:
        return values.astype(np.float32)
    rows = np.flatnonzero(present)
    if isinstance(space, gym.spaces.Discrete):
        out[rows, np.asarray(values)[rows] - space.start] = 1.0
        return out
    for row in rows:
        out[row] = utils.flatten(space, tree.map_structure(lambda v, r=row: v[r], values))
    return out
