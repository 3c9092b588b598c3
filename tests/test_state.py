"""`rlkit.state.attach`: one more component in any algorithm's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.rllib.utils.checkpoints import Checkpointable

from rlkit import state


class Parent(Checkpointable):
    """The part of an Algorithm that saving needs."""

    def __init__(self) -> None:
        self.own = 1

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        return {"own": self.own}

    def set_state(self, state: dict[str, Any]) -> None:
        self.own = state.get("own", self.own)

    def get_ctor_args_and_kwargs(self) -> Any:
        return (), {}


class Counter:
    def __init__(self) -> None:
        self.n = 0

    def get_state(self) -> dict[str, Any]:
        return {"n": self.n}

    def set_state(self, state: dict[str, Any]) -> None:
        self.n = state["n"]


def parent() -> tuple[Parent, Counter, list[int]]:
    made, counter, values = Parent(), Counter(), [0]
    state.attach(made, "counter", counter)
    state.attach(
        made, "values", state.Values(lambda: {"v": values[0]}, lambda s: values.__setitem__(0, s["v"]))
    )
    return made, counter, values


def test_components_are_folders_that_come_back(tmp_path: Path) -> None:
    saved, counter, values = parent()
    saved.own, counter.n, values[0] = 5, 7, 9
    assert saved.get_state() == {"own": 5, "counter": {"n": 7}, "values": {"v": 9}}
    saved.save_to_path(tmp_path)
    assert {"counter", "values"} <= {p.name for p in tmp_path.iterdir() if p.is_dir()}
    restored, counter, values = parent()
    restored.restore_from_path(tmp_path)
    assert (restored.own, counter.n, values[0]) == (5, 7, 9)


def test_components_can_be_asked_for_and_left_out() -> None:
    saved, _, _ = parent()
    assert set(saved.get_state(components=["counter"])) == {"own", "counter"}
    assert set(saved.get_state(not_components=["counter"])) == {"own", "values"}
    assert list(state.components(saved)) == ["counter", "values"]
    assert state.components(Parent()) == {}


def test_a_name_is_taken_once() -> None:
    saved, _, _ = parent()
    with pytest.raises(ValueError, match="already saves a component named 'counter'"):
        state.attach(saved, "counter", Counter())
