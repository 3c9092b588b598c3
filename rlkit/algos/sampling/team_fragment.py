"""The sample of a team as arrays, for on-policy learners: every agent of every environment, step by step.

The rows of an environment are its steps, and after the last step of each episode one row with the last observation,
which nobody acts on. So row t + 1 always holds what followed step t, and is what a truncated step bootstraps from.

Legend: E environments, N agents, T rows, ... the shape of one item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns

from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.algos.sampling.joint_rows import JointRows
from rlkit.replay.buffer import ACTIONS, OBS, REWARDS, TERMINATEDS, TRUNCATEDS
from rlkit.replay.columns import Column
from rlkit.replay.episodes import ACTED, EXTRAS, PRESENT, joint_fragments
from rlkit.replay.ring import Fragment


@dataclass
class TeamFragment:
    """T rows of N agents in E environments.

    Attributes:
        module_of: agent -> the module that plays it, in the order of the last axis of rewards and flags.
        obs: agent -> nested (T + 1, E, ...); zeros where the agent is absent.
        actions: agent -> (T, E, ...), the module's; what stands there where it did not act means nothing.
        action_logp, action_dist_inputs: agent -> (T, E) and (T, E, D), of agents whose module has a distribution.
        rewards: (T, E, N) float64, 0 where the agent did not act.
        terminated, truncated: (T, E, N) bool, of steps that were the agent's last.
        acted: (T, E, N) bool, rows that are a step of the agent: all others are left out of its losses.
        present: (T + 1, E, N) bool, where the agent has an observation.
        last: (T + 1, E) bool, the row behind the last step of an episode or of the sample.
        state: (T + 1, E, S) float32, the environment's global state, where it was asked for.
    """

    module_of: Mapping[str, str]
    obs: Mapping[str, Any]
    actions: Mapping[str, np.ndarray]
    action_logp: Mapping[str, np.ndarray]
    action_dist_inputs: Mapping[str, np.ndarray]
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    acted: np.ndarray
    present: np.ndarray
    last: np.ndarray
    state: np.ndarray | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that play somebody."""
        return tuple(dict.fromkeys(self.module_of.values()))

    def players(self, module: str) -> list[str]:
        """Return the agents that a module plays."""
        return [agent for agent, plays in self.module_of.items() if plays == module]

    def places(self, module: str) -> list[int]:
        """Return where a module's agents are on the last axis."""
        return [i for i, plays in enumerate(self.module_of.values()) if plays == module]

    def stacked(self, what: str, module: str) -> Any:
        """Return `obs`, `actions`, … of a module's k agents side by side, nested (T, E, k, ...)."""
        found = getattr(self, what)
        return _stack([found[agent] for agent in self.players(module)])

    def of_module(self, module: str) -> ArrayFragment | None:
        """Return what a module's agents saw and did as (T, E k, ...); None if it chose without a distribution."""
        places = self.places(module)
        if any(agent not in self.action_logp for agent in self.players(module)):
            return None

        def flat(array: Any) -> Any:
            return _map(array, lambda a: a.reshape(len(a), -1, *a.shape[3:]))

        return ArrayFragment(
            obs=flat(self.stacked("obs", module)),
            actions=flat(self.stacked("actions", module)),
            rewards=flat(self.rewards[..., places]),
            terminated=flat(self.terminated[..., places]),
            truncated=flat(self.truncated[..., places]),
            fresh=flat(~self.acted[..., places]),
            action_logp=flat(self.stacked("action_logp", module)),
            action_dist_inputs=flat(self.stacked("action_dist_inputs", module)),
        )


# From the joint runner ---------------------------------------------------------------------------------------


def of_rows(rows: JointRows, module_of: Mapping[str, str], state: np.ndarray | None = None) -> TeamFragment:
    """Return all rows of a sample.

    Args:
        rows: after the last step; the cursors are at the observations that came of it.
        module_of: agent -> module, in the roster's order.
        state: (E, R, S), the global states beside `rows.obs`.
    """
    layout, count = rows.roster, len(module_of)
    length = int(rows.cursor.max())
    number = np.arange(length + 1)
    behind = number[:, None] > rows.cursor  # (T + 1, E): not reached in this environment
    unused = np.ascontiguousarray(behind.T)
    for array in rows.obs if state is None else (*rows.obs, state):
        array[:, : length + 1][unused] = 0

    def swapped(array: np.ndarray, stop: int = length) -> np.ndarray:
        return array[:, :stop].swapaxes(0, 1)

    steps = rows.steps[:, :length].T
    last = np.zeros((length + 1, len(rows.every)), bool)
    last[:length] = ~steps & ~behind[:length]
    last[rows.cursor, rows.every] = True
    acted = np.repeat(steps[..., None], count, axis=2)
    outputs = {
        name: {
            agent: swapped(array)
            for agent, array in zip(layout.agents, leaves, strict=True)
            if array.shape[1]
        }
        for name, leaves in rows.outputs.items()
    }
    actions = layout.actions.nest([swapped(array) for array in rows.actions])
    return TeamFragment(
        module_of=module_of,
        obs=layout.obs.nest([swapped(array, length + 1) for array in rows.obs]),
        actions=actions,
        action_logp=outputs.get(Columns.ACTION_LOGP, {}),
        action_dist_inputs=outputs.get(Columns.ACTION_DIST_INPUTS, {}),
        rewards=np.where(acted, swapped(rows.rewards), 0.0),
        terminated=acted & swapped(rows.terminateds),
        truncated=acted & swapped(rows.truncateds),
        acted=acted,
        present=np.repeat(~behind[..., None], count, axis=2),
        last=last,
        state=None if state is None else swapped(state, length + 1),
    )


# From episodes -----------------------------------------------------------------------------------------------


def of_episodes(
    episodes: Sequence[Any],
    module_of: Mapping[str, str],
    states: Mapping[str, Column],
    steps: Mapping[str, Column],
) -> TeamFragment:
    """Return RLlib's episodes as rows of one long environment; agents may come, go and take turns.

    Args:
        episodes: MultiAgentEpisodes as an env runner returns them.
        module_of: agent -> module.
        states, steps: as `joint_columns` makes them of the agents' spaces.
    """
    agents = list(module_of)
    extras = (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS)
    parts = list(joint_fragments(episodes, agents, states, steps, extras=extras))
    last = np.zeros((sum(part.length + 1 for part in parts), 1), bool)
    last[np.cumsum([part.length + 1 for part in parts]) - 1] = True

    def whole(values: Iterator[Any], pad: bool) -> Any:
        """Join (T, ...) of all parts, a row of zeros behind each one's steps but the last."""
        found = list(values)
        joined = _join([_map(v, _one_more) for v in found] if pad else found)
        return _map(joined, lambda a: (a[:-1] if pad else a)[:, None])

    def column(name: str) -> Any:
        return whole((part.steps[name] for part in parts), pad=True)

    def extra(name: str) -> dict[str, np.ndarray]:
        found = _known(parts, name, module_of)
        return {agent: whole((p.steps[EXTRAS][name][agent] for p in parts), pad=True) for agent in found}

    return TeamFragment(
        module_of=module_of,
        obs=whole((part.states[OBS] for part in parts), pad=False),
        actions=column(ACTIONS),
        action_logp=extra(Columns.ACTION_LOGP),
        action_dist_inputs=extra(Columns.ACTION_DIST_INPUTS),
        rewards=np.asarray(column(REWARDS), np.float64),
        terminated=column(TERMINATEDS),
        truncated=column(TRUNCATEDS),
        acted=column(ACTED),
        present=whole((part.states[PRESENT] for part in parts), pad=False),
        last=last,
    )


def _known(parts: Sequence[Fragment], name: str, module_of: Mapping[str, str]) -> list[str]:
    """Return the agents that have an extra column; where one is absent it gets zeros of the others' width.

    An agent that never acted gets them too, where another of its module did.
    """
    found: dict[str, np.ndarray] = {}
    for part in parts:
        found |= {agent: array[:1] for agent, array in part.steps[EXTRAS][name].items()}
    of_module = {module_of[agent]: one for agent, one in found.items()}
    found |= {a: of_module[m] for a, m in module_of.items() if a not in found and m in of_module}
    for part in parts:
        for agent, one in found.items():
            if agent not in part.steps[EXTRAS][name]:
                part.steps[EXTRAS][name][agent] = np.zeros((part.length, *one.shape[1:]), one.dtype)
    return sorted(found)


def _one_more(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array[:1])])


def _join(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: _join([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(_join([part[i] for part in parts]) for i in range(len(first)))
    return np.concatenate([np.asarray(part) for part in parts])


def _stack(parts: Sequence[Any]) -> Any:
    """Stack nested (T, E, ...) to (T, E, k, ...)."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: _stack([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stack([part[i] for part in parts]) for i in range(len(first)))
    stacked = np.stack(parts, axis=2)
    return stacked.astype(np.float32) if stacked.dtype == np.float64 else stacked


def _map(value: Any, function: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _map(part, function) for key, part in value.items()}
    return tuple(_map(part, function) for part in value) if isinstance(value, tuple) else function(value)
