"""Models inside models: an encoder by name, and the layers that the models of several parts share."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from rlkit import registry
from rlkit.errors import UsageError
from rlkit.models.dense import activation_class, orthogonal_
from rlkit.models.features import check_options, is_recurrent, zeros


def encoder_of(space: gym.Space, given: Mapping[str, Any], where: str) -> tuple[nn.Module, int]:
    """Build a registered model that keeps no state, and return it with its number of features.

    Args:
        space: what it sees.
        given: `{name: …, options…}`.
        where: what messages call the option, for instance `model.encoder`.

    Raises:
        UsageError: no name, an unknown one, a recurrent model, or an option that it does not take.
    """
    options = dict(given) if isinstance(given, Mapping) else {}
    name = options.pop("name", None)
    if name is None:
        raise UsageError(
            f"{where}: got {given!r}, expected a model by name, e.g. {{name: mlp, hiddens: [64]}}"
        )
    build = registry.resolve("models", name)
    check_options(name, build, options)
    module = build(copy.deepcopy(space), **options)
    if is_recurrent(module):
        raise UsageError(
            f"{where}: {name!r} is recurrent, expected a model without a state, such as mlp or cnn"
        )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        features = module(zeros(space, 2))
    if not isinstance(features, torch.Tensor) or features.dim() != 2:
        raise UsageError(f"{where}: {name!r} does not return features (B, F) for {space}")
    return module, int(features.shape[1])


def is_image(space: gym.Space) -> bool:
    """Whether a space is that of an image: height, width, channels."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 3


def default_encoder(space: gym.Space, hiddens: Sequence[int], style: Mapping[str, Any]) -> dict[str, Any]:
    """Return `cnn` for an image and `mlp` for the rest, in the given style.

    Args:
        hiddens: layers of an `mlp`; the last one is the dense layer of a `cnn`.
        style: activation, layer_norm, orthogonal, gain.
    """
    if is_image(space):
        return {"name": "cnn", "hidden": hiddens[-1], **style}
    return {"name": "mlp", "hiddens": list(hiddens), **style}


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


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return an option that is a whole number of at least `least`; a `UsageError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"model.{name}: got {value!r}, expected a whole number of at least {least}")
    return value


def sizes_of(name: str, values: Any, *, may_be_empty: bool = False) -> list[int]:
    """Return an option that is a list of layer sizes; a `UsageError` otherwise."""
    good = isinstance(values, list | tuple) and all(
        isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values
    )
    if not good or not (values or may_be_empty):
        raise UsageError(f"model.{name}: got {values!r}, expected a list of positive integers, e.g. [64, 64]")
    return list(values)


def fold(value: Any) -> Any:
    """Return nested tensors (B, T, …) as (B T, …)."""
    if isinstance(value, Mapping):
        return {key: fold(part) for key, part in value.items()}
    return tuple(map(fold, value)) if isinstance(value, tuple) else value.flatten(0, 1)


def lead_of(value: Any) -> tuple[int, int]:
    """Return (B, T) of nested tensors."""
    while not torch.is_tensor(value):
        value = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
    return int(value.shape[0]), int(value.shape[1])
