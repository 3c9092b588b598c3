"""The acting core as torch modules without episodes, so that a whole policy can be traced and exported.

A *piece* stands for one connector of the env-to-module pipeline: what it does to the observations of B rows, with its
state and what it needs beside observations as plain tensors. RLlib's `FlattenObservations` and `MeanStdFilter` have one
here; any connector gets one by a method

    graph(agent) -> Piece                     # agent: None in an environment with one agent

A state begins with zeros when an episode begins. Checked against ray 2.60.0.

Legend: B rows. "Nested" means tensors in dicts and tuples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
from ray.rllib.core.columns import Columns
from torch import nn

from rlkit import rllib
from rlkit.algos.sampling.acting import map_tensors
from rlkit.algos.sampling.connectors import OBSERVING, extras
from rlkit.errors import UsageError
from rlkit.roster import flat

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")


@dataclass(frozen=True)
class Tensor:
    """What a tensor looks like without its first dimension, B.

    Attributes:
        shape: behind B.
        dtype: torch's name of it, one of `DTYPES`.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @classmethod
    def of(cls, space: gym.Space) -> Tensor:
        """Return what the values of a space without parts are.

        Raises:
            UsageError: values that are no tensors.
        """
        dtype = np.dtype(space.dtype).name if space.dtype is not None else "?"
        if space.shape is None or dtype not in DTYPES:
            raise UsageError(
                f"{space} cannot be exported: its values are {dtype}, expected one of {', '.join(DTYPES)}"
            )
        return cls(tuple(space.shape), dtype)


class Piece(nn.Module):
    """One connector on tensors.

    Attributes:
        inputs: what it needs beside observations, by name.
        state: what it hands on to itself, by name; zeros when an episode begins.
        feed: where a bundle gets `inputs` from, as JSON (`rlkit.play.graph_policy`); None where there are none.
    """

    inputs: Mapping[str, Tensor] = {}
    state: Mapping[str, Tensor] = {}
    feed: Mapping[str, Any] | None = None

    def forward(
        self, batch: dict[str, Any], given: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the module's batch, its observations replaced or a column added, and the next state.

        Args:
            batch: nested (B, ...) by column; `Columns.OBS` are the observations.
            given, state: (B, ...) each, as `inputs` and `state` name them.
        """
        raise NotImplementedError


def leaves(space: gym.Space, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], gym.Space]]:
    """Yield path and space of every part of a space that has no parts itself, in the order of its keys."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        named = isinstance(space, gym.spaces.Dict)
        for key, part in space.spaces.items() if named else enumerate(space.spaces):
            yield from leaves(part, (*path, str(key)))
    else:
        yield path, space


def nest(space: gym.Space, values: Iterator[Any]) -> Any:
    """Return values, one per leaf of a space in their order, nested like the space."""
    if isinstance(space, gym.spaces.Dict):
        return {key: nest(part, values) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(nest(part, values) for part in space.spaces)
    return next(values)


def pieces_of(pipeline: Any, agent: Any, multi_agent: bool) -> list[Piece]:
    """Return the pieces of an env-to-module pipeline for one agent, in their order.

    Args:
        pipeline: RLlib's; its statistics are taken as they are.
        agent: whose observations; None for the only one.

    Raises:
        UsageError: a connector that has no piece; names it.
    """
    found = extras(pipeline, OBSERVING, multi_agent)
    if found is None:
        names = [type(piece).__name__ for piece in pipeline.connectors]
        raise UsageError(
            f"the env-to-module pipeline {names} lacks RLlib's default pieces, so it cannot be exported"
        )
    pieces = [_piece(connector, agent) for connector in found]
    return [piece for piece in pieces if piece is not None]


def _piece(connector: Any, agent: Any) -> Piece | None:
    offered = getattr(connector, "graph", None)
    if offered is not None:
        return offered(agent)
    space = connector.input_observation_space
    space = space if agent is None else space[agent]
    if type(connector) is FlattenObservations:
        return Flatten(space, rllib.removed_keys(connector))
    if type(connector) is MeanStdFilter:
        return Normalise(space, rllib.filter_of(connector, agent))
    raise UsageError(
        f"the connector {type(connector).__name__} cannot be exported: rlkit knows what FlattenObservations and "
        "MeanStdFilter do; give yours a method graph(agent) that returns a Piece (rlkit.algos.sampling.graph)"
    )


class Flatten(Piece):
    """RLlib's FlattenObservations: one float32 vector of Boxes and one-hots, keys in alphabetical order."""

    def __init__(self, space: gym.Space, without: tuple[str, ...]):
        super().__init__()
        if without:
            raise UsageError(
                f"FlattenObservations(keys_to_remove={list(without)}) cannot be exported; keep all keys"
            )
        self.source: gym.Space = space
        self.leaves = [part for _, part in leaves(space)]
        # RLlib flattens with `tree`, which sorts keys; a space keeps the order it was given.
        self.order: list[int] = tree.flatten(nest(space, iter(range(len(self.leaves)))))

    def forward(
        self, batch: dict[str, Any], given: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        values = flat(self.source, batch[Columns.OBS])
        parts = [_vector(self.leaves[i], values[i]) for i in self.order]
        return {**batch, Columns.OBS: parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)}, {}


def _width(space: gym.Space) -> int:
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return int(np.prod(space.shape or ()))


def _one_hot(value: torch.Tensor, n: int) -> torch.Tensor:
    return (value.long().unsqueeze(-1) == torch.arange(n, device=value.device)).float()


def _vector(space: gym.Space, value: torch.Tensor) -> torch.Tensor:
    """Return values of a leaf (B, ...) as (B, width)."""
    if isinstance(space, gym.spaces.Discrete):
        return _one_hot(value, int(space.n))
    if isinstance(space, gym.spaces.MultiDiscrete):
        return torch.cat([_one_hot(value[:, i], int(n)) for i, n in enumerate(space.nvec)], dim=-1)
    return value.reshape(value.shape[0], _width(space)).float()


class Normalise(Piece):
    """RLlib's MeanStdFilter with the statistics it has: (x - mean) / (std + 1e-8), clipped, in float64."""

    def __init__(self, space: gym.Space, statistics: Any):
        super().__init__()
        self.space = space
        self.clip, self.demean, self.destd = statistics.clip, statistics.demean, statistics.destd
        for i, running in enumerate(tree.flatten(statistics.running_stats)):
            self.register_buffer(f"mean_{i}", torch.as_tensor(np.asarray(running.mean, np.float64)))
            self.register_buffer(f"std_{i}", torch.as_tensor(np.asarray(running.std, np.float64)))
        self.order: list[int] = tree.flatten(nest(space, iter(range(len(list(leaves(space)))))))

    def forward(
        self, batch: dict[str, Any], given: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        values = flat(self.space, batch[Columns.OBS])
        for i, place in enumerate(self.order):
            x = values[place].double()
            if self.demean:
                x = x - getattr(self, f"mean_{i}")
            if self.destd:
                x = x / (getattr(self, f"std_{i}") + 1e-8)
            if self.clip:
                x = x.clamp(-self.clip, self.clip)
            values[place] = x.to(values[place].dtype)
        return {**batch, Columns.OBS: nest(self.space, iter(values))}, {}


class Scale(Piece):
    """(x - mean) / deviation, clipped, for one Box, in float64."""

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, clip: float):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.as_tensor(np.asarray(mean, np.float64)))
        self.register_buffer("deviation", torch.as_tensor(np.asarray(deviation, np.float64)))

    def forward(
        self, batch: dict[str, Any], given: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        scaled = (batch[Columns.OBS].double() - self.mean) / self.deviation
        return {**batch, Columns.OBS: scaled.clamp(-self.clip, self.clip).float()}, {}


def as_module_input(observations: Any) -> Any:
    """Return nested observations as the acting core's `stack` makes them: float64 becomes float32."""
    return map_tensors(lambda x: x.float() if x.dtype == torch.float64 else x, observations)
