"""Long runs: what grows with the iterations of a training that is otherwise in balance.

    python benchmarks/soak.py [--algorithms DQN,SAC,PPO,MADDPG,DRON] [--iterations 200] [--out FILE.jsonl]
    python benchmarks/soak.py --algorithms DQN --minutes 60

Each algorithm trains as a recipe does; the driver is this process, the trial one of Ray's, and a third one looks at
both. Lines of JSON: slope of the resident memory in kB per iteration (least squares after a quarter of the iterations,
in which buffers fill), change of open files and of shared memory (that of the whole machine), bytes of the run folder
and of what is no checkpoint per iteration, and what an iteration costs in the last quarter over the second one, in CPU
seconds of the trial and in seconds. CPU seconds are divided by those of a fixed loop timed beside the training in that
quarter: what other users of the machine take shows in both. The bars are 100 kB per iteration for each process, and
5 % more CPU at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import ray  # noqa: F401 - it brings psutil

import rlkit

BAR_KB = 100.0
BAR_CPU = 1.05
ENV = {"SAC": "Pendulum-v1", "MADDPG": "pettingzoo/mpe2.simple_spread_v3", "DRON": "soccer"}


def recipe(algorithm: str, stop: dict[str, float]) -> dict[str, Any]:
    """A small recipe whose buffers are full after a few iterations."""
    config: dict[str, Any] = {"env_runners": {"num_env_runners": 0}}
    if algorithm == "PPO":
        config["training"] = {"train_batch_size_per_learner": 128, "minibatch_size": 64, "num_epochs": 1}
    else:
        kind = {"type": "EpisodeReplayBuffer", "capacity": 1000}
        config["training"] = {
            "train_batch_size_per_learner": 16, "num_steps_sampled_before_learning_starts": 64,
            "replay_buffer_config": kind,
        }  # fmt: skip
        config["reporting"] = {"min_sample_timesteps_per_iteration": 128}
    return {
        "name": "soak", "algorithm": algorithm, "env": ENV.get(algorithm, "CartPole-v1"), "seed": 0,
        "config": config, "stop": stop, "checkpoint": {"every": 20, "keep": 2},
        **({} if algorithm == "MADDPG" else {"model": {"name": "mlp", "hiddens": [16]}}),
    }  # fmt: skip


# iteration; kB and CPU seconds by process and of the loop, open files, shared memory
Look = tuple[int, dict[str, float]]


def loop_s() -> float:
    """CPU seconds of work that never changes: some 20 ms."""
    begin, total = time.thread_time(), 0
    for number in range(600_000):
        total += number
    return time.thread_time() - begin


def watch(folder: Path, algorithm: str, over: Event, rows_to: Connection) -> None:
    """Look at the driver, which is the parent of this process, and at the trial twice a second."""
    import psutil

    driver, rows = psutil.Process(os.getppid()), list[Look]()
    while not over.wait(0.5):
        tables = list(folder.glob("soak/*/metrics.csv"))
        if not tables or not tables[0].stat().st_size:
            continue
        iteration = len(tables[0].read_text().splitlines()) - 1
        found = {"driver": driver.memory_info().rss / 1024, "driver_files": float(driver.num_fds())}
        found["loop_s"] = loop_s()
        found["shm"] = psutil.disk_usage("/dev/shm").used / 1024
        for child in driver.children(recursive=True):
            try:
                if f"ray::{algorithm}" in " ".join(child.cmdline()):
                    found["trial"] = child.memory_info().rss / 1024
                    found["trial_files"] = float(child.num_fds())
                    found["cpu_s"] = sum(child.cpu_times()[:2])
            except psutil.Error:
                continue
        rows.append((iteration, found))
    rows_to.send(rows)


def slope(rows: list[Look], name: str) -> float:
    """Return kB, or CPU seconds, per iteration of a process."""
    points = [(iteration, row[name]) for iteration, row in rows if name in row]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0]) if len({p[0] for p in points}) > 2 else np.nan


def middle(rows: list[Look], name: str) -> float:
    """Return the median of what was seen."""
    return float(np.median([row[name] for _, row in rows if name in row]))


def change(rows: list[Look], name: str) -> float:
    """Return the last value that was seen less the first; 0 where a process was never seen."""
    values = [row[name] for _, row in rows if name in row]
    return values[-1] - values[0] if values else 0.0


def soak(algorithm: str, stop: dict[str, float]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        spawn = multiprocessing.get_context("spawn")
        over, (rows_from, rows_to) = spawn.Event(), spawn.Pipe(duplex=False)
        watcher = spawn.Process(target=watch, args=(Path(name), algorithm, over, rows_to), daemon=True)
        watcher.start()
        run = rlkit.train(recipe(algorithm, stop), out=name)
        over.set()
        rows: list[Look] = rows_from.recv()
        watcher.join()
        seconds = np.diff(run.metrics["time_s"].to_numpy())
        sizes = {path: path.stat().st_size for path in run.path.rglob("*") if path.is_file()}
    logs = sum(size for path, size in sizes.items() if "checkpoint_" not in str(path))
    iterations = len(seconds) + 1
    quarter = iterations // 4
    late = [row for row in rows if row[0] > quarter]
    second = [row for row in late if row[0] <= 2 * quarter]
    last = [row for row in late if row[0] > iterations - quarter]
    slopes = {key: round(slope(late, key), 1) for key in ("driver", "trial")}
    machine = middle(last, "loop_s") / middle(second, "loop_s")
    cpu = slope(last, "cpu_s") / slope(second, "cpu_s") / machine
    return {
        "algorithm": algorithm, "iterations": iterations, "minutes": round(float(seconds.sum()) / 60, 1),
        "looks": len(late), **{f"{key}_kb_per_iteration": value for key, value in slopes.items()},
        **{f"{key}_grown": round(change(late, key), 1) for key in ("driver_files", "trial_files", "shm")},
        "folder_kb": round(sum(sizes.values()) / 1024), "logs_kb_per_iteration": round(logs / 1024 / iterations, 2),
        "cpu_end_over_begin": round(cpu, 3), "loop_end_over_begin": round(machine, 3),
        "time_end_over_begin": round(
            float(np.median(seconds[-quarter:]) / np.median(seconds[quarter : 2 * quarter])), 3
        ),
        "held": all(value <= BAR_KB for value in slopes.values()), "as_fast": bool(cpu <= BAR_CPU),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithms", default="DQN,SAC,PPO,MADDPG,DRON")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--minutes", type=float, help="train so long instead of so many iterations")
    parser.add_argument("--out", type=Path, help="add the lines to this file too")
    given = parser.parse_args()
    stop = {"time_s": 60 * given.minutes} if given.minutes else {"iterations": given.iterations}
    for algorithm in given.algorithms.split(","):
        line = json.dumps(soak(algorithm, stop))
        print(line, flush=True)
        if given.out:
            with given.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
