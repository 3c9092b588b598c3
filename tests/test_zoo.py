"""The policies that come along: found by name, as their table says, small, and without pickles."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlkit
from rlkit.errors import UsageError
from rlkit.launch.initial import sources
from rlkit.recipe import check
from rlkit.recipe.shipped import TABLE, ZOO, find_policy, policies, policy_summary, shipped

ROWS = json.loads(TABLE.read_text())


@pytest.fixture
def zoo() -> dict[str, Any]:
    """What `make zoo` runs."""
    return runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "zoo.py"))


def test_every_folder_has_a_row_and_every_row_a_folder() -> None:
    assert {folder.name for folder in ZOO.iterdir() if folder.is_dir()} == set(ROWS)
    assert {row["recipe"] for row in ROWS.values()} <= set(shipped())
    assert list(policies()) == [f"zoo/{name}" for name in sorted(ROWS)]


@pytest.mark.parametrize("name", ROWS)
def test_a_policy_is_two_small_files_that_name_no_place(name: str) -> None:
    files = {file.name: file for file in (ZOO / name).iterdir()}
    assert set(files) == {"bundle.json", "weights.safetensors"}
    assert sum(file.stat().st_size for file in files.values()) < 500_000
    recipe = json.dumps(json.loads(files["bundle.json"].read_text())["recipe"])
    assert '"/' not in recipe
    assert rlkit.load(f"zoo/{name}").manifest.env_steps == ROWS[name]["env_steps"]


def test_a_policy_is_compared_with_the_interval_of_its_row(zoo: dict[str, Any]) -> None:
    zoo["play"].__globals__["EPISODES"] = 20
    row = {**ROWS["ppo_cartpole"], "processor": "another"}
    assert zoo["outcome"]("zoo/ppo_cartpole", row)[0] == "interval"
    better = {**row, "ci95": [end + 100 for end in row["ci95"]]}
    assert zoo["outcome"]("zoo/ppo_cartpole", better)[0] == "differs"


@pytest.mark.slow
def test_a_policy_reproduces_its_row(zoo: dict[str, Any]) -> None:
    """To the last digit with the processor and the torch of the row, in its interval elsewhere."""
    row = ROWS["ppo_pendulum"]
    here = (zoo["processor"](), zoo["versions"]()["torch"])
    expected = "exact" if here == (row["processor"], row["versions"]["torch"]) else "interval"
    assert zoo["outcome"]("zoo/ppo_pendulum", row)[0] == expected


def test_a_policy_that_cannot_be_played_is_named_and_the_others_are_played(
    zoo: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)  # as without the extra
    zoo["play"].__globals__["EPISODES"] = 2
    monkeypatch.setattr(sys, "argv", ["zoo.py", "dqn_lunarlander", "ppo_cartpole"])
    with pytest.raises(SystemExit) as left:
        zoo["main"]()
    assert left.value.code == 1
    lost, played, last = capsys.readouterr().out.splitlines()
    assert lost.startswith("not played zoo/dqn_lunarlander")
    assert "pip install 'rlkit-rllib[box2d]'" in lost
    assert played.split()[:2] in (["exact", "zoo/ppo_cartpole"], ["interval", "zoo/ppo_cartpole"])
    assert last == "1 of 2 as their rows say; not: zoo/dqn_lunarlander"


def test_an_agent_acts_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rlkit.load("zoo/ppo_cartpole").act(np.zeros(4, np.float32)) in (0, 1)


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo" / "ppo_cartpole").mkdir(parents=True)
    assert find_policy("zoo/ppo_cartpole") == Path("zoo/ppo_cartpole")


def test_a_wrong_name_is_an_error_that_offers_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'zoo/ppo_cartpole'"):
        rlkit.load("zoo/ppo_cartpol")
    recipe = tmp_path / "a.yaml"
    recipe.write_text("algorithm: PPO\nenv: CartPole-v1\ninit_from: zoo/ppo_cartpol\nstop: {env_steps: 10}\n")
    (problem,) = check(recipe)
    assert "did you mean 'zoo/ppo_cartpole'" in str(problem)


def test_a_recipe_keeps_the_name_of_the_policy_it_begins_with() -> None:
    assert sources("zoo/ppo_cartpole") == {"*": "zoo/ppo_cartpole"}
    assert Path(sources("somewhere")["*"]).is_absolute()


def test_a_summary_has_environment_return_and_origin() -> None:
    text = policy_summary(ROWS["ppo_cartpole"])
    assert text.startswith("CartPole-v1: ")
    assert "ppo_cartpole with seed" in text
