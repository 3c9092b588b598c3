"""Connectors on arrays: what an env-to-module piece does to the observations of all environments at once.

A connector that stands in front of RLlib's default pieces and changes observations item by item can have a columnar
twin. It offers one with a method `arrays(num_envs) -> ArrayConnector`; for RLlib's own pieces the twins are here:
`FlattenObservations` and, for a Box, `MeanStdFilter`. A piece without a twin needs episodes.

Legend: N environments.
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.common.flatten_observations import FlattenObservations
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.utils.numpy import flatten_inputs_to_1d_tensor
from ray.rllib.utils.spaces import space_utils

from rlkit import rllib


class ArrayConnector(Protocol):
    """The columnar twin of a connector; it sees every iteration of all environments, in order."""

    def __call__(
        self, observations: Any, infos: list[Any], fresh: np.ndarray, times: np.ndarray
    ) -> tuple[Any, list[Any]]:
        """Return observations and infos as the connector would leave them in the episodes.

        Args:
            observations: nested (N, ...), what the environments returned, or the connector before this one did.
            infos: N dicts; a changed one is a new dict.
            fresh: (N,) bool, environments that were just reset.
            times: (N,) steps in the episode.
        """


def array_connector(piece: Any, num_envs: int) -> ArrayConnector | None:
    """Return the twin of a connector; None if it has none."""
    offered = getattr(piece, "arrays", None)
    if offered is not None:
        return offered(num_envs)
    if type(piece) is FlattenObservations and not rllib.flattens_for_learner(piece):
        return Flatten(piece)
    if type(piece) is MeanStdFilter and isinstance(piece.input_observation_space, gym.spaces.Box):
        return Normalise(piece)
    return None


class Flatten:
    """RLlib's FlattenObservations: one float32 vector of Boxes and one-hots."""

    def __init__(self, piece: Any):
        self.without = rllib.removed_keys(piece)
        struct = space_utils.get_base_struct_from_space(piece.input_observation_space)
        self.struct = self._kept(struct)

    def _kept(self, value: Any) -> Any:
        return {k: v for k, v in value.items() if k not in self.without} if self.without else value

    def __call__(
        self, observations: Any, infos: list[Any], fresh: np.ndarray, times: np.ndarray
    ) -> tuple[Any, list[Any]]:
        return flatten_inputs_to_1d_tensor(self._kept(observations), self.struct, batch_axis=True), infos


class Normalise:
    """RLlib's MeanStdFilter: each environment's observation enters the statistics, in their order, and is scaled."""

    def __init__(self, piece: Any):
        self.piece = piece

    def __call__(
        self, observations: Any, infos: list[Any], fresh: np.ndarray, times: np.ndarray
    ) -> tuple[Any, list[Any]]:
        normalised = rllib.observation_filter(self.piece)
        return np.stack([normalised(observation) for observation in observations]), infos
