"""Env steps per second of `DQN` against `rllib/DQN`: same batch, same updates per env step, CartPole, one torch thread.

    python benchmarks/offpolicy_throughput.py [--runs 5] [--seconds 20] [--only compare|growth|overlap]

Both take a batch of 64 and one update for every two env steps (rl-zoo's 128 updates per 256 steps) on
256x256, uniform replay, 16 environments. RLlib's class is given the same fragments, and as shipped (one
environment, one step per call). The figures are steps per wall-clock and per CPU second of the driver, after
learning has started. Bar: at least 10 x.

Also prints the growth of the whole training step: CPU seconds per 10,000 env steps with 1e5 and with 1e6 rows
in the buffer (bar: equal within 10 %; the networks keep their first weights), and steps/s with one remote env
runner, sampling in turns and overlapped.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")

import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rlkit.algos import DQNConfig
from rlkit.replay import Fragment, Replay

BATCH, INTENSITY = 64, 32
BAR = 10.0


def make(
    config: Any,
    *,
    envs: int = 16,
    fragment: int = 16,
    runners: int = 0,
    capacity: int = 100_000,
    lr: float = 2.3e-3,
    **options: Any,
) -> Any:
    config.environment("CartPole-v1").env_runners(
        num_env_runners=runners, num_envs_per_env_runner=envs, rollout_fragment_length=fragment
    )
    config.training(
        lr=lr, gamma=0.99, train_batch_size_per_learner=BATCH, training_intensity=INTENSITY, grad_clip=10.0,
        num_steps_sampled_before_learning_starts=256, target_network_update_freq=256, double_q=False, dueling=False,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": capacity}, **options,
    )  # fmt: skip
    config.rl_module(
        model_config={"fcnet_hiddens": [256, 256], "fcnet_activation": "relu", "head_fcnet_hiddens": []}
    )
    # one training_step per iteration, timed alone
    config.reporting(min_sample_timesteps_per_iteration=0, min_time_s_per_iteration=0)
    return config.debugging(seed=0, log_level="ERROR").build_algo()


def steps_of(algorithm: Any) -> int:
    return int(algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0))


def speed(algorithm: Any, seconds: float) -> tuple[float, float]:
    """Return env steps per wall-clock second and per CPU second of this process."""
    while steps_of(algorithm) < 600:
        algorithm.train()
    steps, wall, cpu = steps_of(algorithm), time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        algorithm.train()
    done = steps_of(algorithm) - steps
    return done / (time.perf_counter() - wall), done / (time.process_time() - cpu)


def compare(runs: int, seconds: float) -> None:
    variants: dict[str, Callable[[], Any]] = {
        "DQN": lambda: make(DQNConfig()),
        "rllib/DQN, same fragments": lambda: make(RLlibDQNConfig()),
        "rllib/DQN, one env, one step": lambda: make(RLlibDQNConfig(), envs=1, fragment=1),
    }
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(runs):
        for name, build in variants.items():
            algorithm = build()
            speeds[name].append(speed(algorithm, seconds))
            algorithm.stop()
    wall = {name: statistics.median(w for w, _ in values) for name, values in speeds.items()}
    cpu = {name: statistics.median(c for _, c in values) for name, values in speeds.items()}
    for name in variants:
        print(f"{name:30} {wall[name]:8.1f} env steps/s   {cpu[name]:8.1f} per CPU second")
    best = max(wall[name] for name in variants if name != "DQN")
    ratio = wall["DQN"] / best
    print(
        f"DQN / the faster rllib/DQN: {ratio:.1f} x   (bar: at least {BAR}) {'PASS' if ratio >= BAR else 'FAIL'}"
    )


def prefill(replay: Replay, rows: int) -> None:
    rng, length = np.random.default_rng(0), 250
    for start in range(0, rows, 64 * length):
        replay.add(
            Fragment(
                f"old{i}", start, length, {"obs": rng.standard_normal((length + 1, 4), np.float32)},
                {"actions": rng.integers(0, 2, length), "rewards": np.ones(length, np.float32),
                 "terminateds": np.zeros(length, bool), "truncateds": np.zeros(length, bool)}, False,
            )
            for i in range(64)
        )  # fmt: skip


def growth(runs: int) -> None:
    costs: dict[int, list[float]] = {100_000: [], 1_000_000: []}
    algorithms = {}
    for rows in costs:
        algorithms[rows] = make(DQNConfig(), capacity=1_000_000, lr=1e-12)
        prefill(algorithms[rows].replays[DEFAULT_MODULE_ID], rows)
        speed(algorithms[rows], 1)
    for _ in range(runs):
        for rows, algorithm in algorithms.items():
            costs[rows].append(10_000 / speed(algorithm, 10)[1])
    low, high = (statistics.median(values) for values in costs.values())
    ratio = high / low
    verdict = "PASS" if abs(ratio - 1) <= 0.1 else "FAIL"
    print(
        f"CPU per 10,000 env steps: {low:.2f} s at 1e5 rows, {high:.2f} s at 1e6: x {ratio:.3f} "
        f"(bar: within 10 %) {verdict}"
    )
    for algorithm in algorithms.values():
        algorithm.stop()


def overlap(runs: int, seconds: float) -> None:
    for label, options in (
        ("local runner", {}),
        ("one remote runner, in turns", {"runners": 1, "overlap_sampling": False}),
        ("one remote runner, overlapped", {"runners": 1, "overlap_sampling": True}),
    ):
        values = []
        for _ in range(runs):
            algorithm = make(DQNConfig(), **options)
            values.append(speed(algorithm, seconds)[0])
            algorithm.stop()
        print(f"{label:30} {statistics.median(values):8.1f} env steps/s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", choices=["compare", "growth", "overlap"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    if options.only in (None, "compare"):
        compare(options.runs, options.seconds)
    if options.only in (None, "growth"):
        growth(options.runs)
    if options.only in (None, "overlap"):
        overlap(options.runs, options.seconds)


if __name__ == "__main__":
    main()
