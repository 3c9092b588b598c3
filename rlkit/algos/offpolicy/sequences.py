"""Replayed sequences in the losses of modules with a state, for SAC, DRON and MADDPG; DQN's stand in RLlib's module.

A sequence begins anywhere in an episode. Its first `burn_in_len` steps only warm the state up and have no loss, as in
R2D2 (Kapturowski et al., ICLR 2019). What follows a step is read from the state after it: an encoder goes once over
the T + 1 observations of a sequence, whose first T are `obs` and whose last T are `new_obs`.

Legend: B sequences, T steps, N steps that are learned from, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT

STATES = (Columns.STATE_IN, Columns.NEXT_STATE_IN)


def from_start(values: Any, following: Any) -> Any:
    """Put the first of nested (B, T, ...) in front of the T that follow each step: (B, T + 1, ...)."""
    if isinstance(values, Mapping):
        return {name: from_start(part, following[name]) for name, part in values.items()}
    if isinstance(values, tuple | list):
        return tuple(from_start(a, b) for a, b in zip(values, following, strict=True))
    return torch.cat([values[:, :1], following], dim=1)


def repeated(state: Any, count: int) -> Any:
    """Return a nested state without the batch as (count, ...)."""
    if isinstance(state, Mapping):
        return {name: repeated(part, count) for name, part in state.items()}
    return state.expand(count, *state.shape)


def encoded(encoder: Any, observations: Any, state: Any = None) -> torch.Tensor:
    """Return the features (B, T, F) of an RLlib encoder with a state.

    Args:
        encoder: such an encoder.
        observations: nested (B, T, ...).
        state: nested (B, ...); None: the initial one.
    """
    if state is None:
        leaf = observations
        while not torch.is_tensor(leaf):
            leaf = next(iter(leaf.values())) if isinstance(leaf, Mapping) else leaf[0]
        initial = encoder.get_initial_state()
        state = repeated({name: part.to(leaf.device) for name, part in initial.items()}, len(leaf))
    out: torch.Tensor = encoder({Columns.OBS: observations, Columns.STATE_IN: state})[ENCODER_OUT]
    return out


def learned_steps(mask: torch.Tensor, burn_in: int) -> torch.Tensor:
    """Return which steps have a loss, (B, T) bool: those of the episode behind the burn-in.

    Args:
        mask: (B, T) bool, steps of the episode.
        burn_in: first steps of each sequence without a loss.
    """
    learned = mask.bool().clone()
    learned[:, :burn_in] = False
    return learned


def steps_at(columns: Any, learned: torch.Tensor) -> Any:
    """Return the learned steps of nested (B, T, ...) as rows (N, ...); states at the start are left out."""
    if isinstance(columns, Mapping):
        return {name: steps_at(part, learned) for name, part in columns.items() if name not in STATES}
    if isinstance(columns, tuple | list):
        return tuple(steps_at(part, learned) for part in columns)
    return columns[learned]


def check_sequences(module_id: str, length: int, burn_in: int, batch: int) -> None:
    """Refuse sequences that nothing can be learned from.

    Raises:
        ValueError: a burn-in that takes whole sequences, or a batch shorter than one.
    """
    if burn_in >= length:
        raise ValueError(
            f"burn_in_len {burn_in} leaves nothing of the sequences of module {module_id!r}, got max_seq_len {length}; "
            f"expected a burn_in_len of at most {length - 1}"
        )
    if batch < length:
        raise ValueError(
            f"a learner's batch of {batch} steps (train_batch_size_per_learner) is shorter than one sequence of "
            f"module {module_id!r}, got max_seq_len {length}; raise the one or lower the other"
        )
