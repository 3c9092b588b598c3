"""When can steps be written into columns, and when does somebody need RLlib's episodes?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors import common, module_to_env

from rlkit import rllib
from rlkit.algos.sampling.per_episode import PerEpisode

OBSERVING = (
    common.AddObservationsFromEpisodesToBatch,
    common.AddTimeDimToBatchAndZeroPad,
    common.AddStatesFromEpisodesToBatch,
    common.AgentToModuleMapping,
    common.BatchIndividualItems,
    common.NumpyToTensor,
)
ACTING = (
    module_to_env.GetActions,
    module_to_env.TensorToNumpy,
    module_to_env.UnBatchToIndividualItems,
    module_to_env.ModuleToAgentUnmapping,
    module_to_env.RemoveSingleTsTimeRankFromBatch,
    module_to_env.NormalizeAndClipActions,
    module_to_env.ListifyDataForVectorEnv,
)
PLAIN_ACTIONS = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete)


def hooks(env_runner: Any, name: str) -> Iterator[Callable[..., Any]]:
    """Yield what the config's callbacks do in hook `name`: overridden methods and given functions."""
    for callback in rllib.runner_callbacks(env_runner):
        if getattr(type(callback), name) is not getattr(RLlibCallback, name):
            yield getattr(callback, name)
    given = getattr(env_runner.config, f"callbacks_{name}")
    yield from given if isinstance(given, list | tuple) else [given] if given else []


def names(env_runner: Any, name: str, argument: str) -> bool:
    """Whether a hook reads an argument: RLlib passes all by keyword, and a hook names those it reads."""
    return any(argument in inspect.signature(hook).parameters for hook in hooks(env_runner, name))


def needs_episodes(env_runner: Any) -> str | None:
    """Return why a multi-agent runner has to sample RLlib's episodes, or None.

    A module says so itself with a true attribute `needs_episodes` (a policy that is drawn anew in every episode).
    """
    config, module = env_runner.config, env_runner.module
    if config.batch_mode != "truncate_episodes":
        return f"batch_mode is {config.batch_mode!r}"
    for module_id in module.keys():  # noqa: SIM118 - no dict
        part = module[module_id].unwrapped()
        if part.is_stateful():
            return f"module {module_id!r} is recurrent"
        if getattr(part, "needs_episodes", False):
            return f"module {module_id!r} ({type(part).__name__}) follows episodes"
    for pipeline, expected in zip(rllib.runner_pipelines(env_runner), (OBSERVING, ACTING), strict=True):
        pieces = [piece for piece in pipeline.connectors if not isinstance(piece, PerEpisode)]
        extra = [type(piece).__name__ for piece in pieces if type(piece) not in expected]
        if extra:
            return f"the connectors {', '.join(extra)} read episodes"
        if len(pieces) != len(expected):
            return "a default connector is missing"
    for hook in hooks(env_runner, "on_episode_step"):
        return f"{_owner(hook)}.on_episode_step looks at every step"
    for hook in hooks(env_runner, "on_sample_end"):
        if "samples" in inspect.signature(hook).parameters:
            return f"{_owner(hook)}.on_sample_end reads the sampled episodes"
    for agent, space in env_runner.roster.action_spaces.items():
        if not isinstance(space, PLAIN_ACTIONS):
            return f"the actions of agent {agent!r} are {space}"
    return None


def _owner(hook: Callable[..., Any]) -> str:
    owner = getattr(hook, "__self__", None)
    return type(owner).__name__ if owner is not None else getattr(hook, "__qualname__", repr(hook))
