"""What weights from another scenario save: env steps to spread's -34, from tag, from adversary and from scratch.

    python benchmarks/init_from.py run [--seeds 3] [--source-steps 100000] [--steps 300000] [--out FILE]
    python benchmarks/init_from.py report

MADDPG with the recipes of `configs/`. The bodies are those of MPE's particle world in all three scenarios; what they
observe is not: of tag's 16 numbers the first 4, velocity and position, mean in spread what they meant before, of
adversary's 10 none. A seed trains its own sources; the greedy team sum of 200 episodes is taken every 10,000 env
steps. Rows go to benchmarks/results/init_from.jsonl; those that are there already are skipped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import append_row

import rlkit
from rlkit import recipe as recipes

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "init_from.jsonl"
BAR = -34.0
# where the weights come from -> the recipe and its policy that plays the shared one of spread
SOURCES = {"scratch": None, "tag": ("maddpg_tag", "predators"), "adversary": ("maddpg_adversary", "good")}


def rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows measured so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def trained(recipe: str, out: Path, **changes: Any) -> rlkit.Run:
    """Train a shipped recipe with some of its keys changed."""
    values = recipes.load(ROOT / "configs" / f"{recipe}.yaml").to_dict()
    values.pop("evaluation")
    values |= {"checkpoint": {"every": 1000}, **changes}
    return rlkit.train(values, out=out, quiet=True)


def measured(source: str, seed: int, given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train the source, if there is one, and spread from it; return after how many env steps it reached the bar."""
    begin, begin_from = time.monotonic(), None
    if (where := SOURCES[source]) is not None:
        recipe, policy = where
        donor = trained(
            recipe, out, name=f"{source}_{seed}", seed=1000 + seed, stop={"env_steps": given.source_steps}
        )
        begin_from = {"shared": f"{donor.path}#{policy}"}
    run = trained(
        "maddpg_spread", out, name=f"spread_{source}_{seed}", seed=seed,
        stop={"eval/episode_return": BAR, "env_steps": given.steps}, evaluation={"every": 2, "episodes": 200},
        **({"init_from": begin_from} if begin_from else {}),
    )  # fmt: skip
    curve = run.metrics[["env_steps", "eval/episode_return"]].dropna()
    reached = curve[curve["eval/episode_return"] >= BAR]["env_steps"]
    return {
        "name": "maddpg_spread", "variant": f"from {source}", "return": round(float(curve.iloc[-1, 1]), 2),
        "env_steps": int(curve.iloc[-1, 0]), "source": source, "seed": seed,
        "source_steps": given.source_steps if begin_from else 0,
        "reached": int(reached.iloc[0]) if len(reached) else None, "budget": given.steps,
        "curve": [[int(steps), round(float(value), 2)] for steps, value in curve.to_numpy()],
        "wall_s": round(time.monotonic() - begin),
    }  # fmt: skip


def report(file: Path) -> None:
    """Print a line for each source."""
    print(f"| weights from | seeds | env steps to {BAR:g} | median | after 10,000 env steps |")
    print("|---|---|---|---|---|")
    for source in SOURCES:
        mine = [row for row in rows(file) if row["source"] == source]
        if not mine:
            continue
        reached = [row["reached"] or float("inf") for row in mine]
        shown = ", ".join(
            f"{row['reached']:,}" if row["reached"] else f"not in {row['budget']:,}" for row in mine
        )
        first = ", ".join(f"{row['curve'][0][1]:.1f}" for row in mine)
        print(f"| {source} | {len(mine)} | {shown} | {statistics.median(reached):,.0f} | {first} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--source-steps", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.what == "run":
        for seed in range(given.seeds):
            for source in SOURCES:
                if any((row["source"], row["seed"]) == (source, seed) for row in rows(given.out)):
                    continue
                with tempfile.TemporaryDirectory() as out:
                    row = measured(source, seed, given, Path(out))
                append_row(given.out, row)
                print(source, seed, row["reached"], f"{row['wall_s']} s", flush=True)
    report(given.out)


if __name__ == "__main__":
    main()
