"""The DRON results in docs/dron.md: variants x pools x seeds on soccer, trained by the shipped recipes.

    python benchmarks/dron_table.py run --pool styles --variants dqn concat moe --seeds 0 1 2 3 4
    python benchmarks/dron_table.py report

`run` trains each variant to 400k env steps, one after the other in one process, plays 1,000 greedy games at 50k, 100k,
150k, 200k and 300k and 2,000 at the end, and appends a row to benchmarks/results/dron.jsonl; rows that are there
already are skipped. `--steps`, `--games` and `--rows FILE` make a short form that leaves them alone. `report` prints
the tables: mean, worst and best seed, and differences paired by seed with a two-sided t-test.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dron_games import Player, evaluate
from processes import append_row

from rlkit.algos.dron_rules import PAPER_FEATURES
from rlkit.algos.opponents.history import FeatureOptions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "dron.jsonl"
CHECKS = (50_000, 100_000, 150_000, 200_000, 300_000)
PAPER = json.dumps(list(PAPER_FEATURES))

# what each variant changes in the recipe
VARIANTS: dict[str, list[str]] = {
    "dqn": ["config.training.network=flat", "config.training.features=[]"],
    "dqn_clock": ["config.training.network=flat", "config.training.features=[clock]"],
    "dqn_68": ["config.training.network=flat", "config.training.features=[]", "config.training.hidden=68"],
    "flat": ["config.training.network=flat"],
    "concat": ["config.training.network=concat"],
    "moe": [],
    "moe_placebo": ["config.training.shuffle_features=true"],
    "concat_placebo": ["config.training.network=concat", "config.training.shuffle_features=true"],
    "moe_encoder": ["config.training.features=[]", "config.training.history=8"],
    "moe_paper_features": [f"config.training.features={PAPER}"],
    "moe_k2": ["config.training.experts=2"],
    "moe_k4": ["config.training.experts=4"],
    "moe_opponent_gate": ["config.training.gate_inputs=opponent"],
    "concat_action": ["config.training.network=concat", "config.training.supervise=action"],
    "concat_type": ["config.training.network=concat", "config.training.supervise=type"],
    "moe_action": ["config.training.supervise=action"],
    "moe_type": ["config.training.supervise=type"],
}


def train(pool: str, variant: str, seed: int, steps: int, games: int) -> dict[str, Any]:
    """Train one variant and return its scores by env step, the final outcome per style, and seconds."""
    from rlkit.launch.build import build
    from rlkit.recipe import load

    recipe = load(ROOT / "configs" / f"dron_{pool}.yaml", [f"seed={seed}", *VARIANTS[variant]])
    config = build(recipe)
    config.evaluation(evaluation_interval=None)
    options = FeatureOptions(tuple(config.features), config.history, config.clock_horizon)
    began, cpu = time.perf_counter(), time.process_time()
    algorithm = config.build_algo()
    scores: dict[int, float] = {}
    try:

        def play(games: int, seed: int) -> dict[str, dict[str, float]]:
            module = algorithm.env_runner.module

            def act(player: Player) -> np.ndarray:
                columns = {name: torch.from_numpy(values) for name, values in player.observation.items()}
                observation = columns if options.features or options.window else columns["state"]
                with torch.no_grad():
                    return module.compute_q_values({"obs": observation})["qf_preds"].argmax(dim=1).numpy()

            pools = recipe.env_config["opponents"]
            return evaluate(act, options, games, opponents=pools, seed=seed, shuffle=config.shuffle_features)

        done = 0
        while done < steps:
            algorithm.training_step()
            before, done = (
                done,
                int(algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"))),
            )
            for check in CHECKS:
                if before < check <= done:
                    scores[check] = play(games // 2, 10_000 + seed)["all"]["score"]
        final = play(games, 20_000 + seed)
    finally:
        algorithm.stop()
    return {
        "pool": pool, "variant": variant, "seed": seed, "steps": done, "scores": scores,
        "final": {name: row["score"] for name, row in final.items()},
        "wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(time.process_time() - cpu, 1),
    }  # fmt: skip


def rows(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the rows measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def run(given: argparse.Namespace) -> None:
    """Train what is missing."""
    import ray

    torch.set_num_threads(1)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    for seed in given.seeds:
        for variant in given.variants:
            key = (given.pool, variant, seed)
            if any((r["pool"], r["variant"], r["seed"]) == key for r in rows(given.rows)):
                continue
            row = train(*key, given.steps, given.games)
            append_row(given.rows, row)
            print(*key, {k: round(v, 3) for k, v in row["final"].items()}, row["cpu_s"], flush=True)


def p_value(differences: np.ndarray) -> float:
    """Two-sided p of a paired t-test, by numerical integration of Student's density (n - 1 degrees of freedom)."""
    n = len(differences)
    spread = differences.std(ddof=1)
    if n < 2 or spread == 0:
        return math.nan
    t, dof = abs(differences.mean()) / (spread / math.sqrt(n)), n - 1
    x = np.linspace(0, t, 20_001)
    density = (1 + x**2 / dof) ** (-(dof + 1) / 2)
    scale = math.gamma((dof + 1) / 2) / (math.sqrt(dof * math.pi) * math.gamma(dof / 2))
    return float(1 - 2 * scale * np.trapezoid(density, x))


def early(row: dict[str, Any]) -> float:
    """Mean of the evaluations at 50k .. 300k env steps: how fast it learns."""
    return float(np.mean([row["scores"][str(c)] for c in CHECKS]))


def report() -> None:
    """Print the tables."""
    found = rows()
    for pool in ("styles", "paper"):
        mine = [r for r in found if r["pool"] == pool]
        styles = sorted({name for r in mine for name in r["final"]} - {"all"})
        checks = [f"{c // 1000}k" for c in CHECKS]
        print(f"\n### {pool} pool\n")
        print("| variant | seeds | " + " | ".join(checks) + " | final | worst | best | " + " | ".join(styles)
              + " | 50k-300k | CPU s |")  # fmt: skip
        print("|---" * (9 + len(checks) + len(styles) - 2) + "|")
        by_variant = {
            v: sorted((r for r in mine if r["variant"] == v), key=lambda r: r["seed"]) for v in VARIANTS
        }
        for variant, group in by_variant.items():
            if not group:
                continue
            final = [r["final"]["all"] for r in group]
            cells = [variant, str(len(group))]
            cells += [f"{np.mean([r['scores'][str(c)] for r in group]):.3f}" for c in CHECKS]
            cells += [f"{np.mean(final):.3f}", f"{min(final):.3f}", f"{max(final):.3f}"]
            cells += [f"{np.mean([r['final'][s] for r in group]):.3f}" for s in styles]
            cells += [
                f"{np.mean([early(r) for r in group]):.3f}",
                f"{np.mean([r['cpu_s'] for r in group]):.0f}",
            ]
            print("| " + " | ".join(cells) + " |")
        base = {r["seed"]: r for r in by_variant["dqn"]}
        for variant, group in by_variant.items():
            pairs = [(r, base[r["seed"]]) for r in group if r["seed"] in base]
            if variant == "dqn" or len(pairs) < 2:
                continue
            for what, value in (("final", lambda r: r["final"]["all"]), ("50k-300k", early)):
                gap = np.array([value(a) - value(b) for a, b in pairs])
                print(
                    f"{variant} - dqn, {what}: {gap.mean():+.3f}, {len(pairs)} pairs, p = {p_value(gap):.4f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--pool", default="styles", choices=("styles", "paper"))
    running.add_argument("--variants", nargs="+", default=["dqn", "concat", "moe"], choices=VARIANTS)
    running.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    running.add_argument("--steps", type=int, default=400_000)
    running.add_argument("--games", type=int, default=2000, help="at the end; half as many on the way")
    running.add_argument("--rows", type=Path, default=RESULTS)
    commands.add_parser("report")
    arguments = parser.parse_args()
    if arguments.command == "report":
        report()
    else:
        run(arguments)


if __name__ == "__main__":
    main()
