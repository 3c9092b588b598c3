"""Recipes with and without their curriculum, on the same env steps.

    python benchmarks/curriculum_recipes.py configs/curriculum_cartpole.yaml [--seeds 3] [--episodes 50] [--steps N]

"Without" plays the final task from the start (lessons), or draws uniformly from the same tasks (automatic types).
Both are judged by exact greedy evaluation on the final task, at the end of the budget.
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

from rlkit import recipe as recipes
from rlkit.launch.build import build
from rlkit.play.evaluation import during_training


def without(section: dict[str, Any]) -> dict[str, Any]:
    """The section of the same final task without a curriculum."""
    shared = {key: section[key] for key in ("task", "success", "evaluate_on") if key in section}
    if section["type"] == "lessons":
        return {"type": "lessons", "lessons": [section["lessons"][-1]], **shared}
    tasks = section["tasks"]
    tasks = list(tasks.values()) if isinstance(tasks, dict) else tasks
    keys = sorted(tasks[0])
    if len(keys) != 1:
        raise SystemExit(
            "uniform sampling of tasks with several values: write a list of tasks for type random"
        )
    return {"type": "random", "space": {keys[0]: {"choice": [task[keys[0]] for task in tasks]}}, **shared}


def run(path: str, seed: int, curriculum: bool, episodes: int, steps: int | None) -> dict[str, Any]:
    """Train a recipe once and evaluate it."""
    values = recipes.load(path, {"seed": seed}).to_dict()
    if not curriculum:
        values["curriculum"] = without(values["curriculum"])
    budget = steps or int(values["stop"]["env_steps"])
    values.pop("evaluation", None)
    values["checkpoint"] = {}
    recipe = recipes.Recipe.from_dict(values)
    torch.manual_seed(seed)
    config = build(recipe)
    config.evaluation(
        custom_evaluation_function=during_training(recipe, episodes=episodes), evaluation_num_env_runners=0
    )
    algorithm = config.build_algo()
    begun, done, lessons = time.time(), 0, []
    try:
        while done < budget:
            result = algorithm.train()
            done = int(result["num_env_steps_sampled_lifetime"])
            lesson = result["curriculum"].get("lesson_name")
            if lesson and (not lessons or lessons[-1][0] != lesson):
                lessons.append([lesson, done])
        value = algorithm.evaluate()["env_runners"]["episode_return_mean"]
    finally:
        algorithm.stop()
    seconds = round(time.time() - begun, 1)
    return {
        "seed": seed,
        "curriculum": curriculum,
        "return": round(float(value), 2),
        "lessons": lessons,
        "s": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    for path in args.recipes:
        rows = []
        for seed in range(args.seeds):
            for curriculum in (True, False):
                rows.append(run(path, seed, curriculum, args.episodes, args.steps))
                print(json.dumps(rows[-1]), flush=True)
        for curriculum in (True, False):
            values = [row["return"] for row in rows if row["curriculum"] is curriculum]
            name = "with" if curriculum else "without"
            print(f"{path} {name} curriculum: {np.mean(values):.1f} (each {values})")


if __name__ == "__main__":
    main()
