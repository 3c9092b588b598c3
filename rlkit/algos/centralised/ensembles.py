"""Policy ensembles ([P] §4.3): K sub-policies per agent, one of them drawn per team and episode.

The draw is made when an episode is created (`DrawSubPolicies`, a callback of the training runners), rides along in the
episode's `custom_data`, reaches the module as the column `ensemble_index` (`TeamIndex`, a connector) and the replay
buffer as the joint column `index` (T teams). The replay of sub-policy k, D_i^(k), is the rows whose index is k.

Outside training nobody draws: there an episode's id decides, so that an evaluation of the same seeds meets the same
sub-policies again.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.algos.sampling.per_episode import PerEpisode
from rlkit.callbacks.base import Callback
from rlkit.exploration.runner import generator
from rlkit.replay import Fragment, Replay

ENSEMBLE_INDEX = "ensemble_index"
INDEX = "index"
DRAWN = "sub_policies"


class DrawSubPolicies(Callback):
    """Draws the index of every team when an episode is created.

    Args:
        sizes: team -> K.
    """

    def __init__(self, sizes: dict[str, int]):
        self.sizes = dict(sizes)
        self._rng: np.random.Generator | None = None

    def on_episode_created(self, *, episode: Any, env_runner: Any, **kwargs: Any) -> None:
        if env_runner.config.in_evaluation:
            return
        if self._rng is None:
            self._rng = generator(env_runner, DRAWN)
        episode.custom_data[DRAWN] = {
            team: int(self._rng.integers(size)) for team, size in sorted(self.sizes.items())
        }


def index_of(episode_id: str, custom_data: Mapping[str, Any], team: str, size: int) -> int:
    """Return which sub-policy a team plays in an episode: the one drawn, else one that the episode's id decides."""
    drawn = custom_data.get(DRAWN)
    return drawn[team] if drawn else zlib.crc32(f"{episode_id}/{team}".encode()) % size


class TeamIndex(PerEpisode):
    """Adds the index of an agent's sub-policy to its module's batch.

    Args:
        teams: agent -> team.
        sizes: team -> K.
    """

    column = ENSEMBLE_INDEX

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        *,
        teams: dict[str, str],
        sizes: dict[str, int],
        **kwargs: Any,
    ):
        super().__init__(input_observation_space, input_action_space, teams=teams, sizes=sizes, **kwargs)
        self.teams, self.sizes = teams, sizes

    def value(self, episode_id: str, custom_data: Mapping[str, Any], agent: str) -> int:
        team = self.teams[agent]
        return index_of(episode_id, custom_data, team, self.sizes[team])

    def mark(self, fragment: Fragment, episode_id: str, custom_data: Mapping[str, Any]) -> Fragment:
        return with_index(fragment, episode_id, custom_data, self.sizes)


def team_sizes(teams: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return team -> K from agent -> team and agent -> K.

    Raises:
        ValueError: members of one team differ in K.
    """
    first: dict[str, str] = {}
    for agent, team in teams.items():
        other = first.setdefault(team, agent)
        if sizes[agent] != sizes[other]:
            raise ValueError(
                f"ensemble_size: one index is drawn per team, and in team {team!r} agent {other!r} has "
                f"{sizes[other]} sub-policies, agent {agent!r} {sizes[agent]}; give them the same ensemble_size, or "
                "put them into different teams (training: {teams: {name: [globs]}})"
            )
    return {team: sizes[agent] for team, agent in sorted(first.items())}


def with_index(
    fragment: Fragment, episode_id: str, custom_data: Mapping[str, Any], sizes: Mapping[str, int]
) -> Fragment:
    """Return the joint fragment of an episode with the column `index`, (T, teams)."""
    row = [index_of(episode_id, custom_data, team, size) for team, size in sizes.items()]
    steps = {**fragment.steps, INDEX: np.tile(np.array(row, np.int8), (fragment.length, 1))}
    return Fragment(fragment.key, fragment.start, fragment.length, fragment.states, steps, fragment.done)


def draw_rows(replay: Replay, team: int, index: int, size: int, updates: int) -> np.ndarray | None:
    """Draw rows (K, B) of the episodes in which `team` played sub-policy `index`; None if there are none."""
    (column,) = replay.ring.data[INDEX]
    rows = np.flatnonzero(column[: len(replay), team] == index)
    return rows[replay.rng.integers(len(rows), size=(updates, size))] if len(rows) else None


def slots(sizes: Mapping[str, int]) -> Sequence[tuple[str, int]]:
    """Return (team, index) of every sub-policy, in order."""
    return [(team, k) for team, size in sizes.items() for k in range(size)]
