"""Signals at a training: when they come, how soon it ends, what it says and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kills
from processes import Training, wait_for


@dataclass
class Ended:
    """How a training ended."""

    code: int
    seconds: float  # from the last signal to the end
    status: str  # in run.json
    checkpoint: bool
    left: list[str]  # processes still there
    out: str
    err: str


@dataclass(frozen=True)
class Case:
    """Signals, and how a training must end on them."""

    numbers: tuple[int, ...]
    code: int
    status: str
    starting: bool = False  # they come before anything trains
    # the others come so many seconds after run.json has the outcome, when Ray shuts down
    late: float | None = None


CASES = {
    "^C while it starts": Case((signal.SIGINT,), 130, "interrupted", starting=True),
    "SIGTERM while it starts": Case((signal.SIGTERM,), 143, "terminated", starting=True),
    "^C": Case((signal.SIGINT,), 130, "interrupted"),
    "SIGTERM": Case((signal.SIGTERM,), 143, "terminated"),
    "SIGHUP": Case((signal.SIGHUP,), 143, "terminated"),
    "^C twice": Case((signal.SIGINT, signal.SIGINT), 130, "interrupted"),
    "SIGTERM twice": Case((signal.SIGTERM, signal.SIGTERM), 143, "terminated"),
    "SIGTERM while Ray shuts down": Case((signal.SIGTERM,) * 9, 143, "terminated", late=1.0),
    "^C while Ray shuts down": Case((signal.SIGINT,) * 9, 130, "interrupted", late=1.0),
    "kill -9": Case((signal.SIGKILL,), -signal.SIGKILL, "running"),
}


def recipe(folder: Path) -> Path:
    """A small PPO recipe in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.json"
    path.write_text(json.dumps({**kills.recipe("PPO"), "name": "signalled", "checkpoint": {"every": 1}}))
    return path


def problems(case: Case, ended: Ended) -> list[str]:
    """What is wrong with an end."""
    found = []
    if ended.code != case.code:
        found.append(f"exit {ended.code}, expected {case.code}: {ended.err[-300:]}")
    if ended.status != case.status:
        found.append(f"run.json says {ended.status}, expected {case.status}")
    if not case.starting and not ended.checkpoint:
        found.append("no checkpoint was left")
    if ended.left:
        found.append(f"left: {ended.left}")
    if ended.out.strip() and not ended.out.lstrip().startswith("{"):
        found.append(f"stdout is not JSON: {ended.out[:200]}")
    return found


def start(recipe: Path, out: Path, *words: str | Path) -> Training:
    return Training("train", recipe, "stop.iterations=100000", "--out", out, "--json", *words)


def status_in(out: Path) -> str:
    return str(json.loads(next(out.glob("*/*/run.json")).read_text())["status"])


def rows(out: Path) -> bool:
    return any(path.stat().st_size > 200 for path in out.glob("*/*/metrics.csv"))


def saved(out: Path) -> list[Path]:
    return list(out.glob("*/*/trial_*/checkpoint_*/manifest.json"))


def send(
    training: Training,
    out: Path,
    numbers: Sequence[int],
    *,
    while_starting: bool = False,
    late: float | None = None,
    left_s: float = 10.0,
) -> Ended:
    """Send signals to a training in `out`, the first once it trains, or while it starts; the rest soon, or `late`.

    Of several signals the second one ends the run at once, so they come when there is a checkpoint.
    """

    def begun() -> bool:
        if while_starting:
            return any(out.glob("*/*/run.json"))
        return rows(out) and (len(numbers) == 1 or bool(saved(out)))

    wait_for(lambda: begun() or training.process.poll() is not None, 240)
    if not begun() or training.process.poll() is not None:
        raise AssertionError(f"the training does not begin, or has ended: {training.end(0)}")
    training.look()
    since = training.send(numbers[0])
    if late is not None and not wait_for(lambda: status_in(out) != "running", 60):
        raise AssertionError("run.json is not written before Ray's shutdown")
    time.sleep(late or 0.0)
    for number in numbers[1:]:
        time.sleep(0.3 if late is None else 0.05)
        if training.process.poll() is None:
            since = training.send(number)
    code, said, err = training.end(60)
    seconds = time.monotonic() - since
    wait_for(lambda: not training.left(), left_s)
    left = [training.seen[pid] for pid in training.left()]
    for pid in training.left():
        os.kill(pid, signal.SIGKILL)
    return Ended(code, seconds, status_in(out), bool(saved(out)), left, said, err)
