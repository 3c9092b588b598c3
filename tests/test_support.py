"""A sample of the cells of tests/support.py: RLlib's runners send actions that lie in their space, or one refusal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import support
from support import Case

pytestmark = [pytest.mark.usefixtures("ray_local"), pytest.mark.filterwarnings("ignore")]
ACTS = ["Discrete(start)", "Box, half-bounded", "Box, integers", "Dict"]


@pytest.mark.parametrize("life", ["one agent", "turns"])
@pytest.mark.parametrize("algorithm", ["rllib/PPO", "IMPALA"])
def test_actions_of_rllibs_runners_lie_in_their_space(algorithm: str, life: str) -> None:
    support.register()
    for acts in ACTS:
        outcome = support.attempt(Case(algorithm, acts, life=life))
        assert outcome == support.Outcome("right"), acts


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
    ],
    ids=lambda value: f"{value.algorithm} {value.sees} {value.life}" if isinstance(value, Case) else "",
)
def test_what_cannot_train_is_refused_before_it(case: Case, message: str) -> None:
    support.register()
    outcome = support.attempt(case)
    assert outcome.kind == "refused"
    assert re.search(message, outcome.message, re.DOTALL), outcome.message


def test_a_dry_run_says_what_training_would_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import rlkit, support\nrlkit.register_env('mine', support.One)\n"
        "def fails(**_):\n    raise KeyError('map')\n"
        "rlkit.register_env('fails', fails)\n"
    )
    told = {}
    for env, sees in (("mine", "vector"), ("mine", "vector, int8"), ("fails", "vector")):
        command = [sys.executable, "-m", "rlkit", "train", "--algorithm", "PPO", "--env", env]
        command += [f"env_config.sees={sees!r}", "--import", str(tmp_path / "user.py"), "--dry-run"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False
        )
        told[env, sees] = (done.returncode, done.stdout, done.stderr)
    assert told["mine", "vector"][:2] == (0, "ppo_mine: PPO on mine (1 agent) can train\n")
    code, _, message = told["mine", "vector, int8"]
    assert code == 2
    assert "mine observes int8 (3,)" in message
    code, _, message = told["fails", "vector"]
    assert code == 1
    assert "fails could not be made" in message
    assert "KeyError: 'map'" in message
    assert not (tmp_path / "runs").exists()
