"""`multi_input`: an encoder for each key of a Dict or Tuple, and layers that fuse what they return."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from rlkit.errors import UsageError, did_you_mean
from rlkit.models.encoders import default_encoder, encoder_of, sizes_of, stack


class MultiInput(nn.Module):
    """Encoders side by side, then layers: nested observations to features (B, fuse[-1])."""

    def __init__(self, paths: Sequence[tuple[Any, ...]], encoders: Sequence[nn.Module], fuse: nn.Module):
        super().__init__()
        self.paths = list(paths)
        self.encoders, self.fuse = nn.ModuleList(encoders), fuse

    def forward(self, observation: Any) -> torch.Tensor:
        features = []
        for path, encoder in zip(self.paths, self.encoders, strict=True):
            part = observation
            for key in path:
                part = part[key]
            features.append(encoder(part))
        return self.fuse(torch.cat(features, dim=-1))


def parts_of(
    space: gym.Space, named: Mapping[str, Any], path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], gym.Space]]:
    """Yield path and space of each part: the leaves, and whatever `named` has an encoder for."""
    name = "/".join(map(str, path))
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple) and (not path or name not in named):
        items = space.spaces.items() if isinstance(space, gym.spaces.Dict) else enumerate(space.spaces)
        for key, part in items:
            yield from parts_of(part, named, (*path, key))
    else:
        yield path, space


def multi_input(
    observation_space: gym.Space,
    *,
    encoders: Mapping[str, Mapping[str, Any]] | None = None,
    hiddens: Sequence[int] = (64,),
    fuse: Sequence[int] = (256,),
    activation: str = "relu",
    layer_norm: bool = False,
    orthogonal: bool = True,
    gain: float = math.sqrt(2),
) -> nn.Module:
    """An encoder per key of a Dict or Tuple: `cnn` for images, `mlp` for vectors and one-hots, then `fuse`.

    Args:
        encoders: other encoders by key (`outer/inner` below a Dict, the position in a Tuple), by name with options.
        hiddens: layers of an `mlp`; the last one is the dense layer of a `cnn`.
        fuse: layers on all features side by side; the last one is the number of features.
        activation, layer_norm, orthogonal, gain: as for `mlp`, in all parts without an encoder of their own.
    """
    if not isinstance(observation_space, gym.spaces.Dict | gym.spaces.Tuple):
        raise UsageError(
            f"the model 'multi_input' takes a Dict or Tuple, got {observation_space}; use 'mlp' or 'cnn'"
        )
    given = {str(key): options for key, options in (encoders or {}).items()}
    style = {"activation": activation, "layer_norm": layer_norm, "orthogonal": orthogonal, "gain": gain}
    parts = list(parts_of(observation_space, given))
    names = ["/".join(map(str, path)) for path, _ in parts]
    for key in given:
        if key not in names:
            raise UsageError(
                f"model.encoders.{key}: there is no such part{did_you_mean(key, names)}; expected one of "
                f"{', '.join(names)}"
            )
    built = [
        encoder_of(
            space,
            given.get(name) or default_encoder(space, sizes_of("hiddens", hiddens), style),
            f"model.encoders.{name}",
        )
        for name, (_, space) in zip(names, parts, strict=True)
    ]
    width = sum(size for _, size in built)
    top = stack(width, sizes_of("fuse", fuse), activation, layer_norm, gain if orthogonal else None)
    return MultiInput([path for path, _ in parts], [module for module, _ in built], top)
