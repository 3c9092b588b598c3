"""Ray's processes below this one: found, watched and ended by pid, where `ray.shutdown` would take too long."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from importlib.util import find_spec

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "/dashboard/agent.py", "/runtime_env/agent/main.py")
CONTROL = ("/gcs_server ", "/raylet/raylet ")
GONE = "Z"  # the state of a process that has ended and that nobody has asked about


def listed() -> dict[int, tuple[int, str, str]]:
    """Return every process: pid -> parent, state, command line."""
    text = subprocess.run(["ps", "-ewwo", "pid=,ppid=,stat=,args="], capture_output=True, text=True).stdout
    rows = (line.split(None, 3) for line in text.splitlines())
    return {
        int(row[0]): (int(row[1]), row[2], row[3] if len(row) > 3 else "") for row in rows if len(row) > 2
    }


def of_ray() -> dict[int, str]:
    """Return the living processes that Ray started below this one: pid -> command line.

    Those started by this process itself are told by the path of the ray package; a user's own are left out.
    """
    spec = find_spec("ray")
    package = (spec.submodule_search_locations or [""])[0] if spec else ""
    everything = {pid: row for pid, row in listed().items() if not row[1].startswith(GONE)}
    level = {
        pid for pid, (parent, _, args) in everything.items() if parent == os.getpid() and package in args
    }
    found: set[int] = set()
    while level:
        found |= level
        level = {pid for pid, (parent, _, _) in everything.items() if parent in level} - found
    return {pid: everything[pid][2] for pid in found}


def lives(pid: int) -> bool:
    """Whether a child of this process lives."""
    import psutil  # Ray brings it

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(pids: dict[int, str]) -> None:
    """End processes at once."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


class Heir:
    """Ends Ray's agents when this process is killed.

    Ray's agents outlive the raylet by 60 s where it was killed: they report its death to a control store that is gone
    too (2.60, `process_watcher.report_raylet_error_logs`). A shell reads from a pipe that closes with this process.
    """

    def __init__(self, agents: dict[int, str]):
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", 'read line; sleep 1; kill -9 "$@"', "rlkit", *map(str, agents)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Leave the agents to Ray."""
        self._shell.kill()
        self._shell.wait()
        assert self._shell.stdin is not None
        self._shell.stdin.close()
