"""`dqn_cartpole.yaml` over many seeds: after how many env steps the greedy policy first reaches 475 of 500.

    python benchmarks/dqn_cartpole_seeds.py run [KEY=VALUE ...] [--seeds 50] [--variant default]
    python benchmarks/dqn_cartpole_seeds.py report

`run` trains each seed in a process of its own and evaluates 20 greedy episodes after every
iteration of 512 env steps; a mean of 475 counts when 100 other episodes confirm it. It appends one row a seed to
benchmarks/results/dqn_cartpole.jsonl and skips what is there already, so that it can be ended and started again at
any time. KEY=VALUE changes the recipe; such rows need a name of their own, `--variant`. `--steps` ends a seed earlier,
`--rows FILE` keeps its row elsewhere.
Bar: at least 48 of 50 seeds within 10,000 env steps, the rest within the recipe's 50,000.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from processes import append_row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "dqn_cartpole.jsonl"
BAR, EARLY, BUDGET = 475.0, 10_000, 50_000
LOOK, CONFIRM = 20, 100  # greedy episodes
CONFIRM_SEED = 2_000_000


def one(seed: int, variant: str, overrides: list[str], budget: int) -> dict[str, Any]:
    """Train one seed until 100 greedy episodes reach the bar, or to the budget."""
    import ray
    import torch

    from rlkit.launch.build import build
    from rlkit.play.in_training import during_training
    from rlkit.recipe import load

    torch.set_num_threads(1)
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    recipe = load(ROOT / "configs" / "dqn_cartpole.yaml", [f"seed={seed}", *overrides])
    config = build(recipe)
    config.evaluation(evaluation_interval=None)
    cpu = time.process_time()
    algorithm = config.build_algo()
    look = during_training(recipe, episodes=LOOK)
    confirm = during_training(recipe, episodes=CONFIRM, seed=CONFIRM_SEED)
    curve: list[tuple[int, float]] = []
    reached, confirmed, steps = None, None, 0
    try:
        while steps < budget and reached is None:
            result = algorithm.train()
            steps = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
            curve.append((steps, greedy(look, algorithm)))
            if curve[-1][1] >= BAR and (confirmed := greedy(confirm, algorithm)) >= BAR:
                reached = steps
    finally:
        algorithm.stop()
    return {
        "variant": variant, "overrides": overrides, "seed": seed, "reached": reached, "confirmed": confirmed,
        "steps": steps, "curve": curve, "cpu_s": round(time.process_time() - cpu, 1),
    }  # fmt: skip


def greedy(evaluation: Any, algorithm: Any) -> float:
    """Return the mean return of an evaluation's episodes."""
    evaluation(algorithm, None)
    return statistics.fmean(row.ret for row in evaluation.rows)


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def run(given: argparse.Namespace) -> None:
    """Train what is missing, one process after the other."""
    variant = given.variant
    for seed in range(given.seeds):
        if any((row["variant"], row["seed"]) == (variant, seed) for row in rows(given.rows)):
            continue
        command = [sys.executable, __file__, "one", "--seed", str(seed), "--variant", variant,
                   "--steps", str(given.steps), *given.overrides]  # fmt: skip
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        row = json.loads(out.splitlines()[-1])
        append_row(given.rows, row)
        print(variant, seed, row["reached"], f"{row['cpu_s']} s", flush=True)


def report(path: Path) -> None:
    """Print one line a variant: how many seeds reached the bar early, within the budget, and the slowest."""
    found = rows(path)
    print(f"| variant | seeds | within {EARLY:,} | within {BUDGET:,} | median | slowest five |")
    print("|---|---|---|---|---|---|")
    for variant in dict.fromkeys(row["variant"] for row in found):
        mine = [row for row in found if row["variant"] == variant]
        steps = sorted(row["reached"] or sys.maxsize for row in mine)
        slowest = ", ".join("never" if n == sys.maxsize else f"{n:,}" for n in steps[-5:])
        early, ever = (sum(n <= limit for n in steps) for limit in (EARLY, BUDGET + 512))
        print(f"| {variant} | {len(mine)} | {early} | {ever} | {statistics.median(steps):,.0f} | {slowest} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "one", "report"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", default="default")
    parser.add_argument("--steps", type=int, default=BUDGET, help="env steps of a seed at most")
    parser.add_argument("--rows", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.what == "report":
        report(given.rows)
    elif given.what == "one":
        print(json.dumps(one(given.seed, given.variant, given.overrides, given.steps)))
    elif given.overrides and given.variant == "default":
        parser.error("give rows with KEY=VALUE a name: --variant NAME")
    else:
        run(given)


if __name__ == "__main__":
    main()
