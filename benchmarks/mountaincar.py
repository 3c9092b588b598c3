"""MountainCar-v0 with DQN: a bonus for rarely visited states, and ε-greedy alone beside it.

    python benchmarks/mountaincar.py [--seeds 5] [--concurrent 2] [--steps N] [--episodes 100] [RECIPE ...]

Trains each recipe with seeds 0, 1, … and evaluates the best checkpoint of each over 100 greedy episodes with seeds of
their own. Bar: at least 4 of 5 seeds above -150 with the bonus.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import rlkit

RECIPES = ("configs/mountaincar_counts.yaml", "configs/mountaincar_epsilon.yaml")
BAR = -150.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--steps", type=int, help="env steps of a run; default: the recipe's")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--out", default="runs")
    options = parser.parse_args()
    head = f"return of {options.episodes} greedy episodes, mean [min, max]"
    print(f"| recipe | seed | env steps | {head} |", flush=True)
    print("|---|---|---|---|", flush=True)
    solved = {}
    for recipe in options.recipes:
        start = time.time()
        changes = {"tune.samples": options.seeds, "tune.concurrent": options.concurrent, "seed": 0}
        if options.steps:
            changes["stop.env_steps"] = options.steps
        run = rlkit.train(recipe, changes, out=options.out)
        if run.status != "done":
            raise SystemExit(f"{run.path}: {run.status}")
        name, means = Path(recipe).stem, []
        for trial in run.trials:
            checkpoint = trial.best_checkpoint or trial.last_checkpoint
            result = rlkit.evaluate(checkpoint, episodes=options.episodes, seed=100_000).episode_return
            means.append(result["mean"])
            spread = f"{result['mean']:.1f} [{result['min']:.0f}, {result['max']:.0f}]"
            print(
                f"| {name} | {trial.params['seed']} | {trial.last['env_steps']:.0f} | {spread} |", flush=True
            )
        solved[name] = sum(mean > BAR for mean in means)
        print(
            f"| {name} | all | | median {statistics.median(means):.1f}; {solved[name]} of {len(means)} above "
            f"{BAR:.0f}; {time.time() - start:.0f} s for all |",
            flush=True,
        )
    bonus = [count for name, count in solved.items() if not name.endswith("epsilon")]
    return int(any(count < 0.8 * options.seeds for count in bonus))


if __name__ == "__main__":
    sys.exit(main())
