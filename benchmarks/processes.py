"""Wall-clock and CPU seconds of a command with everything it starts, Ray's daemons and workers included."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """`wall` and `cpu` (user and system) in seconds, and the command's exit status and output."""

    wall: float
    cpu: float
    code: int
    out: str


def measure(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> Cost:
    """Run a command to its end and add up the CPU time of the whole process tree.

    Ray's workers outlive their parent for a moment. This process adopts orphans (PR_SET_CHILD_SUBREAPER) and waits for
    them, so that `RUSAGE_CHILDREN` has everyone.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(
        list(command),
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate()
    wall = time.monotonic() - started
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if process.returncode:
        print(err[-3000:])
    return Cost(wall, cpu, process.returncode, out)
