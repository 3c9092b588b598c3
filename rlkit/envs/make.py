"""The environment of a recipe: a registered name first, then what `rlkit.envs.names` knows; always checked."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from rlkit import registry
from rlkit.errors import EnvError


def make_env(
    name: str, env_config: Mapping[str, Any], *, run: str | None = None, limit_s: float | None = None
) -> Any:
    """Create the environment of a recipe: a registered name first, then what `rlkit.envs.make_env` knows.

    Args:
        name, env_config: of the recipe.
        run: whose failures are counted (`rlkit.envs.checked`).
        limit_s: seconds that the constructor, a `reset`, a `step` or `close` may take.

    Returns a `gymnasium.Env`, an RLlib `MultiAgentEnv`, or a vector environment, which RLlib asks for with `num_envs`
    (`gym_env_vectorize_mode: vector_entry_point`), wrapped in the contract checks of `rlkit.envs`.
    """
    from rlkit.envs.checked_env import checked

    return checked(make_bare(name, env_config, limit_s), run=run, limit_s=limit_s)


def make_bare(name: str, env_config: Mapping[str, Any], limit_s: float | None = None) -> Any:
    """Create the same without contract checks, to read its spaces: RLlib is not imported for Gymnasium's."""
    from rlkit.envs.watchdog import watching

    with watching(name, limit_s):
        try:
            return _make_bare(name, env_config)
        except SystemExit as error:
            raise EnvError(f"{name}: the constructor raised SystemExit: {error}") from error


def _make_bare(name: str, env_config: Mapping[str, Any]) -> Any:
    from gymnasium.vector import VectorEnv

    from rlkit.envs import names

    if name not in registry.TABLES["envs"]:
        # VMAS has an argument of this name
        vector = "num_envs" in env_config and not names.is_multi_agent(name)
        return (names.make_vector if vector else names.make_env)(name, env_config)
    env = registry.resolve("envs", name)(**env_config)
    return env if isinstance(env, VectorEnv) else names.adapt(env)


def env_creator(name: str, limit_s: float | None = None) -> Callable[[Mapping[str, Any]], Any]:
    """Return RLlib's `env_creator`: called in every process with an `EnvContext` that holds `env_config`.

    Args:
        name: of the environment.
        limit_s: seconds that one call of it may take.
    """
    return functools.partial(_create, name, registry.names(), uuid.uuid4().hex, limit_s)


def _create(
    name: str, names: registry.Names, run: str, limit_s: float | None, context: Mapping[str, Any]
) -> Any:
    names.load()
    return make_env(name, dict(context), run=run, limit_s=limit_s)
