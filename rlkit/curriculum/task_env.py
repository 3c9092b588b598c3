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
        self._make = make
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
        _check_same_interface(self.env, new, task)
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


def _check_same_interface(old: Any, new: Any, task: Task) -> None:
    """RLlib builds its modules once, from the first environment's spaces."""
    agents = getattr(new.unwrapped, "possible_agents", None)
    if agents is None:
        pairs = [("", old.observation_space, new.observation_space), ("", old.action_space, new.action_space)]
    else:
        known = set(old.unwrapped.possible_agents)
        if strangers := [a for a in agents if a not in known]:
            raise EnvError(
                f"task {task}: the environment has agents {strangers} that the first one lacks ({sorted(known)}); "
                "start from the arguments with the most agents"
            )
        a, b = old.unwrapped, new.unwrapped
        pairs = [(x, a.get_observation_space(x), b.get_observation_space(x)) for x in agents]
        pairs += [(x, a.get_action_space(x), b.get_action_space(x)) for x in agents]
    for agent, before, after in pairs:
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
