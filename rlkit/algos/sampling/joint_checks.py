"""When can steps be written into columns, and when does somebody need RLlib's episodes?"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rlkit import rllib
from rlkit.algos.sampling import hooks, pipelines
from rlkit.algos.sampling.per_episode import PerEpisode

PLAIN_ACTIONS = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete)


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
    for pipeline, expected in zip(
        rllib.runner_pipelines(env_runner), (pipelines.OBSERVING, pipelines.ACTING), strict=True
    ):
        beside = pipelines.extras(pipeline, expected, multi_agent=True)
        if beside is None:
            return "a default connector is missing"
        extra = [type(piece).__name__ for piece in beside if not isinstance(piece, PerEpisode)]
        if extra:
            return f"the connectors {', '.join(extra)} read episodes"
    for hook in hooks.hooks(env_runner, "on_episode_step"):
        return f"{hooks.owner(hook)}.on_episode_step looks at every step"
    reader = hooks.reads(env_runner, "on_sample_end", "samples")
    if reader:
        return f"{reader} reads the sampled episodes"
    for agent, space in env_runner.roster.action_spaces.items():
        if not isinstance(space, PLAIN_ACTIONS):
            return f"the actions of agent {agent!r} are {space}"
    return None
