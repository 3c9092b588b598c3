"""`lstm` and `gru`: an encoder, then a recurrent layer over time.

LSTM: Hochreiter and Schmidhuber 1997; GRU: Cho et al., arXiv 1406.1078. Weights are orthogonal with gain 1 and biases
zero, as in the recurrent details of The 37 Implementation Details of PPO (Huang et al., 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from rlkit.models.encoders import default_encoder, encoder_of, fold, lead_of, sizes_of, whole


class Recurrent(nn.Module):
    """Encoder, then LSTM or GRU: observations (B, T, …) and state (B, cell) to features (B, T, cell) and state."""

    def __init__(
        self,
        space: gym.Space,
        kind: type[nn.LSTM] | type[nn.GRU],
        encoder: Mapping[str, Any],
        cell: int,
        layer_norm: bool,
        orthogonal: bool,
    ):
        super().__init__()
        self.encoder, features = encoder_of(space, encoder, "model.encoder")
        self.cell = kind(features, cell, batch_first=True)
        self.norm = nn.LayerNorm(cell) if layer_norm else nn.Identity()
        self.parts = ("h", "c") if kind is nn.LSTM else ("h",)
        if orthogonal:
            for name, value in self.cell.named_parameters():
                if "bias" in name:
                    nn.init.zeros_(value)
                else:
                    nn.init.orthogonal_(value, 1.0)

    def initial_state(self) -> dict[str, torch.Tensor]:
        return {part: torch.zeros(self.cell.hidden_size) for part in self.parts}

    def forward(
        self, observations: Any, state: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        inputs = self.encoder(fold(observations)).unflatten(0, lead_of(observations))
        before = tuple(state[part].unsqueeze(0).contiguous() for part in self.parts)
        features, after = self.cell(inputs, before if len(before) > 1 else before[0])
        after = after if isinstance(after, tuple) else (after,)
        return self.norm(features), {p: s.squeeze(0) for p, s in zip(self.parts, after, strict=True)}


def lstm(
    observation_space: gym.Space,
    *,
    cell: int = 128,
    hiddens: Sequence[int] = (64,),
    encoder: Mapping[str, Any] | None = None,
    activation: str = "tanh",
    layer_norm: bool = False,
    orthogonal: bool = True,
    gain: float = math.sqrt(2),
) -> nn.Module:
    """Long short-term memory behind an encoder.

    Args:
        cell: size of the hidden state, which is the number of features.
        hiddens: layers of the encoder, an `mlp`; for an image the last one is the dense layer of a `cnn`.
        encoder: another encoder in its place, by name with its options.
        activation, gain: of the encoder, as for `mlp`.
        layer_norm: in the encoder and on the features.
        orthogonal: orthogonal weights and zero biases, in the cell with gain 1.
    """
    style = {"activation": activation, "layer_norm": layer_norm, "orthogonal": orthogonal, "gain": gain}
    chosen = encoder or default_encoder(observation_space, sizes_of("hiddens", hiddens), style)
    return Recurrent(observation_space, nn.LSTM, chosen, whole("cell", cell), layer_norm, orthogonal)


def gru(
    observation_space: gym.Space,
    *,
    cell: int = 128,
    hiddens: Sequence[int] = (64,),
    encoder: Mapping[str, Any] | None = None,
    activation: str = "tanh",
    layer_norm: bool = False,
    orthogonal: bool = True,
    gain: float = math.sqrt(2),
) -> nn.Module:
    """Gated recurrent unit behind an encoder; options as for `lstm`."""
    style = {"activation": activation, "layer_norm": layer_norm, "orthogonal": orthogonal, "gain": gain}
    chosen = encoder or default_encoder(observation_space, sizes_of("hiddens", hiddens), style)
    return Recurrent(observation_space, nn.GRU, chosen, whole("cell", cell), layer_norm, orthogonal)
