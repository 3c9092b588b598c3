"""Commands in benchmarks: what one costs in wall-clock and CPU seconds, and what a command of rlkit prints.

The seconds are those of everything it starts, Ray's daemons and workers included.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """`wall` and `cpu` (user and system) in seconds, and the command's exit status and output."""

    wall: float
    cpu: float
    code: int
    out: str


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a file of results: a row, with the processor, the commit and the date it was measured on."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else []
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty= with changes"]
    said = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    stamp = {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "commit": said.stdout.strip() or None,
        "date": time.strftime("%Y-%m-%d"),
    }
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as table:
        table.write(json.dumps({**stamp, **row}) + "\n")


def measure(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    progress: bool = False,
) -> Cost:
    """Run a command to its end and add up the CPU time of the whole process tree.

    With `progress` what it says on stderr is seen at once; otherwise only the end of it, where it fails.

    The tree is read from /proc ten times a second, after a minute once a second: the raylet lets the kernel reap its
    workers, whose time then never reaches anyone's `RUSAGE_CHILDREN`. This process adopts orphans
    (PR_SET_CHILD_SUBREAPER), so that they stay in the tree. What a process does after the last reading is lost; a
    command that is over sooner counts by `RUSAGE_CHILDREN`.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    seen: dict[tuple[int, int], float] = {}
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(seen, over), daemon=True)
    strangers = set(tree())
    before = _reaped()
    started = time.monotonic()
    process = subprocess.Popen(
        list(command),
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=None if progress else subprocess.PIPE,
        text=True,
    )
    watcher.start()
    out, err = process.communicate()
    wall = time.monotonic() - started
    over.set()
    watcher.join()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    watched = sum(seconds for key, seconds in seen.items() if key not in strangers)
    cpu = max(watched, _reaped() - before)
    if process.returncode:
        print((err or "")[-3000:])
    return Cost(wall, cpu, process.returncode, out)


def _reaped() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _watch(seen: dict[tuple[int, int], float], over: threading.Event) -> None:
    started = time.monotonic()
    while True:
        last = over.is_set()
        seen.update(tree())
        if last:
            return
        over.wait(0.1 if time.monotonic() - started < 60 else 1)


def tree() -> dict[tuple[int, int], float]:
    """Return the CPU seconds of this process's descendants by (pid, start time)."""
    parents: dict[int, int] = {}
    found: dict[int, tuple[int, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        found[pid] = (int(fields[19]), (int(fields[11]) + int(fields[12])) / TICKS)

    def is_mine(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == os.getpid():
                return True
        return False

    return {(pid, began): cpu for pid, (began, cpu) in found.items() if is_mine(pid)}


def rlkit(*words: str) -> str:
    """Run a command of rlkit in the project folder; return what it printed. Ends this process if it fails."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "rlkit", *words],
        cwd=Path(__file__).parents[1],
        env=env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(
            f"rlkit {' '.join(words)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout
