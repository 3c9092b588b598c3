"""The environment of a recipe: a registered name first, then what `rlkit.envs.names` knows; always checked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from rlkit import registry


def make_env(name: str, env_config: Mapping[str, Any]) -> Any:
    """Create the environment of a recipe: a registered name first, then what `rlkit.envs.make_env` knows.

    Returns a `gymnasium.Env` or an RLlib `MultiAgentEnv`, wrapped in the contract checks of `rlkit.envs`; a vector
    environment, which RLlib asks for with `num_envs` (`gym_env_vectorize_mode: vector_entry_point`), as it is.
    """
    from gymnasium.vector import VectorEnv

    from rlkit.envs.contract import checked

    env = make_bare(name, env_config)
    return env if isinstance(env, VectorEnv) else checked(env)


def make_bare(name: str, env_config: Mapping[str, Any]) -> Any:
    """Create the same without contract checks, to read its spaces: RLlib is not imported for Gymnasium's."""
    from gymnasium.vector import VectorEnv

    from rlkit.envs import names

    if name not in registry.TABLES["envs"]:
        vector = "num_envs" in env_config and not names.is_multi_agent(
            name
        )  # VMAS has an argument of this name
        return (names.make_vector if vector else names.make_env)(name, env_config)
    env = registry.resolve("envs", name)(**env_config)
    return env if isinstance(env, VectorEnv) else names.adapt(env)


def env_creator(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return RLlib's `env_creator`: called in every process with an `EnvContext` that holds `env_config`."""
    return functools.partial(_create, name, registry.names())


def _create(name: str, names: registry.Names, context: Mapping[str, Any]) -> Any:
    names.load()
    return make_env(name, dict(context))
