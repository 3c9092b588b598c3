"""What the driver pays for many env runners: real ones, simulated ones, and trials that wait.

    python benchmarks/scale.py runners [--runners 0 1 2 4]                # PPO, CartPole-v1, env steps per second
    python benchmarks/scale.py driver [--runners 1 10 100 1000] [--width 4]
    python benchmarks/scale.py queue [--trials 200] [--seconds 240]       # a search, ^C after some minutes, --resume

`driver` builds an algorithm and puts stubs in the place of its remote runners: Ray actors that answer `sample` with a
fragment recorded once (8 environments x 32 steps, observations of `--width` float32) and take weights without a look
at them. One process answers for many runners, so that the figures are those of the driver: seconds of wall-clock per
iteration, CPU of the driver told apart by the timers of its training step, per runner what grows with their number,
CPU of Ray's own processes and of the stubs, memory of the driver. The update is one epoch in minibatches of 8,192.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import ray  # it brings psutil

import psutil  # isort: skip

ROOT = Path(__file__).resolve().parent.parent
ENVS, LENGTH, PROCESSES, ITERATIONS = 8, 32, 4, 5
RAYS, PARTS = ("raylet", "gcs_server"), ("sample", "learn", "sync_weights")


class Wide(gym.Env):
    """Episodes of 100 steps with observations of a given width, which cost nothing to make."""

    def __init__(self, config: dict[str, Any]):
        self.observation_space = gym.spaces.Box(-1, 1, (config["width"],), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.seen = np.zeros(config["width"], np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.left = 100
        return self.seen, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.left -= 1
        return self.seen, 1.0, False, self.left == 0, {}


class Stub:
    """Answers for any number of env runners."""

    def __init__(self, sampled: Any, state: Any):
        self.sampled, self.state = sampled, state

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        return self.sampled if type(func).__name__ == "_Sample" else self.state

    def spent(self) -> float:
        return time.process_time()


def built(runners: int, width: int, batch: int) -> Any:
    """Return rlkit's PPO, which learns from `batch` env steps an iteration."""
    import torch

    from rlkit.algos import PPOConfig

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    config = PPOConfig().environment(
        "CartPole-v1" if width == 0 else Wide, env_config={"width": width} if width else {}
    )
    config.env_runners(
        num_env_runners=runners,
        num_envs_per_env_runner=ENVS,
        rollout_fragment_length=LENGTH,
        num_cpus_per_env_runner=0,
    )
    config.training(num_epochs=1, minibatch_size=min(8192, batch), train_batch_size_per_learner=batch)
    config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0)
    return config.debugging(seed=0, log_level="ERROR").build_algo()


def driver(runners: int, width: int) -> dict[str, float]:
    """Return what an iteration with so many simulated runners costs: medians, in seconds and MB."""
    ray.init(
        address="local",
        num_cpus=PROCESSES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    made = built(0, width, runners * ENVS * LENGTH)
    sampled = made._ask_runners()[0]
    runner = made.env_runner_group.local_env_runner
    state = {key: value for key, value in runner.get_state().items() if "connector" in key}
    stubs = [
        ray.remote(Stub).options(num_cpus=0).remote(sampled, state) for _ in range(min(PROCESSES, runners))
    ]
    made.env_runner_group._worker_manager.add_actors([stubs[i % len(stubs)] for i in range(runners)])
    rays = [p for p in psutil.Process().children(recursive=True) if p.name() in RAYS]
    spent = dict.fromkeys(PARTS, 0.0)
    for part in PARTS:
        setattr(made, part, timed(getattr(made, part), part, spent))

    def clocks() -> dict[str, float]:
        of_stubs = sum(ray.get([stub.spent.remote() for stub in stubs]))
        return {
            "wall": time.perf_counter(),
            "driver": time.process_time(),
            "ray": cpu_of(rays),
            "stubs": of_stubs,
            **spent,
        }

    rows = []
    for _ in range(1 + ITERATIONS):
        before = clocks()
        steps = made.train()["env_runners"]["num_env_steps_sampled"]
        rows.append({key: value - before[key] for key, value in clocks().items()})
        assert steps == runners * ENVS * LENGTH, (steps, runners)
    found = {key: float(np.median([row[key] for row in rows[1:]])) for key in rows[0]}
    return {
        **found,
        "runners": runners,
        "env_steps": int(steps),
        "rss": psutil.Process().memory_info().rss / 2**20,
    }


def timed(method: Any, part: str, spent: dict[str, float]) -> Any:
    """Add the CPU seconds of a method's calls to `spent[part]`."""

    def call(*args: Any) -> Any:
        began = time.process_time()
        try:
            return method(*args)
        finally:
            spent[part] += time.process_time() - began

    return call


def cpu_of(processes: list[psutil.Process]) -> float:
    return sum(p.cpu_times().user + p.cpu_times().system for p in processes)


def real(runners: int, seconds: float) -> dict[str, float]:
    """Return env steps per second of wall-clock with real runners on CartPole-v1, and the share that is sampling."""
    ray.init(
        address="local",
        num_cpus=max(2, runners + 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    made = built(runners, 0, 4096)
    made.train()
    done, sampling, began = 0, 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        result = made.train()
        done += result["env_runners"]["num_env_steps_sampled"]
        sampling += result["timers"]["env_runner_sampling_timer"]
    spent = time.perf_counter() - began
    return {"runners": runners, "steps_s": done / spent, "sampling": sampling / spent}


def queue(trials: int, seconds: float) -> None:
    """Queue a search, interrupt it, and tell what the driver spent and what the run folder says of the trials."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rlkit", "train", "configs/dqn_cartpole.yaml", f"tune.samples={trials}",
                   "tune.concurrent=1", "config.training.lr=!loguniform [1.0e-4, 1.0e-3]", "stop={iterations: 1}",
                   "evaluation=null", "checkpoint={every: 0}", "name=queue", "--out", folder]  # fmt: skip
        began = time.monotonic()
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        watched, marks = psutil.Process(child.pid), []
        while child.poll() is None and time.monotonic() - began < seconds:
            time.sleep(10)
            ended = len(list(Path(folder).glob("queue/*/trial_*/result.json")))
            times = watched.cpu_times()
            marks.append(
                (
                    time.monotonic() - began,
                    ended,
                    times.user + times.system,
                    watched.memory_info().rss / 2**20,
                )
            )
            after, ended, cpu, memory = marks[-1]
            print(f"{after:.0f} s: {ended} trials begun, driver {cpu:.1f} CPU s, {memory:.0f} MB", flush=True)
        stopped = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()
        print(f"^C: exit {child.returncode} after {time.monotonic() - stopped:.1f} s")
        print("\n".join(said.strip().splitlines()[-4:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["runners", "driver", "queue"])
    parser.add_argument("--runners", type=int, nargs="+")
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--one", action="store_true", help="measure in this process (one number of runners)")
    options = parser.parse_args()
    if options.what == "queue":
        queue(options.trials, options.seconds or 240)
        return
    numbers = options.runners or ([0, 1, 2, 4] if options.what == "runners" else [1, 10, 100, 1000])
    if options.one:
        found = (
            real(numbers[0], options.seconds or 15)
            if options.what == "runners"
            else driver(numbers[0], options.width)
        )
        print(json.dumps(found))
        return
    for number in numbers:
        again = [sys.executable, __file__, *sys.argv[1:2], "--runners", str(number), "--one", "--width",
                 str(options.width)]  # fmt: skip
        again += ["--seconds", str(options.seconds)] if options.seconds else []
        out = subprocess.run(again, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(out.strip().splitlines()[-1])
        if options.what == "runners":
            print(
                "{runners:5.0f} runners  {steps_s:8.0f} env steps/s  sampling {sampling:.0%} of it".format(
                    **found
                ),
                flush=True,
            )
            continue
        each = 1e3 * (found["sample"] + found["sync_weights"]) / number
        text = (
            "{runners:5.0f} runners  {env_steps:7.0f} env steps  {wall:6.2f} s  CPU: driver {driver:6.2f} "
            "(sample {sample:.3f}, learn {learn:.3f}, weights {sync_weights:.3f})  Ray {ray:.2f}  "
            "stubs {stubs:.2f}  {rss:.0f} MB"
        )
        print(f"{text.format(**found)}  {each:.2f} ms of the driver a runner", flush=True)


if __name__ == "__main__":
    main()
