"""MAPPO and IPPO on mpe2's spread: greedy team sum after the recipes' budget, one JSON line per run.

    python benchmarks/team_results.py run [--seeds 0 1 2 3 4] [--recipes mappo_spread ippo_spread]
    python benchmarks/team_results.py show

A line in benchmarks/results/team.jsonl for each run that is not there yet: recipe, seed, env steps, team sum of 200
greedy episodes of the last weights, CPU seconds of the process. `show` prints means with 95 % bootstrap intervals over
seeds and the verdict: MAPPO at least -55. `--steps` ends a run earlier, `--rows FILE` keeps its line elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from processes import append_row

os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "team.jsonl"
BAR = -55.0
FAR = 10**9  # iterations: never


def train(name: str, seed: int, limit: int | None) -> dict[str, Any]:
    """Train a recipe to its end in this process and evaluate the last weights."""
    import torch

    from rlkit import recipe as recipes
    from rlkit.launch.build import build

    torch.set_num_threads(1)
    recipe = recipes.load(HERE.parent / "configs" / f"{name}.yaml", [f"seed={seed}"])
    config = build(recipe)
    config.evaluation(evaluation_interval=FAR).debugging(log_level="ERROR")
    algorithm = config.build_algo()
    steps = 0
    while steps < (limit or recipe.stop["env_steps"]):
        steps = int(algorithm.train()["num_env_steps_sampled_lifetime"])
    found = algorithm.evaluate()
    return {
        "recipe": name,
        "seed": seed,
        "env_steps": steps,
        "team_sum": round(float(found["env_runners"]["episode_return_mean"]), 2),
        "cpu_s": round(time.process_time(), 1),
    }


def run(given: argparse.Namespace) -> None:
    there = [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows.exists() else []
    measured = {(row["recipe"], row["seed"]) for row in there}
    for seed in given.seeds:
        for name in (name for name in given.recipes if (name, seed) not in measured):
            command = [sys.executable, __file__, "one", name, str(seed)]
            command += ["--steps", str(given.steps)] if given.steps else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}, seed {seed}: {done.stderr[-3000:]}")
            line = done.stdout.strip().splitlines()[-1]
            print(line, flush=True)
            append_row(given.rows, json.loads(line))


def show(path: Path) -> None:
    from rlkit.runs.statistics import interval

    found: dict[str, dict[int, float]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["recipe"], {})[row["seed"]] = row["team_sum"]
    for name, by_seed in found.items():
        values = list(by_seed.values())
        mean = sum(values) / len(values)
        low, high = interval(values)
        print(
            f"{name:16} {mean:7.2f}  interval {low:.2f} to {high:.2f}  seeds {dict(sorted(by_seed.items()))}"
        )
        if name == "mappo_spread":
            print(f"bar: at least {BAR:g}  {'PASS' if mean >= BAR else 'FAIL'}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("do", choices=["run", "one", "show"])
    parser.add_argument("what", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--recipes", nargs="+", default=["mappo_spread", "ippo_spread"])
    parser.add_argument("--steps", type=int, help="env steps of a run; default: the recipe's")
    parser.add_argument("--rows", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.do == "one":
        print(json.dumps(train(options.what[0], int(options.what[1]), options.steps)))
    elif options.do == "run":
        run(options)
    else:
        show(options.rows)


if __name__ == "__main__":
    main()
