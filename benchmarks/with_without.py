"""A recipe against itself with some of its keys changed: same budget, same seeds.

    python benchmarks/with_without.py configs/dron_tag.yaml KEY=VALUE … [--seeds 0 1 2]
    python benchmarks/with_without.py configs/dron_selfplay.yaml KEY=VALUE … --meet
    python benchmarks/with_without.py configs/curriculum_soccer.yaml curriculum=null --meet

KEY=VALUE is that of `rlkit train`. Each run is `rlkit train`, in a folder of its own. Then `rlkit evaluate` plays 200
greedy episodes of each, or with `--meet` 1,000 games of the recipe's agents against the changed one's, both ways round
(two players). `--keep` appends each result to benchmarks/results/<recipe>.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from processes import append_row, rlkit

from rlkit.runs.run import open_run

ROOT = Path(__file__).resolve().parent.parent
PLAYERS = ("player_a", "player_b")


def trained(recipe: str, changes: list[str], name: str, seed: int, out: Path) -> Path:
    """Train and return the run folder."""
    folder = out / f"{name}_{seed}"
    rlkit("train", recipe, *changes, f"seed={seed}", f"name={folder.name}", "--out", str(out))
    return sorted(folder.glob("*"))[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("changes", nargs="+", metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--meet", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "with_without")
    options = parser.parse_args()
    name = Path(options.recipe).stem
    columns: dict[str, list[float]] = {}
    for seed in options.seeds:
        one = trained(options.recipe, [], name, seed, options.out)
        other = trained(options.recipe, options.changes, f"{name}_changed", seed, options.out)
        row: dict[str, float] = {}
        if options.meet:
            for mine, theirs in (PLAYERS, PLAYERS[::-1]):
                found = rlkit("evaluate", str(one), "--versus", str(other), "--agents", f"{mine}=A,{theirs}=B",
                              "--episodes", "1000", "--json")  # fmt: skip
                row[f"return as {mine}"] = json.loads(found)["pairings"][0]["agents"][mine]["mean"]
        else:
            for label, run in (("recipe", one), ("changed", other)):
                found = rlkit("evaluate", str(run), "--episodes", "200", "--json")
                row[label] = json.loads(found)["episode_return"]["mean"]
        print(f"seed {seed}  " + "  ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
        if options.keep:
            words = " ".join(options.changes)
            variants = {f"against {words}": statistics.mean(row.values())}
            if not options.meet:
                variants = {"default": row["recipe"], words: row["changed"]}
            steps = int(open_run(one).last_metrics["env_steps"])
            for variant, value in variants.items():
                found = {"seed": seed, "variant": variant, "return": round(value, 3), "env_steps": steps}
                append_row(ROOT / "benchmarks" / "results" / f"{name}.jsonl", found)
    print("mean    " + "  ".join(f"{key} {statistics.mean(values):.2f}" for key, values in columns.items()))


if __name__ == "__main__":
    main()
