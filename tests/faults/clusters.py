"""A cluster of raylets on this machine, parts of which are lost at a chosen moment of a training, or join late.

    python tests/faults/clusters.py sampling FOLDER

Prints a line of JSON: what did not hold, iterations done again, seconds until three new ones stood in metrics.csv.
What is lost dies as in a power cut: the node's raylet and every process below it, by SIGKILL, at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import kills
from processes import KINDS as KINDS_OF_PROCESS
from processes import Training, below, rows_of, wait_for

KINDS = {
    "sampling": "a node with the env runners lost while they sample",
    "update": "a node with the learner lost in an update",
    "checkpoint": "a node with the trial lost while it writes a checkpoint",
    "late": "a node that joins late",
    "head": "the head node lost and started again",
}
AWAY = {"away": 1}  # a resource that only the node to be lost has
BEGUN_S, GOES_ON_S, ENDS_S = 240.0, 240.0, 120.0


@dataclass
class Found:
    """What came of one try."""

    problems: list[str] = field(default_factory=list)
    lost: int | None = None  # iterations that were done again
    seconds: float = 0.0


def attempt(kind: str, folder: Path) -> Found:
    """One try, in a process of its own: Ray keeps one cluster a process."""
    folder.mkdir(parents=True)
    done = subprocess.run([sys.executable, __file__, kind, folder], capture_output=True, text=True)
    if done.returncode:
        return Found([f"the attempt itself ended with {done.returncode}: {done.stderr[-600:]}"])
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def recipe(kind: str) -> dict[str, Any]:
    """PPO, with its runners or its learner where the resource `away` is, or its trial where alone are CPUs."""
    made = {**kills.recipe("PPO"), "tune": {"max_failures": 3}}
    runners, config = {"num_env_runners": 0}, made["config"]
    config["training"] = {"train_batch_size_per_learner": 512, "minibatch_size": 64, "num_epochs": 4}
    if kind == "sampling":
        runners = {"num_env_runners": 1, "custom_resources_per_env_runner": AWAY}
        del made["tune"]  # the trial itself outlives its runners
    if kind == "update":
        config["learners"] = {"num_learners": 1, "custom_resources_per_learner": AWAY}
    if kind == "checkpoint":
        made["model"] = {"name": "mlp", "hiddens": [1024, 1024]}  # so that writing takes a while
    if kind == "late":
        made["tune"] = {"samples": 2}
    config["env_runners"] = runners
    return made


class Nodes:
    """A head and perhaps one more node, on this machine.

    Args:
        port: of the head's control store.
        cpus: of the head. away: CPUs of a second node, which has the resource `away`; 0 for none.
    """

    def __init__(self, port: int, cpus: int, away: int):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": cpus, "gcs_server_port": port, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.away = self.join(away) if away else None

    def join(self, cpus: int) -> Any:
        return self.cluster.add_node(num_cpus=cpus, resources={"away": cpus})

    def of(self, node: Any) -> list[int]:
        """A node's processes and all below them."""
        own = [info.process.pid for infos in node.all_processes.values() for info in infos]
        return own + [child for pid in own for child in below(pid)]

    def lose(self, node: Any, pids: list[int]) -> None:
        """Kill a node's processes at once."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self.cluster.shutdown()


def works(*words: str) -> bool:
    """Whether one of Ray's actors below this process is at work: RLlib calls `apply`, and `ps` shows the method."""
    at_work = [args for args in below(os.getpid()).values() if ".apply" in args]
    return any(word in args for args in at_work for word in words)


def moment(kind: str, run: Path) -> Callable[[], object]:
    """What to wait for before the node is lost."""
    return {
        "sampling": lambda: works(*KINDS_OF_PROCESS["runner"]),
        "update": lambda: works(*KINDS_OF_PROCESS["learner"], "Learner"),
        "checkpoint": lambda: [path for path in run.glob("trial_*/.writing_*") if any(path.iterdir())],
    }[kind]


def begin(kind: str, folder: Path, address: str) -> tuple[Training, Path]:
    """A training with three rows and a checkpoint, and its run folder."""
    file = folder / "recipe.json"
    file.write_text(json.dumps(recipe(kind)))
    training = Training("train", file, "--out", folder / "runs", "--address", address)
    runs = folder / "runs" / "killed"

    def begun() -> bool:
        saved = list(runs.glob("*/trial_*/checkpoint_*/manifest.json"))
        return bool(saved) and any(len(rows_of(t.parent)) >= 3 for t in runs.glob("*/metrics.csv"))

    if not wait_for(lambda: training.process.poll() is not None or begun(), BEGUN_S) or not begun():
        raise AssertionError(f"it did not begin: {training.end(0)[1:]}")
    return training, next(runs.glob("*"))


def more(found: Found, training: Training, run: Path, target: int) -> None:
    """The training must reach an iteration."""
    reached = wait_for(lambda: training.process.poll() is not None or rows_of(run)[-1] >= target, GOES_ON_S)
    if not reached or training.process.poll() is not None:
        code, out, err = training.end(0)
        found.problems.append(f"no new row, exit {code}: {out[-300:]} {err[-600:]}")


def stop(found: Found, training: Training, run: Path) -> None:
    """^C must end one that goes on with 130; rows have no gap."""
    if training.process.poll() is None:
        training.send(signal.SIGINT)
        code, _, err = training.end(ENDS_S)
        if code != 130:
            found.problems.append(f"^C: exit {code}: {err[-300:]}")
    rows = rows_of(run)
    if rows != list(range(1, len(rows) + 1)):
        found.problems.append(f"iterations {rows}")


def lose_away(kind: str, folder: Path, found: Found) -> None:
    """The second node is lost; another one joins a few seconds later."""
    # a trial goes where its CPU is: to the head beside the runners' node, away from a head that has none
    cpus, away = {"sampling": (1, 1), "update": (1, 2), "checkpoint": (0, 2)}[kind]
    nodes = Nodes(free_port(), cpus, away)
    training, run = begin(kind, folder, nodes.cluster.address)
    try:
        pids = nodes.of(nodes.away)  # before the moment, which may be short
        if not wait_for(moment(kind, run), 60):
            raise AssertionError(f"the moment did not come: {kind}")
        nodes.lose(nodes.away, pids)
        since, before = time.monotonic(), rows_of(run)[-1]
        if kind == "checkpoint" and not list(run.glob("trial_*/.writing_*")):
            found.problems.append("the checkpoint was finished before the node was gone")
        threading.Event().wait(random.uniform(0, 10))  # nobody has a node at hand
        nodes.join(away)
        more(found, training, run, before + kills.MORE)
        found.seconds = time.monotonic() - since
        if kind != "sampling":
            found.lost = before - int(training.said("going on from checkpoint_") or 0)
            if found.lost > kills.EVERY + 1:
                found.problems.append(f"{found.lost} iterations were done again")
        stop(found, training, run)
    finally:
        training.end(0)
        nodes.close()


def join_late(folder: Path, found: Found) -> None:
    """Two trials and room for one: the second begins on the node that joins, and the first is not disturbed."""
    nodes = Nodes(free_port(), cpus=1, away=0)
    training, run = begin("late", folder, nodes.cluster.address)
    try:
        since = time.monotonic()
        nodes.join(1)
        if not wait_for(lambda: len({*trials_of(run)}) == 2, GOES_ON_S):
            found.problems.append(f"the second trial did not begin: {training.end(0)[2][-600:]}")
        found.seconds = time.monotonic() - since
        training.send(signal.SIGINT)
        code, _, err = training.end(ENDS_S)
        if code != 130:
            found.problems.append(f"^C: exit {code}: {err[-300:]}")
        for name in {*trials_of(run)}:
            rows = [
                number for trial, number in zip(trials_of(run), rows_of(run), strict=True) if trial == name
            ]
            if rows != list(range(1, len(rows) + 1)):
                found.problems.append(f"{name}: iterations {rows}")
    finally:
        training.end(0)
        nodes.close()


def restart_head(folder: Path, found: Found) -> None:
    """The run ends soon and says how to go on; that command goes on when a head is there again."""
    port = free_port()
    nodes = Nodes(port, cpus=2, away=2)
    training, run = begin("head", folder, nodes.cluster.address)
    try:
        head = nodes.cluster.head_node
        nodes.lose(head, nodes.of(head))
        since = time.monotonic()
        code, _, err = training.end(ENDS_S)
        ended = time.monotonic() - since
        status = json.loads((run / "run.json").read_text())["status"]
        if code != 1 or status != "failed":
            found.problems.append(f"exit {code} after {ended:.0f} s, run.json says {status}: {err[-600:]}")
        if "Traceback" in err or "control store" not in err:
            found.problems.append(f"stderr does not say that the head is gone: {err[-600:]}")
        lines = [line for line in err.splitlines() if "rlkit train --resume" in line]
        if not lines:
            found.problems.append("the command to go on was not printed")
        before = rows_of(run)[-1]
        nodes.close()
        nodes = Nodes(port, cpus=2, away=0)
        since = time.monotonic()
        words = shlex.split(lines[-1].partition("rlkit ")[2]) if lines else ["train", "--resume", str(run)]
        training = Training(*words)
        more(found, training, run, before + kills.MORE)
        found.seconds = time.monotonic() - since
        found.lost = before - int(training.said("going on from checkpoint_") or 0)
        if found.lost > kills.EVERY + 1:
            found.problems.append(f"{found.lost} iterations were done again")
        stop(found, training, run)
    finally:
        training.end(0)
        nodes.close()


def trials_of(run: Path) -> list[str]:
    """The trial of each row of metrics.csv."""
    return [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main(kind: str, folder: Path) -> None:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a cluster of one try, on the loopback address
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # on a busy machine
    found = Found()
    try:
        if kind == "late":
            join_late(folder, found)
        elif kind == "head":
            restart_head(folder, found)
        else:
            lose_away(kind, folder, found)
    except AssertionError as error:  # it did not begin, or its moment did not come
        found.problems.append(str(error)[-600:])
    found.seconds = round(found.seconds, 1)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
