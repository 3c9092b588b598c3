"""Population based training from a learning rate that learns nothing: PPO on CartPole, with and without it.

    python benchmarks/pbt_cartpole.py [--seeds 3] [--steps 60000] [--lr 1e-8] [--out benchmarks/results/pbt.jsonl]

Four trials start with `lr: 1e-8`. With PBT, every 24 iterations the worse half goes on from a checkpoint of the
better half with a new learning rate; without it the four go on as they are. Both get the same env steps. One line for
each run: the best trial's highest mean return of training episodes, and that of its best checkpoint over 100 episodes
on seeds that nothing in the training saw.

Both returns are of sampled actions. Greedy ones say little here: among four random networks there is often one whose
argmax balances the pole for 500 steps without having learned anything.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from processes import append_row

import rlkit
from rlkit import recipe as recipes

ROOT = Path(__file__).parents[1]
TRIALS = 4
SCHEDULER = {
    "type": "pbt",
    "time_attr": "iteration",
    "perturbation_interval": 24,
    "quantile_fraction": 0.5,
    "resample_probability": 0.5,
    "mutations": {"config.training.lr": [1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3]},
}


def recipe(seed: int, steps: int, lr: float, pbt: bool) -> dict:
    """Return the shipped PPO recipe from the bad learning rate."""
    values = recipes.load(ROOT / "configs" / "ppo_cartpole.yaml").to_dict()
    values["name"] = f"pbt_{seed}" if pbt else f"plain_{seed}"
    values["seed"] = seed
    values["config"]["training"]["lr"] = lr
    values["stop"] = {"env_steps": steps}
    values.pop("evaluation", None)
    values["checkpoint"] = {"every": 24, "keep": 2, "best": "episode_return"}
    values["tune"] = {"samples": TRIALS, "metric": "episode_return", "mode": "max"}
    if pbt:
        values["tune"]["scheduler"] = SCHEDULER
    return values


def measured(seed: int, steps: int, lr: float, pbt: bool, out: Path) -> dict:
    """Train the four trials; return what the best of them reached."""
    begin = time.monotonic()
    run = rlkit.train(recipe(seed, steps, lr, pbt), out=out, quiet=True)
    judged = rlkit.evaluate(run.best_checkpoint, episodes=100, seed=0, explore=True).to_json()
    rates = run.metrics.groupby("trial")["loss/default_policy/default_optimizer_learning_rate"].last()
    return {
        "name": f"cartpole from lr {lr:g}",
        "variant": "with pbt" if pbt else "without",
        "seed": seed,
        "trials": TRIALS,
        "env_steps": int(run.metrics.env_steps.max()),
        "best_return": round(float(run.metrics["episode_return"].max()), 1),
        "return": round(judged["episode_return"]["mean"], 1),
        "last_lr": [float(rate) for rate in rates],
        "wall_s": round(time.monotonic() - begin, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--lr", type=float, default=1e-8)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "pbt.jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.seeds):
            for pbt in (True, False):
                row = measured(number * TRIALS, options.steps, options.lr, pbt, Path(folder))
                append_row(options.out, row)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
