"""`mlp`: fully connected layers, with layer norm and orthogonal initialisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from rlkit.errors import UsageError, did_you_mean
from rlkit.models.features import UNBOUNDED, zeros

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "linear": nn.Identity,
}


def activation_class(name: str) -> type[nn.Module]:
    """Look an activation up; a `UsageError` names the closest one."""
    if name not in ACTIVATIONS:
        raise UsageError(
            f"model.activation: got {name!r}{did_you_mean(name, ACTIVATIONS)}; expected one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def orthogonal_(layer: nn.Module, gain: float) -> nn.Module:
    """Give a linear or convolution layer orthogonal weights times `gain`, and a bias of zero."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def linear(inputs: int, outputs: int, gain: float | None) -> nn.Linear:
    """Return a linear layer, orthogonal with zero biases unless `gain` is None."""
    layer = nn.Linear(inputs, outputs)
    return layer if gain is None else orthogonal_(layer, gain)


def stack(
    inputs: int, sizes: Sequence[int], activation: str, layer_norm: bool, gain: float | None
) -> nn.Module:
    """Return linear layers on (…, inputs), each with its norm (if asked for) and activation."""
    kind = activation_class(activation)
    layers: list[nn.Module] = []
    for size in sizes:
        layers.append(linear(inputs, size, gain))
        if layer_norm:
            layers.append(nn.LayerNorm(size))
        layers.append(kind())
        inputs = size
    return nn.Sequential(*layers)


def sizes_of(name: str, values: Any) -> list[int]:
    """Return an option that is a list of layer sizes; a `UsageError` otherwise."""
    good = isinstance(values, list | tuple) and all(
        isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values
    )
    if not good or not values:
        raise UsageError(f"model.{name}: got {values!r}, expected a list of positive integers, e.g. [64, 64]")
    return list(values)


def flatten(observation: Any) -> torch.Tensor:
    """Lay observations, nested ones key by key, side by side: (B, O)."""
    if isinstance(observation, dict):
        return torch.cat([flatten(observation[key]) for key in observation], dim=-1)
    if isinstance(observation, tuple):
        return torch.cat([flatten(part) for part in observation], dim=-1)
    return observation.flatten(1) if observation.dim() > 1 else observation.unsqueeze(1)


class MLP(nn.Module):
    """Linear, LayerNorm if asked for, activation; once per hidden size. (B, …) -> (B, hiddens[-1])."""

    def __init__(
        self,
        inputs: int,
        hiddens: Sequence[int],
        activation: str,
        layer_norm: bool,
        gain: float | None,
        bounds: tuple[torch.Tensor, torch.Tensor] | None = None,
    ):
        super().__init__()
        self.scales = bounds is not None
        if bounds is not None:
            self.register_buffer("middle", (bounds[0] + bounds[1]) / 2, persistent=False)
            self.register_buffer("radius", (bounds[1] - bounds[0]) / 2, persistent=False)
        self.layers = stack(inputs, hiddens, activation, layer_norm, gain)

    def forward(self, observation: Any) -> torch.Tensor:
        inputs = flatten(observation)
        return self.layers((inputs - self.middle) / self.radius if self.scales else inputs)


def bounds_of(space: gym.Space) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lower and upper bound of each flattened dimension; -1 and 1 where a side is unbounded."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else space.spaces
        lows, highs = zip(*map(bounds_of, parts), strict=True)
        return torch.cat(lows), torch.cat(highs)
    if not isinstance(space, gym.spaces.Box):
        size = flatten(zeros(space, 1)).shape[1]
        return -torch.ones(size), torch.ones(size)
    low = torch.from_numpy(space.low.astype("float32")).flatten()
    high = torch.from_numpy(space.high.astype("float32")).flatten()
    bounded = (low.abs() < UNBOUNDED) & (high.abs() < UNBOUNDED) & (high > low)
    return torch.where(bounded, low, -1.0), torch.where(bounded, high, 1.0)


def mlp(
    observation_space: gym.Space,
    *,
    hiddens: Sequence[int] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    orthogonal: bool = True,
    gain: float = math.sqrt(2),
    scale: bool = False,
) -> nn.Module:
    """Fully connected layers for observations of any kind; images and nested observations are flattened.

    Args:
        hiddens: size of each layer; the last one is the number of features.
        activation: relu, tanh, elu, gelu, silu, leaky_relu or linear.
        layer_norm: normalise each layer's output before its activation.
        orthogonal: orthogonal weights and zero biases instead of torch's initialisation.
        gain: of the orthogonal weights; √2, as in the 37 details of PPO (Huang et al., 2022).
        scale: map every bounded dimension of the observation space to -1…1 before the first layer.
    """
    sizes = sizes_of("hiddens", hiddens)
    inputs = flatten(zeros(observation_space, 1)).shape[1]
    bounds = bounds_of(observation_space) if scale else None
    return MLP(inputs, sizes, activation, layer_norm, gain if orthogonal else None, bounds)
