"""RLlib's default connector pieces, listed once, and the question what a pipeline has beside them.

Checked against ray 2.60.0: `AlgorithmConfig.build_env_to_module_connector` and `build_module_to_env_connector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.rllib.connectors import common, module_to_env

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
    """Whether a piece is RLlib's, or rlkit's of the same name in its place (`repairs`)."""
    kind = type(piece)
    return kind is default or (default in kind.__bases__ and kind.__name__ == default.__name__)
