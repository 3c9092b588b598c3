"""`cnn`: convolutions for channel-last images, plain ones or the residual blocks of IMPALA."""

from __future__ import annotations

import math
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rlkit.errors import UsageError
from rlkit.models.dense import activation_class, orthogonal_

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # Mnih et al. 2015, for 84x84; fits sides of 36 and more
SMALL = ((16, 3, 1, 1), (32, 3, 1, 1))  # keeps the size of a small grid


class Residual(nn.Module):
    """x + convolutions of x, which keep the size: one half of a stage of IMPALA's network."""

    def __init__(self, channels: int, activation: type[nn.Module], gain: float | None):
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        if gain is not None:
            convolutions = [orthogonal_(layer, gain) for layer in convolutions]
        self.layers = nn.Sequential(activation(), convolutions[0], activation(), convolutions[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def impala_stages(
    channels: int, stages: Sequence[int], activation: type[nn.Module], gain: float | None
) -> list[nn.Module]:
    """Return a 3x3 convolution, a maximum over 3x3 with stride 2, and two residual blocks, once per stage.

    Espeholt et al., IMPALA, arXiv 1802.01561, figure 3.
    """
    layers: list[nn.Module] = []
    for out in stages:
        first = nn.Conv2d(channels, out, 3, padding=1)
        layers += [first if gain is None else orthogonal_(first, gain), nn.MaxPool2d(3, 2, padding=1)]
        layers += [Residual(out, activation, gain) for _ in range(2)]
        channels = out
    return [*layers, activation()]


class CNN(nn.Module):
    """Scale, convolve, flatten, one dense layer. (B, H, W, C) -> (B, hidden)."""

    def __init__(
        self,
        space: gym.spaces.Box,
        filters: Sequence[Sequence[int]],
        impala: Sequence[int],
        hidden: int,
        activation: str,
        layer_norm: bool,
        gain: float | None,
    ):
        super().__init__()
        kind = activation_class(activation)
        low, high = float(space.low.min()), float(space.high.max())
        bounded = bool(np.isfinite(low) and np.isfinite(high) and high > low)
        self.low, self.range = (low, high - low) if bounded else (0.0, 1.0)
        height, width, channels = space.shape
        layers: list[nn.Module] = []
        for number, row in enumerate(filters):
            out, kernel, stride, padding = (*row, 0) if len(row) == 3 else row
            if min(height, width) + 2 * padding < kernel:
                raise UsageError(
                    f"model.filters[{number}]: the kernel of {kernel} does not fit its input of {height}x{width}; use "
                    "smaller kernels or strides, or a fourth number for padding"
                )
            layer = nn.Conv2d(channels, out, kernel, stride, padding)
            layers += [layer if gain is None else orthogonal_(layer, gain), kind()]
            height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
            channels = out
        for _ in impala:
            height, width = (height + 1) // 2, (width + 1) // 2
        if impala:
            layers += impala_stages(channels, impala, kind, gain)
            channels = impala[-1]
        dense = nn.Linear(height * width * channels, hidden)
        layers += [nn.Flatten(), dense if gain is None else orthogonal_(dense, gain)]
        if layer_norm:
            layers.append(nn.LayerNorm(hidden))
        self.layers = nn.Sequential(*layers, kind())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(((image - self.low) / self.range).permute(0, 3, 1, 2))


def cnn(
    observation_space: gym.Space,
    *,
    filters: Sequence[Sequence[int]] | None = None,
    impala: Sequence[int] | None = None,
    hidden: int = 512,
    activation: str = "relu",
    layer_norm: bool = False,
    orthogonal: bool = True,
    gain: float = math.sqrt(2),
) -> nn.Module:
    """Convolutions and a dense layer for one image, channels last; a bounded image is scaled to 0…1.

    Args:
        filters: rows of [channels, kernel, stride] or [channels, kernel, stride, padding]. Default: those of
            the Nature DQN for sides of 36 pixels and more, else two 3x3 layers that keep the size.
        impala: channels of each stage of IMPALA's residual network, in place of `filters`; the paper's are
            [16, 32, 32], with `hidden` 256.
        hidden: size of the dense layer, which is the number of features.
        activation, orthogonal, gain: as for `mlp`.
        layer_norm: normalise the dense layer's output before its activation.
    """
    if not isinstance(observation_space, gym.spaces.Box) or len(observation_space.shape) != 3:
        raise UsageError(
            f"the model 'cnn' takes an image (height, width, channels), got {observation_space}; use 'mlp'"
        )
    if impala is not None:
        if filters is not None:
            raise UsageError("model.impala and model.filters: give one of them")
        if not impala or any(not isinstance(out, int) or out < 1 for out in impala):
            raise UsageError(
                f"model.impala: got {impala!r}, expected channels of each stage, e.g. [16, 32, 32]"
            )
        filters = []
    rows = filters if filters is not None else (NATURE if min(observation_space.shape[:2]) >= 36 else SMALL)
    for number, row in enumerate(rows):
        if len(row) not in (3, 4) or any(not isinstance(value, int) for value in row):
            raise UsageError(
                f"model.filters[{number}]: got {row!r}, expected [channels, kernel, stride] and perhaps padding"
            )
    return CNN(
        observation_space, rows, impala or (), hidden, activation, layer_norm, gain if orthogonal else None
    )
