"""`kill -9` of parts of a training at random moments, then `--resume` by the command that was printed."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import Training, rows_of, wait_for

EVERY = 2  # iterations between checkpoints
MORE = 3  # iterations that a run must add after a kill
SURVIVED = ("runner", "runners")  # the same training goes on without them
VICTIMS = (*SURVIVED, "driver", "trial", "learner", "raylet", "gcs")


@dataclass
class Killed:
    """What came of one kill."""

    victim: str
    algorithm: str
    problems: list[str] = field(default_factory=list)
    lost: int = 0  # iterations that were done again
    seconds: float = 0.0  # from the kill, or the start of `--resume`, to the third new row
    code: int = 0
    inside_write: bool = False  # a checkpoint was being written


def recipe(algorithm: str, *, learner: bool = False) -> dict:
    """A small recipe with two remote runners; an iteration takes a fraction of a second.

    Args:
        algorithm: DQN, SAC, PPO, MADDPG or DRON.
        learner: learn in a process of its own.
    """
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
    if learner:
        config["learners"] = {"num_learners": 1}
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


class Chain:
    """One run that is killed again and again; each resume is the next one's victim.

    Args:
        algorithm: whose recipe runs.
        folder: empty; the run goes there.
        rng: moments and victims.
        patience: factor on every limit, for a busy machine.
    """

    def __init__(self, algorithm: str, folder: Path, rng: random.Random, patience: float = 1.0):
        self.algorithm, self.folder, self.rng, self.patience = algorithm, folder, rng, patience
        self.run: Path | None = None
        self.training: Training | None = None

    def begin(self, learner: bool) -> str:
        """Train until two rows are there; what is wrong, or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "recipe.json"
        file.write_text(json.dumps(recipe(self.algorithm, learner=learner)))  # JSON is YAML
        runs = self.folder / "runs" / "killed"
        known = set(runs.glob("*"))
        training = self.training = Training("train", file, "--out", self.folder / "runs")

        def begun() -> bool:
            new = [path for path in set(runs.glob("*")) - known if (path / "metrics.csv").exists()]
            self.run = new[0] if new else None
            return training.process.poll() is not None or (bool(new) and len(rows_of(new[0])) >= 2)

        if not wait_for(begun, 180 * self.patience) or training.process.poll() is not None:
            said = training.end(0)[2][-400:]
            self.training = None
            return f"it did not begin: {said}"
        return ""

    def kill(self, victim: str) -> Killed:
        """Kill, look, resume, look again; a try that breaks is a try that did not hold."""
        found = Killed(victim, self.algorithm)
        try:
            if self.training is None and (wrong := self.begin(learner=victim == "learner")):
                found.problems.append(wrong)
            else:
                self._kill(found)
        except Exception as error:
            found.problems.append(f"{type(error).__name__}: {error}")
        if found.problems:
            self.close()
        return found

    def close(self) -> None:
        """End what runs."""
        if self.training is not None:
            self.training.end(0)
            self.training = None

    def _kill(self, found: Killed) -> None:
        training, run, victim = self.training, self.run, found.victim
        assert training is not None
        assert run is not None
        threading.Event().wait(self.rng.uniform(0.0, 3.0))
        if self.rng.random() < 0.5:  # half of the kills wait until a checkpoint is being written
            found.inside_write = wait_for(lambda: list(run.glob("trial_*/.writing_*")), 5.0)
        pids = training.of(victim.removesuffix("s") if victim == "runners" else victim)
        if victim == "runner":
            pids = pids[:1]
        if not pids:
            found.problems.append(f"nothing was killed: there is no {victim}")
            return
        before = rows_of(run)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if victim in SURVIVED:
            self._goes_on(found, before[-1] + MORE)
        else:
            self._comes_back(found)
        rows = rows_of(run)
        if rows != list(range(1, len(rows) + 1)):
            found.problems.append(f"iterations {rows}")

    def _goes_on(self, found: Killed, target: int) -> None:
        """The training must add rows, with two runners."""
        training, run, at = self.training, self.run, time.monotonic()
        assert training is not None
        assert run is not None
        reached = wait_for(
            lambda: training.process.poll() is not None or rows_of(run)[-1] >= target, 120 * self.patience
        )
        found.seconds = time.monotonic() - at
        if training.process.poll() is not None:
            found.problems.append(f"exit {training.process.returncode}: {training.end(0)[2][-300:]}")
        elif not reached:
            found.problems.append("no new row")
        elif not wait_for(lambda: len(training.of("runner")) == 2, 30):
            found.problems.append(f"{len(training.of('runner'))} runners after 30 s more")

    def _comes_back(self, found: Killed) -> None:
        """The training must end, leave nothing, say how to go on, and go on from the newest checkpoint."""
        training, run, victim = self.training, self.run, found.victim
        assert training is not None
        assert run is not None
        found.code, _, err = training.end(120 * self.patience)
        self.training = None
        if victim != "driver" and found.code != 1:
            found.problems.append(f"exit {found.code}: {err[-300:]}")
        if not wait_for(lambda: not training.left(), 60):
            found.problems.append(f"left after 60 s: {[training.seen[pid] for pid in training.left()]}")
        before = rows_of(run)
        words = ["train", "--resume", str(run)]  # after the driver's end nobody is left to print it
        lines = [line for line in err.splitlines() if "rlkit train --resume" in line]
        if lines:
            words = shlex.split(lines[-1].partition("rlkit ")[2])
        elif victim != "driver":
            found.problems.append(f"the command to go on was not printed: {err[-200:]}")
        at = time.monotonic()
        again = self.training = Training(*words)
        target = before[-1] + MORE
        reached = wait_for(
            lambda: again.process.poll() is not None or rows_of(run)[-1] >= target, 240 * self.patience
        )
        found.seconds = time.monotonic() - at
        if not reached or again.process.poll() is not None:
            code, out, err = again.end(0)
            traces = "".join(path.read_text()[-2000:] for path in run.glob("trial_*/error.txt"))
            found.problems.append(f"--resume: exit {code}: {out[-400:]} {err[-400:]} {traces}")
            return
        first = again.said("going on from checkpoint_")
        found.lost = before[-1] - int(first) if first else before[-1]
        if found.lost > EVERY + 1:
            found.problems.append(
                f"{found.lost} iterations were done again; a checkpoint is written every {EVERY}"
            )


def chain(algorithm: str, victims: Sequence[str], place: Path, rng: random.Random) -> Iterator[Killed]:
    """Kill each of the victims, in a random order, in one run of an algorithm that ends with ^C."""
    order = sorted((v for v in victims if v != "learner"), key=lambda _: rng.random())
    for names, learner in ((order, False), ([v for v in victims if v == "learner"], True)):
        link = Chain(algorithm, place / ("learner" if learner else "run"), rng, patience=3.0)
        try:
            for victim in names:
                yield link.kill(victim)
            if link.training is not None:
                last = link.training
                last.send(signal.SIGINT)
                code, _, err = last.end(180)
                if code != 130 or not wait_for(lambda last=last: not last.left(), 60):
                    found = Killed(
                        "the end", algorithm, [f"^C: exit {code}, left {last.left()}: {err[-300:]}"]
                    )
                    yield found
        finally:
            link.close()


def try_one(victim: str, algorithm: str, folder: Path, rng: random.Random) -> Killed:
    """One kill in a run of its own."""
    found = list(chain(algorithm, [victim], folder, rng))
    found[0].problems += [problem for more in found[1:] for problem in more.problems]
    return found[0]
