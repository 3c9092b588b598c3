"""A `rlkit train` of its own, the processes below it, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

KINDS = {  # what `ps` shows of Ray's processes (2.60)
    "raylet": ("/raylet/raylet ",),
    "gcs": ("/gcs/gcs_server ",),
    "runner": ("EnvRunner",),
    "learner": ("_WrappedExecutable", "RayTrainWorker"),  # what a LearnerGroup runs its learners in
    "trial": ("ray::PPO", "ray::DQN", "ray::SAC", "ray::MADDPG", "ray::DRON"),
}


def table() -> dict[int, tuple[int, str]]:
    """Every process: pid -> parent, command line; zombies are no longer processes."""
    listed = subprocess.run(["ps", "-ewwo", "pid=,ppid=,stat=,args="], capture_output=True, text=True).stdout
    found = {}
    for line in listed.splitlines():
        pid, parent, state, *args = line.split(None, 3)
        if not state.startswith("Z"):
            found[int(pid)] = (int(parent), args[0] if args else "")
    return found


def below(pid: int) -> dict[int, str]:
    """The descendants of a process: pid -> command line."""
    everything = table()
    found: dict[int, str] = {}
    level = {pid}
    while level:
        level = {child for child, (parent, _) in everything.items() if parent in level and child not in found}
        found |= {child: everything[child][1] for child in level}
    return found


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    """Look every 50 ms whether a condition holds; whether it did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        threading.Event().wait(0.05)
    return bool(condition())


class Training:
    """`python -m rlkit …` in a process group of its own; every process it ever had is known to `left`."""

    def __init__(self, *args: str | Path, cwd: Path | None = None, **env: str):
        command = [sys.executable, "-m", "rlkit", *map(str, args)]
        kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        self.began = time.monotonic()
        # Files instead of pipes: a long run would fill a pipe, and what it said can be read while it runs.
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - they live as long as it
        self.process = subprocess.Popen(
            command,
            stdout=self._files[0],
            stderr=self._files[1],
            cwd=cwd,
            env={**kept, **env},
            start_new_session=True,
            # Under nohup it would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        self.pid = self.process.pid
        self.seen: dict[int, str] = {}

    def look(self) -> dict[int, str]:
        """The processes below it now."""
        now = below(self.pid)
        self.seen |= now
        return now

    def of(self, kind: str) -> list[int]:
        """The pids of its processes of a kind of `KINDS`, or of itself (`driver`)."""
        if kind == "driver":
            return [self.pid]
        found = self.look()
        # Ray's worker processes are called after the method they are in: `ray::PPO.train`, `ray::DQNTorchLearner…`.
        kinds = {
            pid: next((k for k, words in KINDS.items() if any(w in args for w in words)), "")
            for pid, args in found.items()
        }
        return sorted(pid for pid, its in kinds.items() if its == kind)

    def send(self, number: int) -> float:
        """Signal the driver; the time."""
        self.look()
        os.kill(self.pid, number)
        return time.monotonic()

    def end(self, seconds: float) -> tuple[int, str, str]:
        """Wait for its end: exit code, stdout, stderr. One that goes on is killed, and its code is -1000."""
        code = -1000
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.look()
            self.process.kill()
            for pid in self.left():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        return code, *(self._text(number) for number in (0, 1))

    def _text(self, number: int) -> str:
        handle = self._files[number].fileno()  # its place in the file is the child's too, so it stays
        return os.pread(handle, os.fstat(handle).st_size, 0).decode(errors="replace")

    def said(self, words: str) -> str:
        """The word on stderr that follows `words`; empty if they were not said."""
        return (self._text(1).rpartition(words)[2].split() or [""])[0] if words in self._text(1) else ""

    def left(self) -> list[int]:
        """The processes it had that still live."""
        now = table()
        return [
            pid
            for pid, args in self.seen.items()
            if pid in now and now[pid][1].split()[:1] == args.split()[:1]
        ]


def rows_of(run: Path) -> list[int]:
    """The iterations in a metrics.csv, as they stand there."""
    lines = (run / "metrics.csv").read_text().splitlines()
    place = lines[0].split(",").index("iteration")
    return [int(line.split(",")[place]) for line in lines[1:]]
