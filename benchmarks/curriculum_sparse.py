"""Sparse grid: how many seeds are solved with lessons, and how many without, on the same env steps.

    python benchmarks/curriculum_sparse.py [--seeds 5] [--steps 100000] [--size 5]

The grid is the snake of rlkit/envs/gridworld.py: one winding corridor, death at its walls, a reward
at its end alone. Both sides run the same PPO on the same budget and are judged alike: solved when the success rate
over the last 100 episodes of the final task (end to end, 16 steps) reaches 0.9. "Without" is a curriculum of one
lesson, the final task.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import deque
from typing import Any

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from rlkit.curriculum import configure
from rlkit.envs.gridworld import GridWorld


def lessons(size: int, curriculum: bool) -> list[dict[str, Any]]:
    """Starts farther and farther from the goal; the last lesson is the task itself."""
    far = GridWorld(size, layout="snake").ways((size - 1, size - 1))[0, 0]
    until = {"measure": "success", "threshold": 0.8, "min_episodes": 50}
    ends = range(2, far + 1, 2) if curriculum else []
    tasks = {d: {"distance": {"integer": [max(1, d - 4), d]}} for d in ends}
    steps = [{"name": f"{d} steps", "task": task, "until": until} for d, task in tasks.items()]
    return [*steps, {"name": "end to end", "task": {"distance": far}}]


def run(seed: int, curriculum: bool, size: int, steps: int) -> dict[str, Any]:
    """Train once; return whether, and after how many env steps, the final task was solved."""
    config = (
        PPOConfig()
        .environment(
            "grid_world", env_config={"size": size, "layout": "snake", "deadly": True, "view": "cells"}
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .training(
            train_batch_size_per_learner=1000,
            minibatch_size=250,
            num_epochs=10,
            lr=1e-3,
            entropy_coeff=0.03,
            use_kl_loss=False,
            gamma=0.97,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=seed, log_level="ERROR")
    )
    configure(config, {"lessons": lessons(size, curriculum), "success": {"info": "success"}})
    algorithm = config.build_algo()
    last: deque[float] = deque(maxlen=100)
    begun, solved_at, history = time.time(), None, []
    try:
        done = 0
        while done < steps and solved_at is None:
            result = algorithm.train()
            done = int(result["num_env_steps_sampled_lifetime"])
            report = result["curriculum"]
            rate = report.get("success", {}).get("end to end")
            if rate is not None:
                last.extend([rate] * int(report["episodes"]))
                if len(last) == 100 and sum(last) / 100 >= 0.9:
                    solved_at = done
            history.append((done, report["lesson_name"], round(rate or 0.0, 3)))
    finally:
        algorithm.stop()
    return {
        "seed": seed,
        "curriculum": curriculum,
        "solved_at": solved_at,
        "lesson": history[-1][1],
        "success": history[-1][2],
        "seconds": round(time.time() - begun, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    register_env("grid_world", lambda context: GridWorld(**context))
    rows = []
    for curriculum in (True, False):
        for seed in range(args.seeds):
            rows.append(run(seed, curriculum, args.size, args.steps))
            print(json.dumps(rows[-1]), flush=True)
    for curriculum in (True, False):
        mine = [row for row in rows if row["curriculum"] is curriculum]
        solved = [row["solved_at"] for row in mine if row["solved_at"] is not None]
        name = "with lessons" if curriculum else "without"
        print(
            f"{name}: solved {len(solved)} of {len(mine)} within {args.steps} env steps; env steps {sorted(solved)}"
        )


if __name__ == "__main__":
    main()
