"""Models inside models: an encoder by name, and what the models of several parts share."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from rlkit import registry
from rlkit.errors import UsageError
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


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return an option that is a whole number of at least `least`; a `UsageError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"model.{name}: got {value!r}, expected a whole number of at least {least}")
    return value


def fold(value: Any) -> Any:
    """Return nested tensors (B, T, …) as (B T, …)."""
    if isinstance(value, Mapping):
        return {key: fold(part) for key, part in value.items()}
    return tuple(map(fold, value)) if isinstance(value, tuple) else value.flatten(0, 1)


def lead_of(value: Any) -> tuple[int, int]:
    """Return (B, T) of nested tensors; as they are, since `int` would fix their number in an export."""
    while not torch.is_tensor(value):
        value = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
    return value.shape[0], value.shape[1]
