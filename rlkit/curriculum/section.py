"""A recipe's section `curriculum` into an AlgorithmConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit import rllib


def configure(config: Any, curriculum: Mapping[str, Any], total_steps: float | None = None) -> None:
    """Add the bound callback to an unfrozen config, and what the way of the tasks needs besides.

    Args:
        config: the environment must be set; asynchronous vectorisation too, where wanted.
        curriculum: the section of the recipe.
        total_steps: env steps of the run, where the section does not say.

    Raises:
        ValueError: the problems `validate` finds.
    """
    from rlkit.curriculum.callback import CurriculumCallback
    from rlkit.curriculum.route import Route

    options = dict(curriculum)
    kind = options.get("type", "lessons")
    if total_steps:
        options.setdefault("total_steps", int(total_steps))
    bound = CurriculumCallback.bind(**options)
    if kind == "self_play":
        from rlkit.curriculum.base import TASK
        from rlkit.curriculum.self_play import prepare

        prepare(config, options, TASK)
    route = Route(**(options.get("task") or {}))
    mode = config.gym_env_vectorize_mode
    if route.needs_wrapper and getattr(mode, "value", mode) == "async":
        _wrap_environment(config)
    rllib.add_callbacks(config, [bound])


def _wrap_environment(config: Any) -> None:
    """Environments in processes of their own cannot be wrapped afterwards: register a creator that wraps them."""
    from rlkit.curriculum.task_env import TaskEnvCreator

    name = (
        f"curriculum/{config.env if isinstance(config.env, str) else getattr(config.env, '__name__', 'env')}"
    )
    rllib.register_env(name, TaskEnvCreator(rllib.env_creator_of(config)))
    config.environment(env=name)


def active(algorithm: Any) -> Any:
    """Return the driver's `CurriculumCallback` of an algorithm, or None."""
    from rlkit.curriculum.callback import CurriculumCallback

    callbacks = algorithm.callbacks if isinstance(algorithm.callbacks, list) else [algorithm.callbacks]
    return next((c for c in callbacks if isinstance(c, CurriculumCallback)), None)
