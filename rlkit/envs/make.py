"""The environment of a recipe: a registered name first, then what `rlkit.envs.names` knows; always checked."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from rlkit import registry


def make_env(name: str, env_config: Mapping[str, Any], imports: Sequence[str] = ()) -> Any:
    """Create the environment of a recipe: a registered name first, then what `rlkit.envs.make_env` knows.

    Returns a `gymnasium.Env` or an RLlib `MultiAgentEnv`, wrapped in the contract checks of `rlkit.envs`.
    """
    from gymnasium.vector import VectorEnv

    from rlkit import envs

    registry.load_plugins(imports)
    if name in registry.TABLES["envs"]:
        env = registry.resolve("envs", name)(**env_config)
        # RLlib asks for this, with num_envs, under gym_env_vectorize_mode: vector_entry_point.
        if isinstance(env, VectorEnv):
            return env
        env = envs.adapt(env)
    else:
        env = envs.make_env(name, dict(env_config))
    return envs.checked(env)


def env_creator(name: str, imports: Sequence[str] = ()) -> Any:
    """Return RLlib's `env_creator`: called in every process with an `EnvContext` that holds `env_config`."""
    own = [
        (kind, entry)
        for kind, entry in registry.own_entries(imports)
        if kind == "envs" and entry.name == name
    ]
    return functools.partial(_create, name, tuple(imports), own)


def _create(
    name: str, imports: tuple[str, ...], own: Sequence[tuple[str, registry.Entry]], context: Mapping[str, Any]
) -> Any:
    registry.add_entries(own)
    return make_env(name, dict(context), imports)
