"""A second process that reads a run while the first writes a checkpoint in every iteration."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import kills
import malformed
from processes import Training, wait_for

ROUNDS = 40


def attempt(algorithm: str, folder: Path, rounds: int = ROUNDS) -> tuple[int, list[str]]:
    """Read a run while it trains: the number of reads, and what a read said that it must not.

    Args:
        algorithm: whose recipe trains.
        folder: for the run. In each iteration it gets a checkpoint, and of the old ones but three stay.
        rounds: each verifies the newest checkpoint, lists the runs and loads the best policy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.json"
    recipe = {**kills.recipe(algorithm), "checkpoint": {"every": 1, "keep": 3}}
    recipe["config"]["env_runners"]["num_env_runners"] = 0
    file.write_text(json.dumps(recipe))
    training = Training("train", file, "--out", folder / "runs")
    try:
        wait_for(lambda: training.process.poll() is not None or _saved(folder), 240)
        if not _saved(folder):
            return 0, [f"no checkpoint was written: {training.end(0)[1:]}"]
        run, first = next((folder / "runs").glob("*/*")), _saved(folder)[-1]
        count, bad = read(run, rounds)
        if not wait_for(lambda: training.process.poll() is not None or _saved(folder)[-1] > first, 60):
            bad.append(f"no checkpoint was written after {first}")
        training.send(signal.SIGINT)
        code, _, err = training.end(120)
    finally:
        training.end(0)
    return count, bad if code == 130 else [*bad, f"the training ended with {code}: {err[-300:]}"]


def _saved(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("runs/*/*/trial_*/checkpoint_*/manifest.json"))


def read(run: Path, rounds: int) -> tuple[int, list[str]]:
    """Verify the newest checkpoint, list the runs, load the best policy, again and again; counts and complaints."""
    reads, bad = (newest, listed, loaded), []
    for _ in range(rounds):
        for one in reads:
            try:
                said = one(run)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            if said:
                bad.append(f"{one.__name__}: {said[-300:]}")
    return rounds * len(reads), bad


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
