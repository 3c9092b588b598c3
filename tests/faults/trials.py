"""Several trials at once, of which one ends: killed, or by its environment. The others must not notice.

What they leave is compared with a trial that was trained alone: the rows of metrics.csv without what measures time, the
names of the files, and the weights of every checkpoint, bit for bit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import kills
from processes import Training, wait_for

KINDS = {
    "killed": "one of two that train is killed, a third one waits",
    "again": "the same with `max_failures`: it goes on from its checkpoint",
    "poisoned": "the environment of one ends its process",
}
ITERATIONS = 20
MODULE = Path(__file__).with_name("poisoned_env.py")
SEEDS = {"killed": (0, 1, 2), "again": (0, 1, 2), "poisoned": (0, 0, 0)}


def recipe(kind: str, iterations: int = ITERATIONS) -> dict[str, Any]:
    """Three trials, two at a time, each with its environment in its own process."""
    made = {**kills.recipe("PPO"), "env": "poisoned", "stop": {"iterations": iterations}}
    made["config"]["env_runners"]["num_env_runners"] = 0
    made["checkpoint"] = {"every": 5}
    made["tune"] = {"samples": 3, "concurrent": 2}
    if kind == "poisoned":
        made["env_config"] = {"episodes": {"grid_search": [0, 9, 0]}}
        made["tune"] = {"concurrent": 2}
    if kind == "again":
        made["tune"]["max_failures"] = 3
    return made


class Alone:
    """Trials that were trained alone, one for each seed, when they are asked for.

    Args:
        folder: for their runs.
        iterations: of each.
    """

    def __init__(self, folder: Path, iterations: int = ITERATIONS):
        self.folder, self.iterations = folder, iterations
        self._known: dict[int, dict[str, Any]] = {}

    def __getitem__(self, seed: int) -> dict[str, Any]:
        if seed not in self._known:
            import rlkit

            made = {**recipe("killed", self.iterations), "tune": {}, "seed": seed}
            run = rlkit.train(made, out=self.folder, imports=[str(MODULE)])
            self._known[seed] = left_by(run.trials[0])
        return self._known[seed]


def left_by(trial: Any) -> dict[str, Any]:
    """What a trial left, without what measures time."""
    from rlkit.launch.seed_check import CLOCKS, _weights
    from rlkit.runs import manifest
    from rlkit.runs.metrics_csv import read_metrics

    rows = [row for row in read_metrics(trial.run.path / "metrics.csv")[1] if row.pop("trial") == trial.name]
    for checkpoint in trial.checkpoints:
        manifest.verify(checkpoint)
    return {
        "rows": [{k: v for k, v in row.items() if v and not CLOCKS.search(k)} for row in rows],
        "files": sorted(_named(path) for path in trial.path.rglob("*")),
        "weights": {path.name: _weights(path) for path in trial.checkpoints},
    }


def _named(path: Path) -> str:
    """A file's name; that of TensorBoard's has the time and the process in it."""
    return "events" if path.name.startswith("events.") else path.name


def attempt(kind: str, folder: Path, alone: Alone, rng: random.Random) -> list[str]:
    """Train three trials and end one of them; what does not hold of the others."""
    folder.mkdir(parents=True)
    file = folder / "recipe.json"
    file.write_text(json.dumps(recipe(kind, alone.iterations)))
    training = Training("train", file, "--out", folder / "runs", "--import", MODULE)
    try:
        if kind != "poisoned":
            kill_one(training, folder, rng)
        code, _, err = training.end(300)
    except AssertionError as error:
        return [f"{error}: {training.end(0)[1:]}"]
    finally:
        training.end(0)
    expected = 0 if kind == "again" else 1
    bad = [] if code == expected else [f"exit {code}, expected {expected}: {err[-400:]}"]
    if kind != "again" and "its process ended without an exception" not in err:
        bad.append(f"stderr does not say what became of the trial: {err[-400:]}")
    runs = list((folder / "runs").glob("*/*/run.json"))
    return [*bad, *compare(runs[0].parent, kind, alone)] if runs else [*bad, "no run was left"]


def kill_one(training: Training, folder: Path, rng: random.Random) -> None:
    """Kill the process of a trial when two of them train."""

    def two() -> bool:
        lines = [
            line for path in folder.glob("runs/*/*/metrics.csv") for line in path.read_text().splitlines()[1:]
        ]
        return len({line.partition(",")[0] for line in lines}) > 1

    assert wait_for(two, 240), "two trials did not train at once"
    threading.Event().wait(rng.uniform(0, 0.3))
    pids = training.of("trial")
    assert pids, "the trials ended before one was killed"
    os.kill(rng.choice(pids), signal.SIGKILL)


def compare(path: Path, kind: str, alone: Alone) -> list[str]:
    """What the trials of a run that were not ended left otherwise than alone."""
    import rlkit

    run, bad = rlkit.open_run(path), []
    ended = [trial for trial in run.trials if (trial.path / "error.txt").exists()]
    if len(run.trials) != 3 or len(ended) != 1:
        return [f"{len(ended)} of {len(run.trials)} trials have an error.txt, expected 1 of 3"]
    for trial, seed in zip(run.trials, SEEDS[kind], strict=True):
        left, expected = left_by(trial), alone[seed]
        if trial in ended:
            numbers = [int(float(row["iteration"])) for row in left["rows"]]
            want = range(1, alone.iterations + 1) if kind == "again" else range(1, len(numbers) + 1)
            if numbers != list(want):
                bad.append(f"{trial.name}, which was ended: iterations {numbers}")
            continue
        bad += [
            f"{trial.name}: {part} differ from those alone"
            for part in expected
            if left[part] != expected[part]
        ]
    return bad
