"""What grows with environments: CPU of PPO per env step, and what `overlap_sampling` and normalisation cost or gain.

    python benchmarks/onpolicy_growth.py [--runs 3] [--seconds 5]     # 1, 8, 64, 256 environments
    python benchmarks/onpolicy_growth.py --normalize                  # with normalised observations and rewards, or not
    python benchmarks/onpolicy_growth.py --overlap                    # one remote runner, wall-clock

CartPole-v1, 2,048 env steps per iteration, minibatches of 64, 10 epochs, 64x64 tanh for the policy and again for the
value function, one torch thread, a process each; CPU seconds of the process, from the second iteration on, told apart
by the timers of the training step. Growth with agents is `python benchmarks/team_throughput.py --growth`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ENVS = (1, 8, 64, 256)


def algorithm(envs: int, runners: int, training: dict[str, Any]) -> Any:
    import torch

    from rlkit.algos import PPOConfig

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    config = PPOConfig().environment("CartPole-v1")
    config.env_runners(num_env_runners=runners, num_envs_per_env_runner=envs)
    config.training(
        lr=3e-4, lambda_=0.95, train_batch_size_per_learner=2048, minibatch_size=64, num_epochs=10, clip_param=0.2,
        vf_clip_param=1e9, vf_loss_coeff=0.5, use_kl_loss=False, grad_clip=0.5,
    ).training(**training)  # fmt: skip
    config.rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    config.reporting(min_time_s_per_iteration=0)
    return config.debugging(seed=0, log_level="ERROR").build_algo()


def one(envs: int, runners: int, training: dict[str, Any], seconds: float) -> dict[str, float]:
    """Return microseconds per env step: CPU of this process, of sampling, of the rest; and of wall-clock."""
    made = algorithm(envs, runners, training)
    made.train()
    sample, spent = made.sample, [0.0]

    def timed() -> Any:
        begin = time.process_time()
        try:
            return sample()
        finally:
            spent[0] += time.process_time() - begin

    made.sample = timed
    first = int(made.train()["num_env_steps_sampled_lifetime"])
    spent[0] = 0.0
    begin, wall = time.process_time(), time.monotonic()
    while time.process_time() - begin < seconds:
        last = int(made.train()["num_env_steps_sampled_lifetime"])
    cpu, wall = time.process_time() - begin, time.monotonic() - wall
    steps = last - first
    return {
        "cpu_us": 1e6 * cpu / steps, "sampling_us": 1e6 * spent[0] / steps,
        "update_us": 1e6 * (cpu - spent[0]) / steps, "wall_us": 1e6 * wall / steps,
    }  # fmt: skip


def measured(runs: int, *arguments: str) -> list[dict[str, float]]:
    command = [sys.executable, __file__, *arguments]
    found = []
    for _ in range(runs):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return found


def median(rows: list[dict[str, float]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--normalize", action="store_true")
    parser.add_argument("--overlap", action="store_true")
    parser.add_argument("--one", nargs=3, help="environments, runners, options of training as JSON")
    given = parser.parse_args()
    seconds = ["--seconds", str(given.seconds)]
    if given.one:
        envs, runners, training = given.one
        print(json.dumps(one(int(envs), int(runners), json.loads(training), given.seconds)))
    elif given.overlap:
        rows = {
            on: measured(given.runs, "--one", "8", "1", json.dumps({"overlap_sampling": on}), *seconds)
            for on in (False, True)
        }
        for on, found in rows.items():
            print(f"overlap_sampling {on!s:6} {1e6 / median(found, 'wall_us'):8.0f} env steps per second")
    elif given.normalize:
        words = {"normalize_observations": True, "normalize_rewards": True}
        for training in ({}, words):
            found = measured(given.runs, "--one", "8", "0", json.dumps(training), *seconds)
            print(
                f"{'normalised' if training else 'as it is':12} {median(found, 'cpu_us'):8.0f} us of CPU per env step"
            )
    else:
        print("| environments | us of CPU per env step | sampling | update and the rest |")
        print("|---|---|---|---|")
        for envs in ENVS:
            found = measured(given.runs, "--one", str(envs), "0", "{}", *seconds)
            cells = [f"{median(found, key):.0f}" for key in ("cpu_us", "sampling_us", "update_us")]
            print(f"| {envs} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
