"""Joint rows: what a critic reads of them, and replayed columns as what networks read.

A critic's input is observations, then action codes, of some agents in some order:

    centralized, module plays one agent      every agent, in sorted order: the same input for all such critics
    centralized, module plays several        the judged agent first, then its fellows, then the others, and which of
                                             the module's agents is judged (one-hot)
    local                                    the judged agent alone, and which it is if the module plays several

A chunk holds K minibatches; everything is computed for all K at once, an update takes its row k. Shapes: K updates,
B rows, N agents, D width of an input; with recurrent networks rows are (B, T).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlkit.algos.centralised.options import LOCAL
from rlkit.algos.centralised.spaces import Joint
from rlkit.models.masks import stuck
from rlkit.replay.buffer import (
    ACTIONS,
    MASK,
    N_STEP,
    NEXT_OBS,
    OBS,
    REWARDS,
    TERMINATEDS,
    TRUNCATEDS,
    WEIGHTS,
)
from rlkit.replay.episodes import ACTED, PRESENT

NEXT_PRESENT = f"next_{PRESENT}"
KNOWN = {
    ACTED,
    ACTIONS,
    MASK,
    N_STEP,
    NEXT_OBS,
    NEXT_PRESENT,
    OBS,
    PRESENT,
    REWARDS,
    TERMINATEDS,
    TRUNCATEDS,
    WEIGHTS,
}

ByAgent = dict[str, torch.Tensor]


class CriticInput:
    """The input of one module's critics (see the module docstring).

    Args:
        joint: all agents.
        module: whose critics.
        critic: `centralized` or `local`.

    Attributes:
        vectors, extra: the observations in the input, and how many numbers follow them.
        own: where the code of the judged agent's action stands.
        common: whether the input is every agent in sorted order, as for all modules that play one agent.
    """

    def __init__(self, joint: Joint, module: str, critic: str):
        self.players = joint.players(module)
        self.local, self.shared = critic == LOCAL, len(self.players) > 1
        self.common = not (self.local or self.shared)
        self.orders = {agent: self._order(joint, agent) for agent in self.players}
        first = self.orders[self.players[0]]
        self.vectors = [joint.vectors[agent] for agent in first]
        codes = [joint.kinds[agent].size for agent in first]
        seen = sum(vector.size for vector in self.vectors)
        self.extra = sum(codes) + (len(self.players) if self.shared else 0)
        self.size = seen + self.extra
        own = first.index(self.players[0])
        self.own = slice(seen + sum(codes[:own]), seen + sum(codes[: own + 1]))

    def _order(self, joint: Joint, agent: str) -> tuple[str, ...]:
        if self.local:
            return (agent,)
        if not self.shared:
            return joint.agents
        fellows = [a for a in self.players if a != agent]
        return (agent, *fellows, *(a for a in joint.agents if a not in self.players))

    def __call__(self, observations: Mapping[str, Any], codes: Mapping[str, Any], agent: str) -> torch.Tensor:
        """Return the input that judges `agent`, (B, D), from vectors and codes (B, ...) by agent."""
        order = self.orders[agent]
        parts = [*(observations[a] for a in order), *(codes[a] for a in order)]
        if self.shared:
            tag = torch.zeros(*parts[0].shape[:-1], len(self.players), device=parts[0].device)
            tag[..., self.players.index(agent)] = 1.0
            parts.append(tag)
        return torch.cat(parts, dim=-1)


@dataclass
class Rows:
    """Minibatches of joint transitions, each tensor (K, B, ...); `at(k)` is one of them, (B, ...).

    Attributes:
        observations, next_observations: vectors by agent.
        legal, next_legal: what masks allow by agent, (K, B, L) bool, for the agents that have one.
        codes: action codes by agent.
        rewards, terminated, valid: by agent, (K, B). `valid`: the agent acted, and what followed is known; None where
            all rows are valid.
        next_present: by agent, or None where everybody is there.
        discount: γ^n, (K, B).
        weights: importance weights, (K, B), or None.
        joint: all observations and codes side by side, (K, B, D).
        next_joint: all next observations side by side.
        more: columns that an extension added to the replay.
        recurrent: rows are sequences (B, T).
    """

    observations: ByAgent
    next_observations: ByAgent
    legal: ByAgent
    next_legal: ByAgent
    codes: ByAgent
    rewards: ByAgent
    terminated: ByAgent
    valid: ByAgent | None
    next_present: ByAgent | None
    discount: torch.Tensor
    weights: torch.Tensor | None
    joint: torch.Tensor
    next_joint: torch.Tensor
    more: ByAgent
    recurrent: bool

    def at(self, k: int) -> Rows:
        """Return minibatch k."""
        return Rows(**{name: _at(value, k) for name, value in vars(self).items()})

    def there(self, codes: ByAgent) -> ByAgent:
        """Return codes of next actions in the order of the agents; zeros of agents that are not there then."""
        if self.next_present is not None:
            codes = {agent: code * self.next_present[agent][..., None] for agent, code in codes.items()}
        return {agent: codes[agent] for agent in self.codes if agent in codes}


def _at(value: Any, k: int) -> Any:
    if isinstance(value, dict):
        return {name: part[k] for name, part in value.items()}
    return value[k] if isinstance(value, torch.Tensor) else value


def read_rows(columns: Mapping[str, Any], joint: Joint, config: Any, normalizers: Mapping[str, Any]) -> Rows:
    """Turn replayed columns (tensors) into rows.

    Args:
        columns: what `Replay.transitions` or `Replay.sequences` returns, (K, B, ...) per column.
        joint: the agents.
        config: `gamma`; `prioritized`, whether weights matter; `burn_in_len`, first steps of every sequence that only
            warm the recurrent state up.
        normalizers: agent -> a function that normalises its vectors; empty without normalisation.
    """
    agents = joint.agents
    leading = columns[REWARDS].dim() - 1
    observations, legal = _vectors(columns[OBS], joint, normalizers)
    following, next_legal = _vectors(columns[NEXT_OBS], joint, normalizers)
    codes = {a: joint.kinds[a].encode(columns[ACTIONS][a], leading) for a in agents}
    present, there, acted = columns[PRESENT], columns[NEXT_PRESENT], columns[ACTED]
    valid = acted & (there | columns[TERMINATEDS])
    if MASK in columns:
        valid = valid & columns[MASK][..., None]
        valid[..., : config.burn_in_len, :] = False
    everywhere = bool(valid.all()) and bool(there.all())
    if not everywhere:
        for i, a in enumerate(agents):
            observations[a] = observations[a] * present[..., i, None]
            following[a] = following[a] * there[..., i, None]
            codes[a] = codes[a] * acted[..., i, None]

    def by_agent(values: torch.Tensor) -> ByAgent:
        return {a: values[..., i] for i, a in enumerate(agents)}

    terminated = by_agent(columns[TERMINATEDS])
    for agent, allowed in next_legal.items():  # nothing to do is worth nothing
        terminated[agent] = terminated[agent] | stuck(allowed, joint.kinds[agent].choices)
    return Rows(
        observations=observations,
        next_observations=following,
        legal=legal,
        next_legal=next_legal,
        codes=codes,
        rewards=by_agent(columns[REWARDS]),
        terminated=terminated,
        valid=None if everywhere else by_agent(valid),
        next_present=None if everywhere else by_agent(there),
        discount=config.gamma ** columns[N_STEP],
        weights=columns.get(WEIGHTS) if config.prioritized else None,
        joint=torch.cat([*observations.values(), *codes.values()], dim=-1),
        next_joint=torch.cat(list(following.values()), dim=-1),
        more={name: value for name, value in columns.items() if name not in KNOWN},
        recurrent=MASK in columns,
    )


def _vectors(
    values: Mapping[str, Any], joint: Joint, normalizers: Mapping[str, Any]
) -> tuple[ByAgent, ByAgent]:
    vectors: ByAgent = {}
    masks: ByAgent = {}
    for agent in joint.agents:
        observation, mask = joint.vectors[agent].split(values[agent])
        vector = joint.vectors[agent](observation)
        vectors[agent] = normalizers[agent](vector) if normalizers else vector
        if mask is not None:
            masks[agent] = mask
    return vectors, masks
