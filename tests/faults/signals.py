"""Signals at a training: when they come, how soon it ends, what it says and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from processes import Training, wait_for

AT_ONCE_S = 2.0  # on a quiet machine; `patience` in the program stretches it


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


def start(recipe: Path, out: Path, *words: str | Path) -> Training:
    return Training("train", recipe, "stop.iterations=100000", "--out", out, "--json", *words)


def rows(out: Path) -> bool:
    return any(path.stat().st_size > 200 for path in out.glob("*/*/metrics.csv"))


def send(
    training: Training, out: Path, numbers: list[int], *, while_starting: bool = False, left_s: float = 10.0
) -> Ended:
    """Send signals to a training in `out`, the first once it trains, or while it starts."""
    begun = (lambda: list(out.glob("*/*/run.json"))) if while_starting else (lambda: rows(out))
    if not wait_for(lambda: begun() or training.process.poll() is not None, 240):
        training.end(0)
        raise AssertionError("the training does not begin")
    training.look()
    since = training.send(numbers[0])
    for number in numbers[1:]:
        time.sleep(0.3)
        since = training.send(number)
    code, said, err = training.end(60)
    seconds = time.monotonic() - since
    wait_for(lambda: not training.left(), left_s)
    info = json.loads(next(out.glob("*/*/run.json")).read_text())
    found = list(out.glob("*/*/trial_*/checkpoint_*/manifest.json"))
    left = [training.seen[pid] for pid in training.left()]
    for pid in training.left():
        os.kill(pid, signal.SIGKILL)
    return Ended(code, seconds, info["status"], bool(found), left, said, err)
