"""Connectors: RLlib's default pieces and two of them made right, and those that work without episodes.

The env runners on arrays and the agents skip RLlib's default pieces, since the acting core does the same on arrays
(`OBSERVING`, `ACTING`, `extras`; checked against ray 2.60.0, `AlgorithmConfig.build_env_to_module_connector` and
`build_module_to_env_connector`). Where RLlib's pipelines act, `repair` puts two pieces in the place of
its own. They carry RLlib's names, so that states and checkpoints of pipelines with either fit each other.

Beside the default pieces an array runner can have

- a connector with a columnar twin, which does to the observations of all environments at once what the piece does item
  by item: RLlib's `FlattenObservations` and, for a Box, `MeanStdFilter`, and any piece with a method
  `arrays(num_envs) -> ArrayConnector` (`rlkit.algos.sampling.normalise`);
- in a team, a `PerEpisode`, whose column stays the same for an agent as long as its episode lasts: RLlib's runner calls
  it in every step, the joint runner asks once per episode.

Legend: N environments.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from ray.rllib.connectors import common, module_to_env
from ray.rllib.connectors.common.flatten_observations import FlattenObservations
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.numpy import flatten_inputs_to_1d_tensor
from ray.rllib.utils.spaces import space_utils

from rlkit import rllib
from rlkit.algos.sampling.acting import Chooser
from rlkit.algos.sampling.actions import ActionMap
from rlkit.replay.ring import Fragment

OBSERVING: tuple[type, ...] = (
    common.AddObservationsFromEpisodesToBatch,
    common.AddTimeDimToBatchAndZeroPad,
    common.AddStatesFromEpisodesToBatch,
    common.AgentToModuleMapping,
    common.BatchIndividualItems,
    common.NumpyToTensor,
)
ACTING: tuple[type, ...] = (
    module_to_env.GetActions,
    module_to_env.TensorToNumpy,
    module_to_env.UnBatchToIndividualItems,
    module_to_env.ModuleToAgentUnmapping,
    module_to_env.RemoveSingleTsTimeRankFromBatch,
    module_to_env.NormalizeAndClipActions,
    module_to_env.ListifyDataForVectorEnv,
)
ONLY_MULTI_AGENT = (common.AgentToModuleMapping, module_to_env.ModuleToAgentUnmapping)


def is_multi_agent(env_to_module: Any) -> bool:
    """Whether a pipeline is one of several agents."""
    return any(isinstance(piece, common.AgentToModuleMapping) for piece in env_to_module.connectors)


def defaults(pieces: Sequence[type], multi_agent: bool) -> list[type]:
    """Return the default pieces of a pipeline with one agent, or with several."""
    return [piece for piece in pieces if multi_agent or piece not in ONLY_MULTI_AGENT]


def extras(pipeline: Any, pieces: Sequence[type], multi_agent: bool) -> list[Any] | None:
    """Return what a pipeline has beside the default pieces, in its order; None if one of those is missing.

    Args:
        pipeline: an env-to-module or module-to-env pipeline.
        pieces: `OBSERVING` or `ACTING`.
        multi_agent: see `is_multi_agent`.
    """
    expected = defaults(pieces, multi_agent)
    found = []
    for piece in pipeline.connectors:
        if expected and _stands_for(piece, expected[0]):
            expected.pop(0)
        else:
            found.append(piece)
    return None if expected else found


def _stands_for(piece: Any, default: type) -> bool:
    """Whether a piece is RLlib's, or rlkit's of the same name in its place (`repair`)."""
    kind = type(piece)
    return kind is default or (default in kind.__bases__ and kind.__name__ == default.__name__)


# Two default pieces made right -------------------------------------------------------------------------------


class GetActions(module_to_env.GetActions):
    """Through `Chooser`: RLlib's fails for the log-probability of the greedy action of a Dict or Tuple space."""

    def __call__(
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: list[Any],
        explore: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        several = isinstance(episodes[0], MultiAgentEpisode)
        for module_id, out in list(batch.items()) if several else [(None, batch)]:
            if Columns.ACTIONS in out or Columns.ACTION_DIST_INPUTS not in out:
                continue
            choice = Chooser(rl_module[module_id] if several else rl_module, bool(explore))(out, logp=True)
            out[Columns.ACTIONS], out[Columns.ACTION_LOGP] = choice.actions, choice.logp
        return batch


class NormalizeAndClipActions(module_to_env.NormalizeAndClipActions):
    """Through `ActionMap`: what leaves it lies in the environment's space."""

    def recompute_output_action_space(
        self, input_observation_space: gym.Space, input_action_space: gym.Space
    ) -> gym.Space:
        self._maps: dict[Any, ActionMap] = {}
        return super().recompute_output_action_space(input_observation_space, input_action_space)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what makes an equal piece; RLlib notes it only for a class with an `__init__` of its own."""
        return (), {
            "input_observation_space": self.input_observation_space,
            "input_action_space": self.input_action_space,
            "normalize_actions": self.normalize_actions,
            "clip_actions": self.clip_actions,
        }

    def map_of(self, agent: Any) -> ActionMap:
        """Return the map of an agent's actions; None: of the only agent."""
        if agent not in self._maps:
            space: Any = self.input_action_space
            space = space if agent is None else space[agent]
            self._maps[agent] = ActionMap(space, self.normalize_actions, self.clip_actions)
        return self._maps[agent]

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        batch[Columns.ACTIONS_FOR_ENV] = copy.deepcopy(batch[Columns.ACTIONS])
        self.foreach_batch_item_change_in_place(
            batch=batch,
            column=Columns.ACTIONS_FOR_ENV,
            func=lambda action, episode, agent, module: self.map_of(agent).one(action),
        )
        return batch


def repair(pipeline: Any) -> None:
    """Put the two pieces above into the place of RLlib's in a module-to-env pipeline."""
    for i, piece in enumerate(pipeline.connectors):
        spaces = piece.input_observation_space, piece.input_action_space
        if type(piece) is module_to_env.GetActions:
            pipeline.connectors[i] = GetActions(*spaces)
        elif type(piece) is module_to_env.NormalizeAndClipActions:
            pipeline.connectors[i] = NormalizeAndClipActions(
                *spaces, normalize_actions=piece.normalize_actions, clip_actions=piece.clip_actions
            )


# Columnar twins ----------------------------------------------------------------------------------------------


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


# The same for a whole episode --------------------------------------------------------------------------------


class PerEpisode(ConnectorV2):
    """Adds `column`, one int64 per row, to the batches of modules that act.

    Attributes:
        column: its name in a module's batch.
    """

    column: str

    def value(self, episode_id: str, custom_data: Mapping[str, Any], agent: str) -> int:
        """Return what all rows of an agent have in this episode."""
        raise NotImplementedError

    def mark(self, fragment: Fragment, episode_id: str, custom_data: Mapping[str, Any]) -> Fragment:
        """Return a joint fragment of the episode with the columns that the replay wants to have."""
        return fragment

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        custom = {episode.id_: episode.custom_data for episode in episodes}
        column = {}
        for key, rows in batch.get(Columns.OBS, {}).items():  # nobody acts after the last step of an episode
            value = self.value(key[0], custom.get(key[0], {}), str(key[1]))
            column[key] = [np.int64(value)] * len(rows)
        if column:
            batch[self.column] = column
        return batch
