"""Env steps until every learnable task is solved, when three quarters of the tasks cannot be: automatic or uniform.

    python benchmarks/curriculum_unlearnable.py [--seeds 10] [--steps 100000] [--types …]

The tasks are goals in a 9 x 9 grid, seen in the observation. Six goals lie 2 to 8 steps from the start; eighteen lie
inside walls, and an episode on one of them lasts its 40 steps. Every 4,000 env steps the policy plays 10 episodes on
each learnable goal, sampling its actions as in training; the target is a success rate of 0.9 over all of them. A run
that never gets there counts with its budget.
The interval is a 95 % bootstrap interval of the mean over seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from rlkit.curriculum import configure
from rlkit.envs.gridworld import GridWorld

SIZE = 9
MAX_STEPS = 40
LEARNABLE = [(1, 1), (2, 2), (3, 3), (2, 4), (4, 2), (4, 4)]
WALLED = [(r, c) for r in (0, 2, 4, 6, 7) for c in (5, 6, 7, 8) if (r, c) not in LEARNABLE][:18]
TASKS = {f"goal {r},{c}": {"goal": [r, c]} for r, c in LEARNABLE + WALLED}


def section(kind: str) -> dict[str, Any]:
    """The recipe's section for a way of choosing."""
    if kind == "random":
        return {"type": "random", "space": {"goal": {"choice": [task["goal"] for task in TASKS.values()]}}}
    return {"type": kind, "tasks": TASKS}


def skill(algorithm: Any, episodes: int = 10) -> float:
    """Success rate over all learnable goals, by sampled actions."""
    module = algorithm.get_module()
    envs = [
        GridWorld(SIZE, goal=goal, walls=WALLED, max_steps=MAX_STEPS)
        for goal in LEARNABLE
        for _ in range(episodes)
    ]
    observations = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    running, won = np.ones(len(envs), bool), 0
    for _ in range(envs[0].max_steps):
        with torch.no_grad():
            logits = module.forward_inference({"obs": torch.from_numpy(observations)})["action_dist_inputs"]
        actions = torch.distributions.Categorical(logits=logits).sample().numpy()
        for i in np.flatnonzero(running):
            observations[i], _, done, late, info = envs[i].step(int(actions[i]))
            running[i] = not (done or late)
            won += bool(info["success"])
    return won / len(envs)


def run(seed: int, kind: str, steps: int) -> dict[str, Any]:
    """Train once; return the env steps at which the target was met."""
    config = (
        PPOConfig()
        .environment("grid_world", env_config={"size": SIZE, "walls": WALLED, "max_steps": MAX_STEPS})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .training(
            train_batch_size_per_learner=2000,
            minibatch_size=500,
            num_epochs=6,
            lr=1e-3,
            entropy_coeff=0.01,
            gamma=0.97,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=seed, log_level="ERROR")
    )
    configure(config, {**section(kind), "success": {"info": "success"}})
    torch.manual_seed(seed)
    algorithm = config.build_algo()
    begun, done, rates, reached = time.time(), 0, [], None
    try:
        while done < steps and reached is None:
            for _ in range(2):
                done = int(algorithm.train()["num_env_steps_sampled_lifetime"])
            rates.append(round(skill(algorithm), 3))
            reached = done if rates[-1] >= 0.9 else None
    finally:
        algorithm.stop()
    return {
        "type": kind,
        "seed": seed,
        "reached": reached,
        "rates": rates,
        "seconds": round(time.time() - begun, 1),
    }


def interval(values: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--types", nargs="+", default=["random", "learning_progress", "plr", "learnability"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    register_env("grid_world", lambda context: GridWorld(**context))
    rows = []
    for seed in range(args.seeds):
        for kind in args.types:
            rows.append(run(seed, kind, args.steps))
            print(json.dumps(rows[-1]), flush=True)
    for kind in args.types:
        mine = [row["reached"] for row in rows if row["type"] == kind]
        values = [float(x or args.steps) for x in mine]
        lo, hi = interval(values)
        reached = sum(x is not None for x in mine)
        print(
            f"{kind}: reached {reached} of {len(mine)}; mean {np.mean(values):,.0f} env steps [{lo:,.0f}, {hi:,.0f}]"
        )


if __name__ == "__main__":
    main()
