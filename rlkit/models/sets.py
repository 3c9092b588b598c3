"""`entities`: a set of things of the same kind, of which some may be absent; their order does not matter.

Deep sets: Zaheer et al., arXiv 1703.06114. Set attention: Lee et al., Set Transformer, arXiv 1810.00825.

Legend: B batch, K entities at most, D numbers of one, E size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import nn

from rlkit.errors import UsageError
from rlkit.models.dense import flatten
from rlkit.models.encoders import linear, sizes_of, stack, whole
from rlkit.models.features import zeros


class SetAttention(nn.Module):
    """Each entity looks at all that are present: (B, K, E) to (B, K, E)."""

    def __init__(self, size: int, heads: int, gain: float | None):
        super().__init__()
        unit = None if gain is None else 1.0
        self.heads, self.norm = heads, nn.LayerNorm(size)
        self.look, self.join = linear(size, 3 * size, unit), linear(size, size, unit)

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        query, key, value = self.look(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # a softmax over nothing is NaN; what it gives here is dropped
        nobody = ~present.any(dim=-1, keepdim=True)
        mask = (present | nobody)[:, None, None, :]
        seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return x + self.join(seen.transpose(1, 2).flatten(2))


class Entities(nn.Module):
    """Layers per entity, attention if asked for, mean and maximum of those present, then layers over all."""

    def __init__(
        self,
        keys: tuple[str | None, str | None],
        each: nn.Module,
        attend: nn.Module | None,
        together: nn.Module,
    ):
        super().__init__()
        self.entities, self.present = keys
        self.each, self.attend, self.together = each, attend, together

    def forward(self, observation: Any) -> torch.Tensor:
        if self.entities is None:
            rows, rest = observation, []
        else:
            rows = observation[self.entities]
            mine = (self.entities, self.present)
            rest = [flatten(part) for key, part in observation.items() if key not in mine]
        there = (
            torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
            if self.present is None
            else observation[self.present] > 0.5
        )
        x = self.each(rows)
        if self.attend is not None:
            x = self.attend(x, there)
        keep = there.unsqueeze(-1)
        count = keep.sum(dim=1)
        mean = (x * keep).sum(dim=1) / count.clamp(min=1)
        most = torch.where(keep, x, float("-inf")).amax(dim=1)
        most = torch.where(count > 0, most, 0.0)
        return self.together(torch.cat([mean, most, *rest], dim=-1))


def entities(
    observation_space: gym.Space,
    *,
    pool: Literal["attention", "deep_sets"] = "attention",
    entities: str = "entities",
    present: str = "present",
    size: int = 64,
    heads: int = 4,
    hiddens: Sequence[int] = (128,),
    activation: str = "relu",
    layer_norm: bool = False,
    orthogonal: bool = True,
    gain: float = math.sqrt(2),
) -> nn.Module:
    """A set of entities, pooled by their mean and maximum, beside whatever else is observed.

    The space is a Box (K, D), or a Dict of `entities`, a Box (K, D); `present`, (K,) of 0 and 1, where entities come
    and go; and any other parts, which are flattened and stand beside the pooled set.

    Args:
        pool: `attention` lets entities look at each other before; `deep_sets` does not.
        entities, present: keys of the Dict.
        size: of one entity's embedding; with attention a multiple of `heads`.
        heads: of the attention.
        hiddens: layers behind the pooled set; the last one is the number of features.
        activation, layer_norm, orthogonal, gain: as for `mlp`.
    """
    if pool not in ("attention", "deep_sets"):
        raise UsageError(f"model.pool: got {pool!r}, expected attention or deep_sets")
    if whole("size", size) % whole("heads", heads) and pool == "attention":
        raise UsageError(f"model.size: got {size}, expected a multiple of heads ({heads})")
    parts: Mapping[str, gym.Space] = (
        observation_space.spaces if isinstance(observation_space, gym.spaces.Dict) else {}
    )
    rows = parts.get(entities) if parts else observation_space
    if not isinstance(rows, gym.spaces.Box) or len(rows.shape) != 2:
        raise UsageError(
            f"the model 'entities' takes a Box (K, D), or a Dict with one under {entities!r}; got {observation_space}"
        )
    if present in parts and parts[present].shape != rows.shape[:1]:
        raise UsageError(
            f"model.present: {present!r} has shape {parts[present].shape}, expected {rows.shape[:1]}, one per entity"
        )
    weights = gain if orthogonal else None
    rest = sum(
        flatten(zeros(part, 1)).shape[1] for key, part in parts.items() if key not in (entities, present)
    )
    return Entities(
        (entities if parts else None, present if present in parts else None),
        stack(rows.shape[1], [size], activation, layer_norm, weights),
        SetAttention(size, heads, weights) if pool == "attention" else None,
        stack(2 * size + rest, sizes_of("hiddens", hiddens), activation, layer_norm, weights),
    )
