"""Run folders for tests, written without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.runs.metrics_csv import MetricsWriter
from rlkit.runs.run import RunInfo

Rows = Callable[[int], Sequence[Mapping[str, float]]]


def write_checkpoint(trial: Path, number: int, finished: bool = True) -> Path:
    path = trial / f"checkpoint_{number:06d}"
    path.mkdir(parents=True)
    (path / "rllib_checkpoint.json").write_text("{}")
    if finished:
        (path / "manifest.json").write_text("{}")
    return path


def write_run(
    folder: Path, rows: Rows, seeds: Sequence[int] = (0,), status: str = "done", **params: Any
) -> Path:
    """A run with one trial per seed; `rows(seed)` gives the rows of its metrics."""
    params = {
        "name": folder.parent.name,
        "env": "CartPole-v1",
        "algorithm": "DQN",
        "stop": {"iteration": 10},
        **params,
    }
    folder.mkdir(parents=True)
    writer = MetricsWriter(folder / "metrics.csv")
    for number, seed in enumerate(seeds):
        trial = folder / f"trial_{number:05d}_seed={seed}"
        trial.mkdir()
        (trial / "params.json").write_text(json.dumps({**params, "seed": seed, "__imports__": []}))
        for row in rows(seed):
            writer.write(trial.name, row)
    RunInfo(name=params["name"], status=status).write(folder)
    return folder
