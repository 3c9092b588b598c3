"""A sample of the cells of tests/support.py: RLlib's runners send actions that lie in their space, or one refusal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import support
from support import Case

import rlkit
from rlkit.errors import EnvError, UsageError
from rlkit.launch import rehearsal, train
from rlkit.recipe import SearchSpace

pytestmark = [pytest.mark.usefixtures("ray_local"), pytest.mark.filterwarnings("ignore")]
SPACES = ["Discrete(start)", "Box, half-bounded", "Box, integers", "Dict"]


@pytest.mark.parametrize(
    "case",
    [
        *(Case("rllib/PPO", acts, life=life) for acts in SPACES for life in ("one agent", "turns")),
        Case("IMPALA", "Box, half-bounded", life="turns"),
        Case("APPO", "Discrete(start)", life="one agent"),
        Case("TQC", "Box, half-bounded", life="one agent"),
        Case("rllib/DQN", "Discrete(start)", life="one agent"),
        Case("rllib/SAC", "Box, integers", life="one agent"),
    ],
    ids=lambda case: f"{case.algorithm} {case.acts} {case.life}",
)
def test_actions_of_rllibs_runners_lie_in_their_space(case: Case) -> None:
    support.register()
    assert support.attempt(case) == support.Outcome("right")


def test_opponents_actions_are_counted_as_the_module_counts_them() -> None:
    support.register()
    assert support.attempt(Case("DRON", "Discrete(start)", life="turns")) == support.Outcome("right")


def test_the_table_shows_every_kind_of_outcome() -> None:
    outcomes = {
        Case("PPO", life="one agent"): support.Outcome("right"),
        Case("DQN", life="one agent"): support.Outcome("wrong", "an error"),
        Case("DQN", "Box", life="one agent"): support.Outcome("refused", "DQN needs discrete actions"),
    }
    text = support.markdown(outcomes)
    assert "| | PPO | DQN |" in text
    assert "| Discrete | yes | WRONG |" in text
    assert "| Box |  | refused |" in text


@pytest.mark.parametrize("acts", ["Box, scalar", "MultiDiscrete, matrix", "Box"])
def test_a_team_acts_in_spaces_that_are_reshaped(acts: str) -> None:
    support.register()
    assert support.attempt(Case("MADDPG", acts)) == support.Outcome("right")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("MADDPG", life="dying"), r"\['b'\] left cell_several after 3 steps .*sampling: episodes"),
        (Case("MADDPG", life="late"), r"after 0 steps of cell_several \['a'\] of \['a', 'b'\] are there"),
        (Case("MADDPG", life="turns"), r"after 0 steps of cell_several"),
        (Case("MADDPG", sees="Discrete(start)"), r"return Discrete\(5\)"),
        (Case("PPO", sees="matrix", life="one agent"), r"observes \(2, 3\).*model: \{name: mlp\}"),
        (Case("DQN", "MultiDiscrete", life="one agent"), r"DQN needs discrete actions"),
        (Case("DRON", life="one agent"), r"cell_one, step 1: infos .* shows no opponent to model"),
    ],
    ids=lambda value: f"{value.algorithm} {value.sees} {value.life}" if isinstance(value, Case) else "",
)
def test_what_cannot_train_is_refused_before_it(case: Case, message: str) -> None:
    support.register()
    outcome = support.attempt(case)
    assert outcome.kind == "refused"
    assert re.search(message, outcome.message, re.DOTALL), outcome.message


def test_a_dry_run_says_what_training_would_and_starts_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rlkit",
        "train",
        "--dry-run",
        "--algorithm",
        "PPO",
        "--env",
        "CartPole-v1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "ppo_cartpole-v1: PPO on CartPole-v1 (1 agent) can train\n")
    assert not list(tmp_path.iterdir())
    assert "Started a local Ray instance" not in done.stderr


@pytest.mark.parametrize("call", [rehearsal.dry_run, train.train])
def test_a_dry_run_and_a_training_refuse_alike(call: Any, tmp_path: Path) -> None:
    def fails(**_: Any) -> None:
        raise KeyError("map")

    support.register()
    rlkit.register_env("fails", fails)
    beside = {} if call is rehearsal.dry_run else {"out": tmp_path}
    with pytest.raises(UsageError, match=r"cell_one observes int8 \(3,\)"):
        call(Case("PPO", sees="vector, int8", life="one agent").recipe(), **beside)
    with pytest.raises(EnvError, match=r"fails could not be made .*KeyError: 'map'") as error:
        call({**Case("PPO", life="one agent").recipe(), "env": "fails"}, **beside)
    assert error.value.exit_code == 1
    notes = tmp_path / "notes.log"
    notes.write_text("to do\nsoon\n")
    search = {"type": "optuna", "storage": str(notes)}
    training = {"config": {"training": {"lr": SearchSpace("loguniform", (1e-5, 1e-2))}}}
    given = {"algorithm": "PPO", "env": "CartPole-v1", "stop": {"iterations": 1}, **training}
    with pytest.raises(UsageError, match=r"notes\.log is no storage of Optuna's"):
        call({**given, "tune": {"search": search}}, **beside)
    scheduler = {"type": "pbt", "require_attrs": True, "mutations": {"config.training.lr": [0.1, 0.2]}}
    with pytest.raises(UsageError, match=r"tune\.scheduler: pbt: .*require_attrs"):
        call({**given, "tune": {"samples": 2, "scheduler": scheduler}}, **beside)


def test_a_dry_run_begins_no_study(tmp_path: Path) -> None:
    search = {"type": "optuna", "storage": str(tmp_path / "study.log")}
    training = {"lr": SearchSpace("loguniform", (1e-5, 1e-2))}
    given = {
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "config": {"training": training},
        "stop": {"iterations": 1},
    }
    assert rehearsal.dry_run({**given, "tune": {"search": search}}).endswith("can train")
    assert not list(tmp_path.iterdir())
