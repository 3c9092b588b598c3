"""A second process that reads a run while the first writes a checkpoint in every iteration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kills
import malformed
from processes import Training, wait_for

ITERATIONS = 60


def attempt(algorithm: str, folder: Path, iterations: int = ITERATIONS) -> tuple[int, list[str]]:
    """Read until the training ends: the number of reads, and what a read said that it must not.

    Args:
        algorithm: whose recipe trains.
        folder: for the run.
        iterations: of the training; each writes a checkpoint, and the oldest but three goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.json"
    recipe = {
        **kills.recipe(algorithm),
        "stop": {"iterations": iterations},
        "checkpoint": {"every": 1, "keep": 3},
    }
    recipe["config"]["env_runners"]["num_env_runners"] = 0
    file.write_text(json.dumps(recipe))
    training = Training("train", file, "--out", folder / "runs")
    try:
        wait_for(lambda: training.process.poll() is not None or _saved(folder), 240)
        run = next((folder / "runs").glob("*/*"))
        count, bad = read_while(lambda: training.process.poll() is None, run)
        code, _, err = training.end(0)
    finally:
        training.end(0)
    return count, bad if code == 0 else [*bad, f"the training ended with {code}: {err[-300:]}"]


def _saved(folder: Path) -> list[Path]:
    return list((folder / "runs").glob("*/*/trial_*/checkpoint_*/manifest.json"))


def read_while(condition: Callable[[], bool], run: Path) -> tuple[int, list[str]]:
    """Verify the newest checkpoint, list the runs, load the best policy, again and again; counts and complaints."""
    count, bad = 0, []
    while condition():
        for read in (newest, listed, loaded):
            count += 1
            try:
                said = read(run)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            if said:
                bad.append(f"{read.__name__}: {said[-300:]}")
    return count, bad


def newest(run: Path) -> str:
    """The newest checkpoint verifies, or makes way for a newer one while it is read."""
    import rlkit
    from rlkit.errors import CheckpointError
    from rlkit.runs import manifest

    for trial in rlkit.open_run(run).trials:
        path = trial.checkpoints[-1]
        try:
            manifest.verify(path)
        except CheckpointError as error:
            if path.exists():
                return str(error)
    return ""


def listed(run: Path) -> str:
    """`rlkit runs` shows the run as one that trains."""
    code, wrote = malformed.call("runs", "--in", run)
    return (
        "" if code == 0 and ("running" in wrote or "done" in wrote) else f"rlkit runs: exit {code}: {wrote}"
    )


def loaded(run: Path) -> str:
    """The best policy acts."""
    import rlkit

    agent: Any = rlkit.load(run)
    agent.act(agent.observation_space.sample())
    return ""
