"""Who sees what: the agents of a joint row, the modules that play them, and the input of each critic.

A critic's input is observations, then action codes, of some agents in some order:

    centralized, module plays one agent      every agent, in sorted order: the same input for all such critics
    centralized, module plays several        the judged agent first, then its fellows, then the others, and which of
                                             the module's agents is judged (one-hot)
    local                                    the judged agent alone, and which it is if the module plays several
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch

from rlkit.algos.centralised.actions import ActionKind, action_kind
from rlkit.algos.centralised.networks import ObservationVector

CENTRALIZED, LOCAL = "centralized", "local"


@dataclass(frozen=True)
class Joint:
    """The agents of a joint row in sorted order, the module that plays each, and what a module sees and does.

    Attributes:
        agents: N agent ids.
        module_of: agent -> module.
        spaces: module -> (observation space, action space), behind the connectors.
    """

    agents: tuple[str, ...]
    module_of: Mapping[str, str]
    spaces: Mapping[str, tuple[gym.Space, gym.Space]]

    @classmethod
    def of(
        cls,
        agents: Sequence[Any],
        mapping: Callable[..., str],
        spaces: Mapping[str, tuple[gym.Space, gym.Space]],
    ) -> Joint:
        """Ask the mapping for every agent.

        Raises:
            ValueError: an agent whose module does not exist, or whose module depends on the episode.
        """
        module_of: dict[str, str] = {}
        for agent in sorted(map(str, agents)):
            try:
                module_of[agent] = mapping(agent, None)
            except (AttributeError, TypeError) as error:
                raise ValueError(
                    f"the policy of agent {agent!r} depends on the episode ({error}); a centralised critic needs a "
                    "fixed one: give a policy_mapping_fn that reads the agent's id alone"
                ) from error
            if module_of[agent] not in spaces:
                raise ValueError(
                    f"agent {agent!r} is mapped to the policy {module_of[agent]!r}, which does not exist; policies: "
                    f"{sorted(spaces)}"
                )
        used = set(module_of.values())
        return cls(tuple(module_of), module_of, {m: spaces[m] for m in sorted(used)})

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that play somebody, sorted."""
        return tuple(sorted(self.spaces))

    def players(self, module: str) -> tuple[str, ...]:
        """The agents a module plays."""
        return tuple(agent for agent in self.agents if self.module_of[agent] == module)

    def check(self, normalized: bool) -> None:
        """Raise ValueError, naming the agent, for a space that MADDPG cannot serve."""
        for agent in self.agents:
            observation, action = self.spaces[self.module_of[agent]]
            for what, build in (
                ("acts", lambda action=action: action_kind(action, normalized)),
                ("observes", lambda o=observation, a=action: ObservationVector(o, a)),
            ):
                try:
                    build()
                except ValueError as error:
                    raise ValueError(f"agent {agent!r}, what it {what}: {error}") from error


class Sizes:
    """The vectors and action codes of every agent of a joint row.

    Args:
        joint: the agents.
        normalized: whether module actions are in [-1, 1] (RLlib's `normalize_actions`).
    """

    def __init__(self, joint: Joint, normalized: bool):
        self.joint = joint
        vectors = {m: ObservationVector(o, a) for m, (o, a) in joint.spaces.items()}
        kinds = {m: action_kind(a, normalized) for m, (_, a) in joint.spaces.items()}
        self.vectors: dict[str, ObservationVector] = {a: vectors[joint.module_of[a]] for a in joint.agents}
        self.kinds: dict[str, ActionKind] = {a: kinds[joint.module_of[a]] for a in joint.agents}


class CriticInput:
    """The input of one module's critics (see the module docstring).

    Args:
        sizes: of all agents.
        module: whose critics.
        critic: `centralized` or `local`.
    """

    def __init__(self, sizes: Sizes, module: str, critic: str):
        joint = sizes.joint
        self.players = joint.players(module)
        self.local, self.shared = critic == LOCAL, len(self.players) > 1
        self.orders = {agent: self._order(joint, agent) for agent in self.players}
        first = self.orders[self.players[0]]
        self.vectors = [sizes.vectors[agent] for agent in first]
        codes = [sizes.kinds[agent].size for agent in first]
        self.tags = len(self.players) if self.shared else 0
        self.extra = sum(codes) + self.tags
        self.size = sum(v.size for v in self.vectors) + self.extra
        # where the judged agent's own action code stands
        own = first.index(self.players[0])
        start = sum(v.size for v in self.vectors) + sum(codes[:own])
        self.own = slice(start, start + codes[own])

    def _order(self, joint: Joint, agent: str) -> tuple[str, ...]:
        if self.local:
            return (agent,)
        if not self.shared:
            return joint.agents
        fellows = [a for a in self.players if a != agent]
        return (agent, *fellows, *(a for a in joint.agents if a not in self.players))

    @property
    def common(self) -> bool:
        """Whether the input is every agent in sorted order, as for all modules that play one agent."""
        return not (self.local or self.shared)

    def __call__(
        self, observations: Mapping[str, torch.Tensor], codes: Mapping[str, torch.Tensor], agent: str
    ) -> torch.Tensor:
        """Return the input that judges `agent`, (B, D), from vectors and codes (B, ...) by agent."""
        order = self.orders[agent]
        parts = [*(observations[a] for a in order), *(codes[a] for a in order)]
        if self.shared:
            tag = torch.zeros(*parts[0].shape[:-1], self.tags, device=parts[0].device)
            tag[..., self.players.index(agent)] = 1.0
            parts.append(tag)
        return torch.cat(parts, dim=-1)


def teams_of(agents: Sequence[str], given: Mapping[str, Sequence[str]] | None) -> dict[str, str]:
    """Return agent -> team: by globs, or by default the agent's name without its number (`adversary_0`: adversary).

    Raises:
        ValueError: an agent that no glob matches.
    """
    import fnmatch

    teams: dict[str, str] = {}
    for agent in agents:
        if given is None:
            teams[agent] = re.sub(r"[_\-]?\d+$", "", agent) or agent
            continue
        for team, globs in given.items():
            if any(fnmatch.fnmatchcase(agent, glob) for glob in globs):
                teams[agent] = team
                break
        else:
            raise ValueError(f"teams: agent {agent!r} is in none of {dict(given)}; add it to one")
    return teams
