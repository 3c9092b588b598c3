"""A `rlkit train` of its own, the processes below it, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

KINDS = {  # what `ps` shows of Ray's processes (2.60)
    "raylet": ("/raylet/raylet ",),
    "gcs": ("/gcs/gcs_server ",),
    "runner": ("EnvRunner",),
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
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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
        runners = {pid for pid, args in found.items() if any(word in args for word in KINDS["runner"])}
        if kind == "runner":
            return sorted(runners)
        return sorted(
            pid for pid, args in found.items() if any(w in args for w in KINDS[kind]) and pid not in runners
        )

    def send(self, number: int) -> float:
        """Signal the driver; the time."""
        self.look()
        os.kill(self.pid, number)
        return time.monotonic()

    def end(self, seconds: float) -> tuple[int, str, str]:
        """Wait for its end: exit code, stdout, stderr. One that goes on is killed, and its code is -1000."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.look()
            self.process.kill()
            for pid in self.left():
                os.kill(pid, signal.SIGKILL)
            out, err = self.process.communicate()
            return -1000, out, err
        return self.process.returncode, out, err

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
