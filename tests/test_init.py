"""`rlkit init NAME`, as a user goes on: the project's own tests pass, and its recipe trains and is evaluated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rlkit


def call(*words: str, cwd: Path) -> str:
    """Run a Python module in a process of its own; return all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env={**os.environ, "RAY_ADDRESS": "", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow  # three processes of rlkit, one of pytest
def test_a_new_project_passes_its_tests_and_trains_its_recipe(tmp_path: Path) -> None:
    said = call("rlkit", "init", "walk", cwd=tmp_path)
    assert "next: cd walk && rlkit train recipe.yaml --import parts.py" in said
    project = tmp_path / "walk"
    assert "3 passed" in call("pytest", "-q", cwd=project)
    short = ["stop.iterations=1", "evaluation.every=1", "evaluation.episodes=2"]
    said = call("rlkit", "train", "recipe.yaml", "--import", "parts.py", *short, cwd=project)
    assert "status     done" in said
    run = rlkit.open_run(project / "runs" / "walk")
    assert run.recipe.model["name"] == "small"
    assert len(run.metrics) == 1
    assert "custom/farthest" in run.metrics  # the project's callback
    assert "eval/episode_return" in run.metrics
    told = call("rlkit", "evaluate", "runs/walk", "--import", "parts.py", "--episodes", "2", cwd=project)
    assert "corridor: 2 episodes" in told
