"""Policy ensembles (section 4.3 of the paper): K sub-policies per agent, one of them drawn per team and episode.

The draw is made when an episode is created (`DrawSubPolicies`, a callback of the training runners), rides along in the
episode's `custom_data`, reaches the module as the column `ensemble_index` (`TeamIndex`, a connector) and the replay
buffer as the joint column `index` (T teams). The replay of sub-policy k, D_i^(k), is the rows whose index is k; each
sub-policy is a part of the learner, with 1/K of the gradient.

Outside training nobody draws: there an episode's id decides, so that an evaluation of the same seeds meets the same
sub-policies again.
"""

from __future__ import annotations

import fnmatch
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from rlkit import rllib, seeds
from rlkit.algos.centralised.extension import Extension
from rlkit.algos.centralised.groups import Part
from rlkit.algos.centralised.module import OPTIONS, MADDPGModule
from rlkit.algos.centralised.rows import ByAgent, Rows
from rlkit.algos.options import for_policy
from rlkit.algos.sampling.connectors import PerEpisode
from rlkit.algos.sampling.graph import Piece, Tensor
from rlkit.callbacks.base import Bound, Callback
from rlkit.replay import Column, Fragment, Replay

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
            self._rng = seeds.of_runner(env_runner, "exploration", DRAWN)
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

    def graph(self, agent: str) -> Piece:
        """Return the same on tensors: the index is an input of the graph."""
        team = self.teams[agent]
        return GivenIndex(team, self.sizes[team])


class GivenIndex(Piece):
    """`TeamIndex` for exports: whoever acts with the graph says which sub-policy plays, from 0 to `size` - 1."""

    def __init__(self, team: str, size: int):
        super().__init__()
        self.inputs = {"sub_policy": Tensor((), "int64")}
        self.feed = {"kind": "sub_policy", "team": team, "size": size}

    def forward(
        self, batch: dict[str, Any], given: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return {**batch, ENSEMBLE_INDEX: given["sub_policy"]}, {}


def with_index(
    fragment: Fragment, episode_id: str, custom_data: Mapping[str, Any], sizes: Mapping[str, int]
) -> Fragment:
    """Return the joint fragment of an episode with the column `index`, (T, teams)."""
    row = [index_of(episode_id, custom_data, team, size) for team, size in sizes.items()]
    steps = {**fragment.steps, INDEX: np.tile(np.array(row, np.int8), (fragment.length, 1))}
    return Fragment(fragment.key, fragment.start, fragment.length, fragment.states, steps, fragment.done)


def teams_of(agents: Sequence[str], given: Mapping[str, Sequence[str]] | None) -> dict[str, str]:
    """Return agent -> team: by globs, or by default the agent's name without its number (`adversary_0`: adversary).

    Raises:
        ValueError: an agent that no glob matches.
    """
    teams: dict[str, str] = {}
    for agent in agents:
        by_name = re.sub(r"[_\-]?\d+$", "", agent) or agent
        fits = (
            team for team, globs in (given or {}).items() if any(fnmatch.fnmatchcase(agent, g) for g in globs)
        )
        teams[agent] = by_name if given is None else next(fits, "")
        if not teams[agent]:
            raise ValueError(f"teams: agent {agent!r} is in none of {given}; add it to one")
    return teams


class EnsembleModule(MADDPGModule):
    """A policy of several actors, each with critics of its own; a column says which of them acts."""

    @property
    def sub_policies(self) -> int:
        return int(self.model_config[OPTIONS]["sub_policies"])

    def act(self, actor: Any, x: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        if len(self.actors) == 1 or ENSEMBLE_INDEX not in batch:
            return super().act(actor, x, batch)
        every = torch.stack([sub_policy(x) for sub_policy in self.actors], dim=1)
        index = batch[ENSEMBLE_INDEX].long().reshape(-1, 1, 1).expand(-1, 1, every.shape[-1])
        return every.gather(1, index).squeeze(1)


class Ensembles(Extension):
    """One part of the learner per team and sub-policy, `<team>/<k>`, with minibatches of its own.

    Attributes:
        teams: agent -> team.
        sizes: team -> K.
    """

    module_class = EnsembleModule

    @classmethod
    def wanted(cls, config: Any) -> bool:
        sizes = config.ensemble_size
        return max(sizes.values() if isinstance(sizes, dict) else [sizes]) > 1

    def size_of(self, module_id: str) -> int:
        """Return the number of sub-policies of a policy."""
        return int(for_policy(self.config.ensemble_size, module_id, 1))

    def validate(self) -> None:
        config, size = self.config, self.config.ensemble_size
        if config.recurrent_model():
            raise ValueError(f"ensemble_size: got {size} together with a recurrent model; choose one of them")
        if not config.is_multi_agent:
            raise ValueError(f"ensemble_size: got {size} in an environment with one agent; leave it out")
        self._divide(config.agents())
        known = config.callbacks_class if isinstance(config.callbacks_class, list | tuple) else []
        if not any(isinstance(c, Bound) and c.cls is DrawSubPolicies for c in known):
            rllib.add_callbacks(config, [DrawSubPolicies.bind(sizes=self.sizes)])

    def _divide(self, agents: Sequence[str]) -> None:
        """Set teams and sizes.

        Raises:
            ValueError: members of a team differ, an agent is in no team, or a policy plays for two teams.
        """
        policy_of = {a: self.config.policy_mapping_fn(a, None) for a in sorted(map(str, agents))}
        teams = self.teams = teams_of(list(policy_of), self.config.teams)
        firsts: dict[str, str] = {}
        plays: dict[str, str] = {}
        for agent, policy in policy_of.items():
            first, size = firsts.setdefault(teams[agent], agent), self.size_of(policy)
            if size != self.size_of(policy_of[first]):
                raise ValueError(
                    f"ensemble_size: one index is drawn per team, and in team {teams[agent]!r} agent {first!r} has "
                    f"{self.size_of(policy_of[first])} sub-policies, agent {agent!r} {size}; give them the same "
                    "ensemble_size, or put them into different teams (training: {teams: {name: [globs]}})"
                )
            other = plays.setdefault(policy, agent)
            if size > 1 and teams[other] != teams[agent]:
                raise ValueError(
                    f"ensemble_size: policy {policy!r} plays {other!r} of team {teams[other]!r} and {agent!r} of team "
                    f"{teams[agent]!r}; a sub-policy is drawn per team, give them a policy each"
                )
        self.sizes = {team: self.size_of(policy_of[first]) for team, first in sorted(firsts.items())}

    def module_options(self, module_id: str) -> dict[str, Any]:
        return {"sub_policies": self.size_of(module_id)}

    def connectors(self, agents: Sequence[str]) -> list[Any]:
        self._divide(agents)
        return [TeamIndex(teams=self.teams, sizes=self.sizes)]

    def columns(self, agents: Sequence[str]) -> dict[str, Column]:
        self._divide(agents)
        return {INDEX: Column.of(INDEX, shape=(len(self.sizes),), dtype=np.int8)}

    def mark(self, fragment: Fragment, episode: Any) -> Fragment:
        return with_index(fragment, episode.id_, episode.custom_data, self.sizes)

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """The name of each part -> the number of its team and of its sub-policy."""
        sizes = self.sizes.items()
        return {f"{team}/{k}": (number, k) for number, (team, size) in enumerate(sizes) for k in range(size)}

    def draw(self, replay: Replay, size: int, updates: int) -> dict[str, np.ndarray]:
        """Draw the rows of each part from the episodes in which its team played it, if there are any."""
        (column,), drawn = replay.ring.data[INDEX], {}
        for name, (team, index) in self.parts.items():
            rows = np.flatnonzero(column[: len(replay), team] == index)
            if len(rows):
                drawn[name] = rows[replay.rng.integers(len(rows), size=(updates, size))]
        return drawn

    def build(self, learner: Any) -> list[Part]:
        self._divide(learner.joint.agents)
        parts, teams = [], list(self.sizes)
        for name, (number, index) in self.parts.items():
            team = teams[number]
            size = self.sizes[team]
            members = {
                n: m for n, m in learner.players.items() if any(self.teams[a] == team for a in m.players)
            }
            suffix = f"_{index}" if size > 1 else ""
            parts.append(learner.part(name, members, index=index, suffix=suffix, share=1.0 / size))
        return parts

    def played(self, rows: Rows, codes: Sequence[ByAgent]) -> ByAgent:
        """Of each team, the actions of the sub-policy that it plays in a row's episode."""
        found: ByAgent = {}
        for (team, index), part in zip(self.parts.values(), codes, strict=True):
            plays = (rows.more[INDEX][..., team] == index)[..., None]
            for agent, code in part.items():
                found[agent] = torch.where(plays, code, found[agent]) if agent in found else code
        return {agent: found[agent] for agent in rows.codes}
