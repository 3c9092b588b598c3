"""Action masks as tensors: which actions an observation allows, and outputs of a network without the others.

Legend: B rows, or rows and time; A outputs, one per action, the choices of a MultiDiscrete side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rlkit.roster import MASK_KEY

ILLEGAL_LOGIT = -1e9  # finite: a Categorical's entropy and KL stay numbers
ILLEGAL_Q = float("-inf")  # RLlib's DQN draws random actions among Q-values that are not -inf


def legal_of(observations: Any) -> torch.Tensor | None:
    """Return which actions a batch of observations allows, (B, A) bool; None for observations without a mask.

    Args:
        observations: a module's, nested (B, ...); a mask in parts (a Tuple) comes side by side.
    """
    if not isinstance(observations, Mapping) or MASK_KEY not in observations:
        return None
    return legal(observations[MASK_KEY])


def legal(mask: Any) -> torch.Tensor:
    """Return a mask (B, A), or its parts (B, n_i), as bool (B, A)."""
    side_by_side = torch.cat(tuple(mask), dim=-1) if isinstance(mask, tuple | list) else mask
    return side_by_side > 0.5


def masked(
    outputs: torch.Tensor, allowed: torch.Tensor, sizes: Sequence[int], illegal: float = ILLEGAL_LOGIT
) -> torch.Tensor:
    """Put outputs (B, A) of actions that are not allowed out of reach.

    A choice in which nothing is allowed (in the observation after the end of a game) is left as it is.

    Args:
        allowed: (B, A) bool.
        sizes: actions of each choice, A together.
        illegal: what such an output becomes.
    """
    parts = [part | ~part.any(dim=-1, keepdim=True) for part in allowed.split(list(sizes), dim=-1)]
    keep = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return torch.where(keep, outputs, torch.full_like(outputs, illegal))


def stuck(allowed: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return where some choice allows nothing, (B,) bool: nothing can be done there, so it is worth 0 in targets."""
    parts = [~part.any(dim=-1) for part in allowed.split(list(sizes), dim=-1)]
    return torch.stack(parts).any(dim=0)
