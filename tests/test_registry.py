"""What the public functions take, and what they refuse by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

import rlkit
from rlkit import recipe as recipes
from rlkit import registry
from rlkit.errors import UsageError
from rlkit.exploration import EpsilonGreedy


class Mine(PPOConfig):
    pass


class Greedy(EpsilonGreedy):
    pass


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TABLES", {kind: dict(table) for kind, table in registry.TABLES.items()})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlkit.register_env("CartPole-v1", dict), "the name of a Gymnasium"),
        (lambda: rlkit.register_env("pettingzoo/mine", dict), "the name of a Gymnasium, PettingZoo"),
        (lambda: rlkit.register_env("mine", 3), "got 3, expected a function"),
        (lambda: rlkit.register_model("mine", 3), "got 3, expected a function build"),
        (lambda: rlkit.register_callback("mine", int), "expected a subclass of RLlibCallback"),
        (lambda: rlkit.register_callback("mine", RLlibCallback()), "expected an RLlibCallback class"),
        (lambda: rlkit.register_algorithm("mine", dict), "expected a subclass of AlgorithmConfig"),
        (lambda: rlkit.register_exploration("mine", 3), "expected a subclass of Exploration"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_registered(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
    assert all("mine" not in table for table in registry.TABLES.values())


def test_a_users_algorithm_and_exploration_are_names_of_a_recipe() -> None:
    rlkit.register_algorithm("Mine", Mine)
    rlkit.register_exploration("Greedy", Greedy)
    values = {"name": "r", "env": "CartPole-v1", "stop": {"iterations": 1}}
    assert recipes.from_mapping({**values, "algorithm": "Mine"}).algorithm == "Mine"
    recipes.from_mapping({**values, "algorithm": "DQN", "exploration": {"type": "Greedy"}})


FAILS = [
    ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    ("import sys; sys.exit(0)", "SystemExit: 0"),
    ("import no_such_module", "No module named 'no_such_module'"),
]


@pytest.fixture
def failing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module `failing_plugin` with a body, installed as the plugin `mine`."""
    (tmp_path / "failing_plugin.py").write_text(f"{request.param}\n")
    facts = tmp_path / "failing-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[rlkit.plugins]\nmine = failing_plugin:begin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "failing_plugin", raising=False)
    registry._load_entry_points.cache_clear()
    return "failing_plugin"


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        *FAILS,
        ("def begin(): raise ValueError('bad')", "ValueError: bad"),
        ("", "has no attribute 'begin'"),
    ],
    indirect=["failing"],
)
def test_a_plugin_that_fails_is_named_with_its_reason(failing: str, reason: str) -> None:
    with pytest.raises(UsageError, match=r"the plugin 'mine' \(failing_plugin:begin\) failed") as caught:
        registry.load_plugins()
    assert reason in str(caught.value)
    sys.modules.pop(failing, None)


@pytest.mark.parametrize(("failing", "reason"), FAILS, indirect=["failing"])
def test_an_import_that_fails_is_named_with_its_reason(failing: str, reason: str) -> None:
    with pytest.raises(UsageError, match="--import failing_plugin: ") as caught:
        registry.import_module(failing)
    assert reason in str(caught.value)


def test_a_file_whose_name_is_taken_is_not_taken_for_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "envs_twice.py").touch()
    (tmp_path / "random.py").touch()
    registry.import_module(str(tmp_path / "one" / "envs_twice.py"))
    registry.import_module(str(tmp_path / "one" / "envs_twice.py"))
    with pytest.raises(UsageError, match=r"another module .envs_twice. is loaded already, from .*one"):
        registry.import_module(str(tmp_path / "two" / "envs_twice.py"))
    with pytest.raises(UsageError, match="another module 'random' is loaded already"):
        registry.import_module(str(tmp_path / "random.py"))
