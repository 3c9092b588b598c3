"""A wrapper that gives a task to an environment which takes it only through `reset(options=…)` or its constructor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit import seeds
from rlkit.curriculum.samplers import Task
from rlkit.errors import EnvError


class TaskEnv(gym.Wrapper):
    """Holds the task of the next episode for one environment, single- or multi-agent.

    Args:
        env: the environment as configured.
        make: builds it anew from constructor arguments that override the configured ones.
    """

    env: Any

    def __init__(self, env: Any, make: Callable[[Mapping[str, Any]], Any]):
        super().__init__(env)
        self._make, self._spaces = make, spaces_of(env)
        self._options: Task = {}
        self._built: Task = {}
        self._unseeded = False
        self._rng: np.random.Generator | None = None  # of the seeds of environments that are built later

    def take_task(self, task: Task, via: str) -> None:
        """Keep the task for the next reset; `via: constructor` builds the environment now, if the task is new.

        Raises:
            EnvError: the new environment has other spaces, or agents that the first one does not have.
        """
        if via == "reset_options":
            self._options = dict(task)
            return
        if task == self._built:
            return
        new = self._make(task)
        _check_same_interface(self._spaces, new, task)
        self.env.close()
        self.env = new
        self._built = dict(task)
        self._unseeded = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if self._options:
            options = {**self._options, **(options or {})}
        if seed is not None:
            self._rng = np.random.default_rng(seeds.stream(seed, "built anew"))
        elif self._unseeded and self._rng is not None:  # it stands in for an environment that had a seed
            seed = int(self._rng.integers(2**31))
        self._unseeded = False
        return self.env.reset(seed=seed, options=options)


def spaces_of(env: Any) -> dict[str, tuple[gym.Space, gym.Space]]:
    """Return (observation space, action space) of each agent that can appear; of a single one under ''."""
    agents = getattr(env.unwrapped, "possible_agents", None)
    if agents is None:
        return {"": (env.observation_space, env.action_space)}
    bare = env.unwrapped
    return {a: (bare.get_observation_space(a), bare.get_action_space(a)) for a in agents}


def _check_same_interface(first: Mapping[str, Any], new: Any, task: Task) -> None:
    """RLlib builds its modules once, from the first environment's spaces."""
    found = spaces_of(new)
    if strangers := [agent for agent in found if agent not in first]:
        raise EnvError(
            f"task {task}: the environment has agents {strangers} that the first one lacks ({sorted(first)}); "
            "start from the arguments with the most agents"
        )
    for agent, pair in found.items():
        for before, after in zip(first[agent], pair, strict=True):
            if before != after:
                who = f" of {agent}" if agent else ""
                raise EnvError(
                    f"task {task} changes the space{who} from {before} to {after}; the modules expect {before}"
                )


class TaskEnvCreator:
    """An RLlib env creator whose environments stand in a `TaskEnv`: asynchronous vectorisation needs it from birth."""

    def __init__(self, create: Callable[[Mapping[str, Any]], Any]):
        self.create = create

    def __call__(self, context: Mapping[str, Any]) -> TaskEnv:
        return TaskEnv(self.create(context), lambda task: self.create(merged(context, task)))


def merged(context: Mapping[str, Any], task: Mapping[str, Any]) -> Any:
    """Return an RLlib EnvContext (or a plain dict) with the task's values over the configured ones."""
    if hasattr(context, "copy_with_overrides"):
        return context.copy_with_overrides({**context, **task})
    return {**context, **task}
