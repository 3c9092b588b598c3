"""State that RLlib's checkpoints leave out, added to them as components of any Algorithm.

RLlib 2.60 saves modules, optimisers, connectors and metrics. Replay buffers, curricula, callbacks, schedules,
the KL coefficient and random generators are not saved (#8151, #17999, #61005). `attach` gives an Algorithm one
more component folder per name: it is written by `save_to_path` and by Tune's checkpoints, and read back by
`Algorithm.from_checkpoint`, `restore_from_path` and Tune's resume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ray.rllib.utils.checkpoints import Checkpointable

from rlkit.rllib import wants_component

State = dict[str, Any]
# The component of rlkit's own learners: what changes in training beside weights and optimisers.
LEARNER_STATE = "column_learner"


class Stateful(Protocol):
    """Anything with a state that can be taken and put back."""

    def get_state(self) -> State: ...

    def set_state(self, state: State) -> None: ...


class Component(Checkpointable):
    """A `Stateful` object in the shape RLlib saves: one folder with one state file."""

    def __init__(self, target: Stateful | None = None):
        self.target = target

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> State:
        return self.target.get_state() if self.target is not None else {}

    def set_state(self, state: State) -> None:
        if self.target is not None:
            self.target.set_state(state)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, State]:
        return (), {}


class Values:
    """A `Stateful` made of two functions, for state that lives in attributes of somebody else's object."""

    def __init__(self, get: Callable[[], State], put: Callable[[State], None]):
        self.get_state = get
        self.set_state = put


class Attribute:
    """The `Stateful` that an attribute of an object holds at the time; it may be replaced."""

    def __init__(self, owner: Any, name: str):
        self.owner, self.name = owner, name

    def get_state(self) -> State:
        state: State = getattr(self.owner, self.name).get_state()
        return state

    def set_state(self, state: State) -> None:
        getattr(self.owner, self.name).set_state(state)


def attach(algorithm: Any, name: str, target: Stateful | Checkpointable) -> None:
    """Save and restore `target` with every checkpoint of `algorithm`, under the folder `name`.

    Call it from `on_algorithm_init` or from an Algorithm's own `setup`. A `Checkpointable` writes its folder itself
    (the replay buffer writes arrays); any other object needs `get_state` and `set_state`.

    Raises:
        ValueError: the name is already taken on this algorithm.
    """
    extra: dict[str, Checkpointable] | None = algorithm.__dict__.get("_rlkit_components")
    if extra is None:
        extra = algorithm._rlkit_components = {}
        _wrap(algorithm, extra)
    taken = {n for n, _ in algorithm.get_checkpointable_components()}
    if name in taken:
        raise ValueError(f"the algorithm already saves a component named {name!r}; choose another name")
    extra[name] = target if isinstance(target, Checkpointable) else Component(target)


def components(algorithm: Any) -> dict[str, Checkpointable]:
    """Return what `attach` has added to this algorithm, by name."""
    return dict(algorithm.__dict__.get("_rlkit_components") or {})


def _wrap(algorithm: Any, extra: dict[str, Checkpointable]) -> None:
    """Extend the two methods `Checkpointable` reads, on this instance alone (ray/rllib/utils/checkpoints.py, 2.60)."""
    list_components, get_state = algorithm.get_checkpointable_components, algorithm.get_state

    def get_checkpointable_components() -> list[tuple[str, Checkpointable]]:
        return [*list_components(), *extra.items()]

    def get_state_and_extra(components: Any = None, *, not_components: Any = None, **kwargs: Any) -> State:
        state = get_state(components, not_components=not_components, **kwargs)
        for name, component in extra.items():
            if wants_component(algorithm, name, components, not_components):
                state[name] = component.get_state()
        return state

    algorithm.get_checkpointable_components = get_checkpointable_components
    algorithm.get_state = get_state_and_extra
