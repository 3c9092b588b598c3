"""Tries every task on a scratch environment before the run, so that a refusal comes first and not after an hour."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rlkit.curriculum.base import Curriculum
from rlkit.curriculum.route import Route, read_attribute, with_first_values
from rlkit.errors import EnvError


def try_tasks(config: Any, curriculum: Curriculum, route: Route) -> None:
    """Give each of `curriculum.candidates()` to one fresh environment and reset it.

    Raises:
        EnvError: the environment refuses a task: names the lesson, the task and the environment's message.
    """
    from ray.rllib.env.env_context import EnvContext

    from rlkit.curriculum.task_env import TaskEnv
    from rlkit.rllib import env_creator_of

    candidates = curriculum.candidates()
    if not candidates:
        return
    create = env_creator_of(config)

    def build(task: Mapping[str, Any]) -> Any:
        return create(EnvContext({**config.env_config, **task}, worker_index=0))

    env, first = build({}), dict[str, Any]()
    if route.needs_wrapper:
        env = TaskEnv(env, build)
    try:
        for name, tasks in candidates.items():
            for task in tasks:
                try:
                    given = task
                    if route.via == "attribute":  # what the tasks before have set goes back, as in training
                        given = with_first_values(task, first, partial(read_attribute, env))
                    route.apply(env, given)
                    env.reset(seed=0)
                except Exception as error:
                    raise EnvError(
                        f"curriculum: lesson {name!r}: the environment rejects the task {task}: "
                        f"{type(error).__name__}: {error}"
                    ) from error
    finally:
        env.close()
