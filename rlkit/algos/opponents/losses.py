"""DRON's losses and measures beside the TD loss, as pure functions.

Legend: B rows, M opponents, C classes, K experts.
"""

from __future__ import annotations

import torch
from torch import nn

from rlkit.algos.opponents.inputs import UNKNOWN


def supervised_loss(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the opponent head and its accuracy, over the opponents that acted.

    Args:
        logits: (B, M, C).
        labels: (B, M), or (B,) for one opponent, int64; -1 where the opponent did not act.
    """
    labels = labels.reshape(logits.shape[:2])
    known = labels != UNKNOWN
    count = known.sum().clamp(min=1)
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=UNKNOWN, reduction="sum"
    )
    right = (logits.argmax(dim=-1) == labels) & known
    return losses / count, right.sum() / count


def gate_use(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how a gate uses its experts: the effective number of them per row, and over all rows.

    Both are perplexities: exp of the rows' mean entropy, and of the entropy of the mean weights, which is never less. A
    gate that has collapsed on one expert has 1 and 1; one that ignores its input and mixes all has K and K; one that
    chooses, and uses every expert, 1 and K.

    Args:
        weights: (B, K), rows that sum to 1.
    """

    def entropy(p: torch.Tensor) -> torch.Tensor:
        return -(p * p.clamp(min=1e-12).log()).sum(dim=-1)

    return entropy(weights).mean().exp(), entropy(weights.mean(dim=0)).exp()
