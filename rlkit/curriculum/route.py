"""How a task reaches an environment: one `Route`, applied to one sub-environment of a vectorised environment.

    attribute       env.gravity = 9.8; a path goes deeper: world.agents.*.max_speed
    set_task        env.set_task({"gravity": 9.8}), or another method; `key` passes one value of the task alone
    reset_options   env.reset(options={"gravity": 9.8})
    constructor     the sub-environment is built anew with env_config | {"gravity": 9.8}

Gymnasium's synchronous vectorisation holds its environments in `envs`; the asynchronous one holds them in processes,
reached through pipes. A natively vectorised environment has neither: it needs `set_task(task, env_index)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rlkit.curriculum.samplers import Task
from rlkit.errors import EnvError

if TYPE_CHECKING:
    from gymnasium.vector import AsyncVectorEnv

SEVERAL = object()  # no single first value
VIAS = ("attribute", "set_task", "reset_options", "constructor")
Maker = Callable[[Mapping[str, Any]], Any]
# (sub-environment, attribute) -> its environment, the owning layer
Owners = dict[tuple[int, str], tuple[Any, Any]]


@dataclass(frozen=True)
class Route:
    """How a task reaches an environment.

    Attributes:
        via: see the module's docstring.
        method: the method of `via: set_task`.
        key: pass only this value of the task to the method (`set_task(3)` instead of `set_task({"level": 3})`).
    """

    via: Literal["attribute", "set_task", "reset_options", "constructor"] = "attribute"
    method: str = "set_task"
    key: str | None = None

    def __post_init__(self) -> None:
        if self.via not in VIAS:
            raise ValueError(f"task.via: got {self.via!r}, expected one of {', '.join(VIAS)}")
        if self.via != "set_task" and (self.method != "set_task" or self.key is not None):
            raise ValueError(f"task.method and task.key belong to via: set_task; got via: {self.via}")

    @property
    def needs_wrapper(self) -> bool:
        """Must a `TaskEnv` stand around the environment, to change its `reset` or to build it anew?"""
        return self.via in ("reset_options", "constructor")

    def argument(self, task: Task) -> Any:
        return dict(task) if self.key is None else task[self.key]

    def apply(self, env: Any, task: Task) -> None:
        """Give the task to one environment (not a vector of them). Takes effect with its next reset.

        Raises:
            EnvError: an attribute or method the environment does not have, or no `TaskEnv` where one is needed.
            Exception: whatever the environment says to the task.
        """
        if self.via == "attribute":
            for path, value in task.items():
                for owner, name in attribute_owners(env, path):
                    setattr(owner, name, value)
        elif self.via == "set_task":
            _method(env, self.method)(self.argument(task))
        else:
            from rlkit.curriculum.task_env import TaskEnv

            wrapper = next((layer for layer in layers(env) if isinstance(layer, TaskEnv)), None)
            if wrapper is None:
                raise EnvError(
                    f"via: {self.via} needs the environment inside rlkit.curriculum.TaskEnv; got {env}"
                )
            wrapper.take_task(task, self.via)

    def apply_to(
        self,
        vector: Any,
        index: int,
        task: Task,
        make: Maker,
        known: Owners | None = None,
        first: dict[str, Any] | None = None,
    ) -> None:
        """Give the task to sub-environment `index` of a vectorised environment, touching no other one.

        Args:
            make: builds a sub-environment from constructor arguments that override the configured ones.
            known: a dict of the caller's in which the owners of plain attributes are remembered: looking for them
                costs 2 % of the env steps of 32 CartPoles.
            first: a dict of the caller's for this sub-environment, see `with_first_values`.
        """
        envs = getattr(vector, "envs", None)
        if self.via == "attribute" and first is not None:
            if envs is not None:
                task = with_first_values(task, first, partial(read_attribute, envs[index]))
            elif hasattr(vector, "parent_pipes"):
                task = with_first_values(task, first, partial(_read_one, vector, index))
        if envs is not None:
            if self.needs_wrapper:
                from rlkit.curriculum.task_env import TaskEnv

                if not any(isinstance(layer, TaskEnv) for layer in layers(envs[index])):
                    envs[index] = TaskEnv(envs[index], make)
            if known is None or self.via != "attribute" or not _set_known(known, envs[index], index, task):
                self.apply(envs[index], task)
        elif hasattr(vector, "parent_pipes"):
            self._apply_async(vector, index, task)
        elif callable(getattr(vector, "set_task", None)):
            vector.set_task(task, env_index=index)
        else:
            raise EnvError(
                f"{type(vector).__name__} is vectorised by itself and has no set_task(task, env_index); "
                "add that method, or use gym_env_vectorize_mode sync or async"
            )

    def _apply_async(self, vector: AsyncVectorEnv, index: int, task: Task) -> None:
        if self.via == "set_task":
            _call_one(vector, index, "_call", (self.method, (self.argument(task),), {}))
        elif self.needs_wrapper:
            _call_one(vector, index, "_call", ("take_task", (task, self.via), {}))
        else:
            for path, value in task.items():
                if "." in path:
                    raise EnvError(
                        f"asynchronous vectorisation cannot reach the attribute path {path!r}; "
                        "give the environment a set_task method, or use gym_env_vectorize_mode: sync"
                    )
                # Fails on a misspelt name.
                _call_one(vector, index, "_call", ("get_wrapper_attr", (path,), {}))
                _call_one(vector, index, "_setattr", (path, value))


def _set_known(known: Owners, env: Any, index: int, task: Task) -> bool:
    """Set attributes on the layers found before; False where a path has to be walked (its objects may be new)."""
    for path, value in task.items():
        if "." in path:
            return False
        found = known.get((index, path))
        if found is None or found[0] is not env:
            found = known[index, path] = (env, attribute_owners(env, path)[0][0])
        setattr(found[1], path, value)
    return True


def with_first_values(task: Task, first: dict[str, Any], read: Callable[[str], Any]) -> Task:
    """Return the task with the first value of every attribute that an earlier task set and this one does not name.

    Without them the value of an earlier task would stay, until a resume or a restart makes the environment anew.

    Args:
        first: kept by the caller, one per environment; attributes that this task is the first to name are added.
        read: returns the value of an attribute.
    """
    for path in task:
        if path not in first:
            first[path] = read(path)
    return {**{path: value for path, value in first.items() if value is not SEVERAL}, **task}


def read_attribute(env: Any, path: str) -> Any:
    """Return the value of an attribute; `SEVERAL` where the path leads to several objects with different ones.

    Raises:
        EnvError: no layer has the attribute.
    """
    values = [getattr(owner, name) for owner, name in attribute_owners(env, path)]
    same = all(value is values[0] or bool(np.all(value == values[0])) for value in values)
    return values[0] if values and same else SEVERAL


def _read_one(vector: AsyncVectorEnv, index: int, path: str) -> Any:
    return SEVERAL if "." in path else _call_one(vector, index, "_call", ("get_wrapper_attr", (path,), {}))


def _call_one(vector: AsyncVectorEnv, index: int, command: str, data: tuple[Any, ...]) -> Any:
    """Send one command to the process of one sub-environment and return its answer.

    `AsyncVectorEnv.call` and `set_attr` always address all of them; the messages are those of gymnasium 1.2
    (`_async_worker` in gymnasium/vector/async_vector_env.py). The process ends after an exception.
    """
    pipe = vector.parent_pipes[index]
    pipe.send((command, data))
    answer, good = pipe.recv()
    if not good:
        _, kind, message, _ = vector.error_queue.get()
        raise kind(message)
    return answer


def layers(env: Any) -> Iterator[Any]:
    """Walk from an environment inwards: Gymnasium wrappers, RLlib's and PettingZoo's adapters, the bare one."""
    seen: list[Any] = []
    queue = [env]
    while queue:
        layer = queue.pop(0)
        if layer is None or any(layer is s for s in seen):
            continue
        seen.append(layer)
        yield layer
        inner = vars(layer) if hasattr(layer, "__dict__") else {}
        queue += [inner.get(name) for name in ("env", "par_env", "aec_env", "parallel_env")]


def attribute_owners(env: Any, path: str) -> list[tuple[Any, str]]:
    """Return (object, attribute name) for every target of a path; `*` stands for all items of a list.

    The outermost layer that has the first name owns it.

    Raises:
        EnvError: no layer has the attribute (nothing is created by a misspelt name).
    """
    *parents, last = path.split(".")
    first = parents[0] if parents else last
    owner = next((layer for layer in layers(env) if _has(layer, first)), None)
    if owner is None:
        raise EnvError(f"{getattr(env, 'unwrapped', env)!r} has no attribute {first!r}")
    owners = [owner]
    for part in parents:
        if part == "*":
            owners = [item for o in owners for item in (o.values() if isinstance(o, Mapping) else o)]
        else:
            owners = [o[part] if isinstance(o, Mapping) else getattr(o, part) for o in owners]
    for o in owners:
        if not hasattr(o, last):
            raise EnvError(f"{o!r} has no attribute {last!r} (in {path!r})")
    return [(o, last) for o in owners]


def _has(layer: Any, name: str) -> bool:
    """Does the layer itself hold the attribute? A wrapper that forwards reads is not the place to write to."""
    return name in getattr(layer, "__dict__", {}) or hasattr(type(layer), name)


def _method(env: Any, name: str) -> Callable[..., Any]:
    for layer in layers(env):
        if callable(method := getattr(layer, name, None)):
            return method
    raise EnvError(f"{getattr(env, 'unwrapped', env)!r} has no method {name!r}")
