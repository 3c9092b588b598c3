"""A search by Optuna against the values it starts from, with seeds that the search did not use.

    python benchmarks/search_beats.py cartpole [--trials 20] [--steps N] [--seeds 5] [--out FILE.jsonl]
    python benchmarks/search_beats.py pendulum

cartpole: PPO from RLlib's defaults, a recipe of two words with a runner of 8 environments; 20 trials of 8,000 env steps
in the published ranges (`space: default`), ranked by the return of training episodes.
pendulum: SAC from the shipped `sac_pendulum`, which reaches -200 after about 2,000 env steps; 20 trials of 1,536 env
steps over learning rates, tau and updates per env step, ranked by the greedy return of 20 episodes.

Then the winner (`--trial RUN:BEST`), the default and, on CartPole for scale, the shipped `ppo_cartpole` train with the
same new seeds and the same env steps. Printed: the table of `rlkit compare`, with 95 % intervals over seeds. Bar: the
winner's interval lies above the default's IQM.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import append_row

import rlkit
from rlkit import recipe as recipes
from rlkit.launch.winner import recipe_of
from rlkit.recipe.spaces import SearchSpace
from rlkit.report import compare
from rlkit.runs.run import Run

ROOT = Path(__file__).parents[1]
Values = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        label: `name` of the lines.
        metric: what ranks trials, and what is compared.
        steps: env steps of each trial.
        default: what the search starts from.
        space: keys of `training` and their search spaces; of none the published ranges.
        others: further recipes to train for scale.
    """

    label: str
    metric: str
    steps: int
    default: Values
    space: Values
    others: Values


def shipped(name: str) -> Values:
    """Return a recipe that travels with rlkit."""
    return recipes.load(ROOT / "configs" / f"{name}.yaml").to_dict()


def cartpole() -> Search:
    default = {
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "config": {"env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 8}},
    }
    tuned = shipped("ppo_cartpole")
    del tuned["evaluation"], tuned["checkpoint"]
    return Search("ppo cartpole search", "episode_return", 8_000, default, {}, {"shipped": tuned})


def pendulum() -> Search:
    rates = SearchSpace("loguniform", (3e-4, 1e-2))
    space = {
        "actor_lr": rates,
        "critic_lr": rates,
        "alpha_lr": rates,
        "tau": SearchSpace("loguniform", (0.005, 0.1)),
        "training_intensity": SearchSpace("choice", (128, 256, 512)),  # 1, 2, 4 updates for each env step
    }
    default = {**shipped("sac_pendulum"), "checkpoint": {"every": 0}}
    return Search("sac pendulum search", "eval/episode_return", 1_536, default, space, {})


SEARCHES = {"cartpole": cartpole, "pendulum": pendulum}


def searched(what: Search, trials: int) -> Values:
    """Return the default with a search: over `space`, or the published ranges."""
    options: Values = {"type": "optuna"} if what.space else {"type": "optuna", "space": "default"}
    values = {**what.default, "tune": {"samples": trials, "metric": what.metric, "search": options}}
    if what.space:
        config = what.default["config"]
        values["config"] = {**config, "training": {**config["training"], **what.space}}
    return values


def rows(run: Run, what: Search, variant: str, seconds: float) -> list[Values]:
    """Return a line for each trial: its seed and its last return."""
    return [
        {
            "name": what.label, "variant": variant, "seed": run.trials[number].params["seed"],
            "env_steps": int(frame.env_steps.max()),
            "return": round(float(frame[what.metric].dropna().iloc[-1]), 1), "wall_s": round(seconds, 1),
        }
        for number, (_, frame) in enumerate(sorted(run.metrics.groupby("trial")))
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=SEARCHES)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, help="env steps of each trial")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "search.jsonl")
    given = parser.parse_args()
    what = SEARCHES[given.what]()
    stop = {"stop": {"env_steps": given.steps or what.steps}}
    with tempfile.TemporaryDirectory() as folder:
        begun = {**searched(what, given.trials), **stop, "name": "search", "seed": 0}
        found = rlkit.train(begun, out=folder, quiet=True)
        winner = recipe_of(f"{found.path}:BEST")
        print(f"winner: {json.dumps(winner['config']['training'])}", flush=True)
        first = winner["seed"]  # the search did not use it
        runs: dict[str, Run] = {}
        for name, values in {"winner": winner, "default": what.default, **what.others}.items():
            begin = time.monotonic()
            same = {**stop, "name": name, "seed": first, "tune": {"samples": given.seeds}}
            runs[name] = rlkit.train({**values, **same}, out=folder, quiet=True)
            for row in rows(runs[name], what, name, (time.monotonic() - begin) / given.seeds):
                append_row(given.out, row)
                print(json.dumps(row), flush=True)
        table = compare([runs[name] for name in runs], what.metric, by=["recipe"])
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
