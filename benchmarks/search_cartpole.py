"""A search by Optuna against the values it starts from, with seeds that the search did not use: PPO on CartPole.

    python benchmarks/search_cartpole.py [--trials 20] [--steps 8000] [--seeds 5] [--out FILE.jsonl]

The default is RLlib's: a recipe of two words with a runner of 8 environments. The search has 20 trials of 8,000 env
steps in the published ranges (`space: default`), one seed, and ranks trials by the return of training episodes. Then
the winner (`--trial RUN:BEST`), the default and, for scale, the shipped `ppo_cartpole` train with the same new seeds
and the same env steps. Printed: the table of `rlkit compare`, with 95 % intervals over seeds. Bar: the winner's
interval lies above the default's IQM.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

from processes import append_row

import rlkit
from rlkit import recipe as recipes
from rlkit.launch.winner import recipe_of
from rlkit.report import compare
from rlkit.runs.run import Run

ROOT = Path(__file__).parents[1]
METRIC = "episode_return"


def default(steps: int) -> dict:
    """Return the recipe that nobody tuned."""
    return {
        "name": "default",
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "seed": 0,
        "config": {"env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 8}},
        "stop": {"env_steps": steps},
    }


def search(steps: int, trials: int) -> dict:
    """Return the default with the published search space of PPO."""
    tune = {"samples": trials, "metric": METRIC, "search": {"type": "optuna", "space": "default"}}
    return {**default(steps), "name": "search", "tune": tune}


def shipped(steps: int) -> dict:
    """Return the recipe that travels with rlkit, without evaluations and with the same budget."""
    values = recipes.load(ROOT / "configs" / "ppo_cartpole.yaml").to_dict()
    del values["evaluation"], values["checkpoint"]
    return {**values, "name": "shipped", "stop": {"env_steps": steps}}


def rows(run: Run, variant: str, seconds: float) -> list[dict]:
    """Return a line for each trial: its seed and its last return."""
    return [
        {
            "name": "ppo cartpole search", "variant": variant, "seed": run.trials[number].params["seed"],
            "env_steps": int(frame.env_steps.max()), "return": round(float(frame[METRIC].dropna().iloc[-1]), 1),
            "wall_s": round(seconds, 1),
        }
        for number, (_, frame) in enumerate(sorted(run.metrics.groupby("trial")))
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "search.jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = rlkit.train(search(options.steps, options.trials), out=folder, quiet=True)
        winner = recipe_of(f"{found.path}:BEST")
        print(f"winner: {json.dumps(winner['config']['training'])}", flush=True)
        first = winner["seed"]  # the search did not use it
        runs: dict[str, Run] = {}
        for name, values in (
            ("winner", winner), ("default", default(options.steps)), ("shipped", shipped(options.steps)),
        ):  # fmt: skip
            begin = time.monotonic()
            same = {"name": name, "seed": first, "tune": {"samples": options.seeds}}
            runs[name] = rlkit.train({**values, **same}, out=folder, quiet=True)
            for row in rows(runs[name], name, (time.monotonic() - begin) / options.seeds):
                append_row(options.out, row)
                print(json.dumps(row), flush=True)
        table = compare([runs[name] for name in runs], METRIC, by=["recipe"])
    print(table.markdown())
    groups = {row.name: row for row in table.rows}
    mine, other = groups["winner"], groups["default"]
    low = mine.ci95[0] if mine.ci95 else math.nan
    good = low > other.iqm
    verdict = "PASS" if good else "FAIL"
    print(f"winner {mine.iqm:.1f}, 95 % from {low:.1f}; default {other.iqm:.1f}   (bar: all above) {verdict}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
