"""`kill -9` of parts of a training at random moments, then `--resume` by the command that was printed."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from processes import Training, rows_of, wait_for

EVERY = 2  # iterations between checkpoints
MORE = 3  # iterations that a run that was resumed must add


@dataclass
class Killed:
    """What came of one kill."""

    victim: str
    algorithm: str
    problems: list[str] = field(default_factory=list)
    lost: int = 0  # iterations that were done again
    seconds: float = 0.0  # from the kill, or the start of `--resume`, to the next new row
    code: int = 0
    inside_write: bool = False  # a checkpoint was being written


def recipe(algorithm: str) -> dict:
    """A small recipe with two remote runners; an iteration takes a fraction of a second."""
    multi = algorithm in ("MADDPG",)
    config: dict = {"env_runners": {"num_env_runners": 2, "rollout_fragment_length": 16}}
    if algorithm == "PPO":
        config["training"] = {"train_batch_size_per_learner": 64, "minibatch_size": 64, "num_epochs": 1}
    else:
        config["training"] = {
            "train_batch_size_per_learner": 16,
            "num_steps_sampled_before_learning_starts": 64,
        }
        config["reporting"] = {"min_sample_timesteps_per_iteration": 64}
    env = {"SAC": "Pendulum-v1", "MADDPG": "pettingzoo/mpe2.simple_spread_v3", "DRON": "soccer"}
    return {
        "name": "killed",
        "algorithm": algorithm,
        "env": env.get(algorithm, "CartPole-v1"),
        "seed": 0,
        "config": config,
        "stop": {"iterations": 100_000},
        "checkpoint": {"every": EVERY, "keep": 3},
        **({} if multi else {"model": {"name": "mlp", "hiddens": [16]}}),
    }


def try_one(victim: str, algorithm: str, folder: Path, rng: random.Random, patience: float = 1.0) -> Killed:
    """Train, kill, look, resume, look again.

    Args:
        victim: driver, trial, runner, runners, raylet or gcs.
        folder: empty; the run goes there.
        patience: factor on every limit, for a busy machine.
    """
    found = Killed(victim, algorithm)
    file = folder / "recipe.json"
    folder.mkdir(parents=True)
    file.write_text(json.dumps(recipe(algorithm)))  # JSON is YAML
    training = Training("train", file, "--out", folder / "runs")
    runs = folder / "runs" / "killed"

    def count() -> int:
        tables = list(runs.glob("*/metrics.csv"))
        return len(rows_of(tables[0].parent)) if tables and tables[0].stat().st_size else 0

    if not wait_for(lambda: count() >= 2 or training.process.poll() is not None, 180 * patience):
        found.problems.append("it did not begin")
    if training.process.poll() is not None or found.problems:
        found.problems.append(training.end(0)[2][-400:])
        return found
    run = next(runs.glob("*"))
    threading.Event().wait(rng.uniform(0.0, 3.0))
    if rng.random() < 0.5:  # half of the kills wait until a checkpoint is being written
        found.inside_write = wait_for(lambda: list(run.glob("trial_*/.writing_*")), 5.0)
    pids = training.of(victim.removesuffix("s") if victim == "runners" else victim)
    if victim == "runner":
        pids = pids[:1]
    if not pids:
        found.problems.append(f"there is no {victim}")
    training.look()
    before = rows_of(run)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    at = time.monotonic()
    if victim in ("runner", "runners"):
        target = before[-1] + MORE
        if not wait_for(
            lambda: rows_of(run)[-1] >= target or training.process.poll() is not None, 120 * patience
        ):
            found.problems.append("no new row")
        found.seconds = time.monotonic() - at
        training.send(signal.SIGINT)
        found.code, _, err = training.end(60 * patience)
        if found.code != 130:
            found.problems.append(f"exit {found.code}: {err[-300:]}")
    else:
        found.code, _, err = training.end(120 * patience)
        if victim != "driver" and found.code != 1:
            found.problems.append(f"exit {found.code}: {err[-300:]}")
    if not wait_for(lambda: not training.left(), 60):
        found.problems.append(f"left after 60 s: {[training.seen[pid] for pid in training.left()]}")
    before = rows_of(run)
    lines = [line for line in err.splitlines() if "rlkit train --resume" in line]
    if victim == "driver":  # nobody is left to print it
        words = ["train", "--resume", str(run)]
    elif lines:
        words = shlex.split(lines[-1].partition("rlkit ")[2])
    else:
        words = ["train", "--resume", str(run)]
        if victim in ("trial", "raylet", "gcs"):
            found.problems.append(f"the command to go on was not printed: {err[-200:]}")
    again = Training(*words)
    at = time.monotonic()
    target = before[-1] + MORE
    reached = wait_for(lambda: rows_of(run)[-1] >= target or again.process.poll() is not None, 240 * patience)
    seconds = time.monotonic() - at
    again.send(signal.SIGINT) if again.process.poll() is None else None
    code, _, err = again.end(60 * patience)
    if not reached or code != 130:
        found.problems.append(f"--resume: exit {code}: {err[-400:]}")
    if victim not in ("runner", "runners"):
        found.seconds = seconds
    after = rows_of(run)
    if after != list(range(1, len(after) + 1)):
        found.problems.append(f"iterations {after}")
    said = [line for line in err.splitlines() if "going on from checkpoint_" in line]
    first = int(said[0].rpartition("checkpoint_")[2]) if said else 0
    found.lost = before[-1] - first
    if found.lost > EVERY + 1:
        found.problems.append(
            f"{found.lost} iterations were done again; a checkpoint is written every {EVERY}"
        )
    if not wait_for(lambda: not again.left(), 60):
        found.problems.append("processes of the resumed run are left")
    return found


def guarded(victim: str, algorithm: str, place: Path, rng: random.Random) -> Killed:
    """`try_one`; a try that breaks is a try that did not hold."""
    try:
        return try_one(victim, algorithm, place, rng, patience=3.0)
    except Exception as error:
        return Killed(victim, algorithm, [f"{type(error).__name__}: {error}"])
