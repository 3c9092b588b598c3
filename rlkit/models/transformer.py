"""`attention`: a causal transformer over the last steps of an episode.

Blocks with the norm in front of attention and feed-forward layer (GTrXL's identity map reordering, Parisotto et al.,
arXiv 1910.06764), a memory of each block's inputs of the steps before (Transformer-XL, Dai et al., arXiv 1901.02860),
and a learned number per head and distance in place of positions (T5, arXiv 1910.10683). A step sees itself and
`window` - 1 steps before it in each block, so step by step and as a whole sequence the features are the same.

Legend: B batch, T time, W window, M = W - 1 steps of memory, L blocks, H heads, E size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from rlkit.errors import UsageError
from rlkit.models.dense import activation_class
from rlkit.models.encoders import default_encoder, encoder_of, fold, lead_of, linear, sizes_of, whole


class Block(nn.Module):
    """Attention over memory and sequence, then a feed-forward layer: (B, T, E) and (B, M, E) to (B, T, E)."""

    def __init__(self, size: int, heads: int, window: int, activation: str, gain: float | None):
        super().__init__()
        self.heads, self.window = heads, window
        self.norm_in, self.norm_out = nn.LayerNorm(size), nn.LayerNorm(size)
        unit = None if gain is None else 1.0
        self.query, self.value = linear(size, size, unit), linear(size, size, unit)
        self.key = nn.Linear(size, size, bias=False)  # a bias would move all scores of a query alike
        if unit is not None:
            nn.init.orthogonal_(self.key.weight, unit)
        self.join = linear(size, size, unit)
        self.distance = nn.Parameter(torch.zeros(heads, window))
        self.feed = nn.Sequential(
            linear(size, 2 * size, gain), activation_class(activation)(), linear(2 * size, size, unit)
        )

    def forward(self, x: torch.Tensor, memory: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        """Return the block's outputs.

        Args:
            x: (B, T, E).
            memory: (B, M, E), the block's inputs of the steps before.
            filled: (B, M), 1 where there was such a step.
        """
        past, length = memory.shape[1], x.shape[1]
        seen = self.norm_in(torch.cat([memory, x], dim=1))
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(seen[:, past:]), self.key(seen), self.value(seen))
        )
        steps = torch.arange(past + length, device=x.device)
        ago = steps[past:, None] - steps[None, :]  # (T, M + T)
        inside = (ago >= 0) & (ago < self.window)
        known = torch.cat([filled > 0.5, filled.new_ones(len(x), length, dtype=torch.bool)], dim=1)
        allowed = inside[None, None] & known[:, None, None]
        bias = self.distance[:, ago.clamp(0, self.window - 1)]  # (H, T, M + T)
        mask = torch.where(allowed, bias[None], float("-inf"))
        heads = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.join(heads.transpose(1, 2).flatten(2))
        return x + self.feed(self.norm_out(x))


class Attention(nn.Module):
    """Encoder, blocks, norm: observations (B, T, …) to features (B, T, E)."""

    def __init__(
        self,
        space: gym.Space,
        encoder: Mapping[str, Any],
        size: int,
        window: int,
        heads: int,
        blocks: int,
        activation: str,
        gain: float | None,
    ):
        super().__init__()
        self.size, self.window = size, window
        self.encoder, features = encoder_of(space, encoder, "model.encoder")
        self.enter = linear(features, size, None if gain is None else 1.0)
        self.blocks = nn.ModuleList(Block(size, heads, window, activation, gain) for _ in range(blocks))
        self.norm = nn.LayerNorm(size)

    def initial_state(self) -> dict[str, torch.Tensor]:
        past = self.window - 1
        return {
            "memory": torch.zeros(len(self.blocks), past, self.size),
            "filled": torch.zeros(past),
        }

    def forward(
        self, observations: Any, state: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        lead, past = lead_of(observations), self.window - 1
        x = self.enter(self.encoder(fold(observations))).unflatten(0, lead)
        memory, filled = state["memory"], state["filled"]
        after = []
        for number, block in enumerate(self.blocks):
            before = memory[:, number]
            after.append(torch.cat([before, x], dim=1)[:, lead[1] :])
            x = block(x, before, filled)
        now = torch.cat([filled, filled.new_ones(lead)], dim=1)[:, lead[1] :]
        assert now.shape[1] == past, (now.shape, past)
        return self.norm(x), {"memory": torch.stack(after, dim=1), "filled": now}


def attention(
    observation_space: gym.Space,
    *,
    window: int = 16,
    size: int = 64,
    heads: int = 4,
    blocks: int = 1,
    hiddens: Sequence[int] = (64,),
    encoder: Mapping[str, Any] | None = None,
    activation: str = "tanh",
    layer_norm: bool = False,
    orthogonal: bool = True,
    gain: float = math.sqrt(2),
) -> nn.Module:
    """A causal transformer over the last `window` steps.

    Args:
        window: steps that each block sees, the present one included.
        size: of the embedding, which is the number of features; a multiple of `heads`.
        heads: of each attention.
        blocks: one after the other; the last one sees `blocks` x (`window` - 1) steps back.
        hiddens: layers of the encoder, an `mlp`; for an image the last one is the dense layer of a `cnn`.
        encoder: another encoder in its place, by name with its options.
        activation, gain: of the encoder and the feed-forward layers.
        layer_norm: in the encoder; the blocks always have theirs.
        orthogonal: orthogonal weights and zero biases, with gain 1 in the attention.
    """
    if whole("size", size) % whole("heads", heads):
        raise UsageError(f"model.size: got {size}, expected a multiple of heads ({heads})")
    style = {"activation": activation, "layer_norm": layer_norm, "orthogonal": orthogonal, "gain": gain}
    return Attention(
        observation_space,
        encoder or default_encoder(observation_space, sizes_of("hiddens", hiddens), style),
        size,
        whole("window", window, 2),
        heads,
        whole("blocks", blocks),
        activation,
        gain if orthogonal else None,
    )
