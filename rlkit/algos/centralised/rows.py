"""Replayed joint columns as what networks read: vectors and action codes by agent, masks, targets' ingredients.

A chunk holds K minibatches; everything here is computed for all K at once, an update takes its row k.

Shapes: K updates, B rows, N agents; with recurrent networks rows are (B, T).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlkit.algos.centralised.ensembles import INDEX
from rlkit.algos.centralised.joint import Sizes
from rlkit.replay.buffer import ACTIONS, MASK, N_STEP, NEXT_OBS, OBS, REWARDS, TERMINATEDS, WEIGHTS
from rlkit.replay.episodes import ACTED, PRESENT

NEXT_PRESENT = f"next_{PRESENT}"

ByAgent = dict[str, torch.Tensor]


@dataclass
class Rows:
    """Minibatches of joint transitions, each tensor (K, B, ...); `at(k)` is one of them, (B, ...).

    Attributes:
        observations, next_observations: vectors by agent.
        legal, next_legal: action masks by agent, for the agents that have one.
        codes: action codes by agent.
        rewards, terminated, valid: by agent, (K, B). `valid`: the agent acted, and what followed is known; None where
            all rows are valid.
        next_present: by agent, or None where everybody is there.
        discount: γ^n, (K, B).
        weights: importance weights, (K, B), or None.
        index: which sub-policy each team played, (K, B, teams), or None without ensembles.
        joint: all observations and codes side by side, (K, B, D).
        next_joint: all next observations side by side.
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
    index: torch.Tensor | None
    joint: torch.Tensor
    next_joint: torch.Tensor
    recurrent: bool = False

    def at(self, k: int) -> Rows:
        """Return minibatch k."""
        return Rows(**{name: _at(value, k) for name, value in vars(self).items()})


def _at(value: Any, k: int) -> Any:
    if isinstance(value, dict):
        return {name: part[k] for name, part in value.items()}
    return value[k] if isinstance(value, torch.Tensor) else value


def read_rows(
    columns: Mapping[str, Any],
    sizes: Sizes,
    *,
    gamma: float,
    normalizers: Mapping[str, Any] | None = None,
    weighted: bool = False,
    burn_in: int = 0,
) -> Rows:
    """Turn replayed columns (tensors) into rows.

    Args:
        columns: what `Replay.transitions` or `Replay.sequences` returns, (K, B, ...) per column.
        sizes: of all agents.
        gamma: discount of one step.
        normalizers: agent -> a function that normalises its vectors.
        weighted: whether importance weights matter.
        burn_in: first steps of every sequence that only warm the recurrent state up.
    """
    agents = sizes.joint.agents
    leading = columns[REWARDS].dim() - 1
    observations, legal = _vectors(columns[OBS], sizes, normalizers)
    following, next_legal = _vectors(columns[NEXT_OBS], sizes, normalizers)
    codes = {a: sizes.kinds[a].encode(columns[ACTIONS][a], leading) for a in agents}
    terminated = columns[TERMINATEDS]
    valid = columns[ACTED] & (columns[NEXT_PRESENT] | terminated)
    if MASK in columns:
        valid = valid & columns[MASK][..., None]
        valid[..., :burn_in, :] = False
    everywhere = bool(valid.all()) and bool(columns[NEXT_PRESENT].all())
    present, there = columns[PRESENT], columns[NEXT_PRESENT]
    if not everywhere:
        for i, a in enumerate(agents):
            observations[a] = observations[a] * present[..., i, None]
            following[a] = following[a] * there[..., i, None]
            codes[a] = codes[a] * columns[ACTED][..., i, None]
    return Rows(
        observations=observations,
        next_observations=following,
        legal=legal,
        next_legal=next_legal,
        codes=codes,
        rewards={a: columns[REWARDS][..., i] for i, a in enumerate(agents)},
        terminated={a: terminated[..., i] for i, a in enumerate(agents)},
        valid=None if everywhere else {a: valid[..., i] for i, a in enumerate(agents)},
        next_present=None if everywhere else {a: there[..., i] for i, a in enumerate(agents)},
        discount=gamma ** columns[N_STEP],
        weights=columns[WEIGHTS] if weighted else None,
        index=columns.get(INDEX),
        joint=torch.cat([*observations.values(), *codes.values()], dim=-1),
        next_joint=torch.cat(list(following.values()), dim=-1),
        recurrent=MASK in columns,
    )


def _vectors(
    values: Mapping[str, Any], sizes: Sizes, normalizers: Mapping[str, Any] | None
) -> tuple[ByAgent, ByAgent]:
    vectors: ByAgent = {}
    masks: ByAgent = {}
    for agent in sizes.joint.agents:
        observation, mask = sizes.vectors[agent].split(values[agent])
        vector = sizes.vectors[agent](observation)
        vectors[agent] = normalizers[agent](vector) if normalizers else vector
        if mask is not None:
            masks[agent] = mask
    return vectors, masks
