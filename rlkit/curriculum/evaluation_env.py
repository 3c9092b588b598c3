"""Tasks for evaluations that play environments of their own, episode by episode, on known seeds.

RLlib's evaluation runners get their tasks from the callback. rlkit's exact evaluation makes environments itself:
`prepared` gives it environments whose `reset(seed=n)` plays the task of evaluation episode n, the same at every
evaluation: the current one, the final one, or each in turn.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit import seeds
from rlkit.curriculum.base import TASK, Curriculum
from rlkit.curriculum.driver import Evaluations
from rlkit.curriculum.make import make as build
from rlkit.curriculum.route import Route, read_attribute, with_first_values
from rlkit.curriculum.task_env import TaskEnv

Make = Callable[[Mapping[str, Any]], Any]


class EvaluationEnv(gym.Wrapper):
    """An environment that takes the task of its seed before every reset, single- or multi-agent.

    Args:
        make: builds the environment from arguments that override the configured ones.
        returns: gets the undiscounted (team) return of every finished episode, under the task's name; in self-play
            that of the trained side.
    """

    def __init__(
        self,
        make: Make,
        curriculum: Curriculum,
        route: Route,
        evaluations: Evaluations,
        returns: dict[str, list[float]],
    ):
        env = make({})
        super().__init__(TaskEnv(env, make) if route.needs_wrapper else env)
        self.curriculum, self.route, self.evaluations, self.returns = curriculum, route, evaluations, returns
        self._turn = -1
        self._first: dict[str, Any] = {}  # attribute -> value before the first task
        self._changed = False  # has a task been applied?
        # what a policy mapping finds in the episode's `custom_data`
        self.episode_custom_data: dict[str, Any] = {}
        self._name: str | None = None
        self._return, self._task = 0.0, dict[str, Any]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        self._turn = self._turn + 1 if seed is None else seed
        generator = np.random.default_rng(seeds.stream(abs(self._turn), "evaluation curriculum"))
        self._name, task = self.evaluations.task(self.curriculum, self._turn, generator)
        self._task, self.episode_custom_data = task, {TASK: task}
        given = self.curriculum.environment_task(task)
        if given or (not task and self._changed):
            self._changed = True
            if self.route.via == "attribute":
                given = with_first_values(given, self._first, partial(read_attribute, self.env))
            self.route.apply(self.env, given)
        self._return = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        _, reward, terminated, truncated, _ = result
        multi = isinstance(reward, Mapping)
        self._return += self.curriculum.evaluated_reward(reward, self._task) if multi else float(reward)
        over = (terminated, truncated) if not multi else (terminated.get("__all__"), truncated.get("__all__"))
        if self._name is not None and any(over):
            self.returns.setdefault(self._name, []).append(self._return)
        return result


def prepared(algorithm: Any, make: Make) -> Any:
    """Build an environment for an evaluation of `algorithm`: with its curriculum's tasks, or as it is without one."""
    from rlkit.curriculum.section import active

    callback = active(algorithm)
    if callback is None:
        return make({})
    return EvaluationEnv(
        make, callback.curriculum, callback.route, callback.evaluations, callback.evaluation_returns
    )


def prepared_from(
    section: Mapping[str, Any] | None, checkpoint: str | Path, make: Make, total_steps: float | None = None
) -> Any:
    """Build an environment for an evaluation of a checkpoint: the tasks `evaluate_on` names, at the saved lesson.

    Args:
        section: the recipe's section `curriculum`, or None.
        checkpoint: folder of the checkpoint, verified by the caller: its state file is unpickled.
        total_steps: env steps of the run, where the section does not say.
    """
    if not section:
        return make({})
    made = build({**({"total_steps": int(total_steps)} if total_steps else {}), **section})
    saved = Path(checkpoint) / "callback_CurriculumCallback" / "state.pkl"
    if saved.is_file():
        made.curriculum.state = pickle.loads(saved.read_bytes())["driver"]["curriculum"]
    return EvaluationEnv(make, made.curriculum, made.route, made.evaluations, {})
