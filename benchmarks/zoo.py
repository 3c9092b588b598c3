"""Recipes against published figures: train seeds, play 100 greedy episodes of each, one JSON line per run.

    python benchmarks/zoo.py run ppo_acrobot [--seeds 0 1 2] [KEY=VALUE ...] [--variant default] [--out FOLDER]
    python benchmarks/zoo.py show [ppo_acrobot ...]

`run` calls `rlkit train` and `rlkit evaluate`, and appends to benchmarks/results/<recipe>.jsonl what is not there
yet: recipe, seed, variant and its KEY=VALUE, env steps, mean and interval of the best checkpoint's and of the last
checkpoint's greedy returns over 100 episodes, wall and CPU seconds of the training and everything it starts,
processor, commit and date. Neither training nor the choice of the checkpoint saw these episodes; those of seed s begin
with the environment's seed 1000 s, so that the means of two seeds are independent. `show` prints the mean over seeds
and its 95 % bootstrap interval (whole seeds drawn again, as in rliable) beside the published figure, which is reached
when no part of the best checkpoints' interval is below it. `--rows FILE` appends elsewhere, `--episodes` plays fewer,
`--import FILE` is that of `rlkit train`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlkit.runs.statistics import interval

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
EPISODES = 100
PUBLISHED = json.loads((ROOT / "benchmarks" / "published.json").read_text())


def rlkit(*arguments: str) -> tuple[dict[str, Any], Any]:
    """Run a command of rlkit; return the JSON of its last line, and what the command cost."""
    from processes import measure

    command = [sys.executable, "-m", "rlkit", *arguments, "--json"]
    cost = measure(command, progress=True)
    if cost.code:
        sys.exit(f"{' '.join(command)} ended with {cost.code}")
    return json.loads(cost.out.strip().splitlines()[-1]), cost


def one(
    recipe: str,
    seed: int,
    variant: str,
    overrides: list[str],
    out: str,
    episodes: int = EPISODES,
    imports: Sequence[str] = (),
) -> dict[str, Any]:
    """Train one seed and evaluate its best and its last checkpoint."""
    modules = [word for name in imports for word in ("--import", name)]
    file = str(ROOT / "configs" / f"{recipe}.yaml")
    run, cost = rlkit("train", file, f"seed={seed}", *overrides, "--out", out, *modules)
    row: dict[str, Any] = {
        "recipe": recipe, "seed": seed, "variant": variant, "overrides": overrides,
        "env_steps": int(run["env_steps"]), "wall_s": round(cost.wall, 1), "cpu_s": round(cost.cpu, 1),
    }  # fmt: skip
    first = ("--seed", str(1000 * seed))
    for which in ("best", "last"):
        played, _ = rlkit(
            "evaluate", run[f"{which}_checkpoint"], "--episodes", str(episodes), *first, *modules
        )
        found = played["episode_return"]
        row[which], row[f"{which}_ci95"] = round(found["mean"], 2), [round(x, 2) for x in found["ci95"]]
    row["return"] = row["last"]  # the number of docs/results.md
    return row


def rows(recipe: str, path: Path | None = None) -> list[dict[str, Any]]:
    """Return the rows of a recipe measured so far."""
    path = path or RESULTS / f"{recipe}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def run(given: argparse.Namespace, recipe: str, overrides: list[str], out: str) -> None:
    """Train what is missing, one process after the other."""
    from processes import append_row

    path = given.rows or RESULTS / f"{recipe}.jsonl"
    for seed in given.seeds:
        if any((row["seed"], row["variant"]) == (seed, given.variant) for row in rows(recipe, path)):
            continue
        row = one(recipe, seed, given.variant, overrides, out, given.episodes, given.imports)
        print(json.dumps(row), flush=True)
        append_row(path, row)


def scores(entry: dict[str, Any], which: str) -> dict[int, float]:
    """Measured numbers by seed, of the best or the last checkpoint; of a team per agent, of the last policy alone."""
    found = {}
    for row in rows(entry["file"]):
        if "variant" in entry:
            mine = row.get("variant") == entry["variant"]
        else:
            mine = row.get("kind", "run") == "run" and entry.get("name", entry["recipe"]) in (
                row.get("name"),
                row.get("recipe"),
            )
        if mine:
            value = row.get(which, row.get("return", row.get("team_sum")))
            found[row["seed"]] = value / entry.get("agents", 1)
    return dict(sorted(found.items()))


def table(entries: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table: what was measured beside what was published."""
    lines = [
        "| recipe | seeds | best checkpoint | last checkpoint | published | |",
        "|---|---|---|---|---|---|",
    ]
    for entry in entries:
        variant = entry.get("variant", "default")
        name = entry.get("label", entry["recipe"] if variant == "default" else f"{entry['recipe']} {variant}")
        cells, reached, published = [], False, entry.get("published")
        for which in ("best", "last"):
            found = list(scores(entry, which).values())
            if not found:
                cells.append("–")
                continue
            low, high = interval(found)
            cells.append(
                f"{statistics.fmean(found):.1f} ({low:.1f} to {high:.1f}): {', '.join(f'{x:.1f}' for x in found)}"
            )
            if which == "best" and published is not None:
                reached = round(low, 2) >= published
        count = len(scores(entry, "last"))
        if published is None:
            verdict = ""
        elif not count:
            verdict = "not measured"
        elif reached:
            verdict = f"reached{'' if count > 2 else ', few seeds'}"
        else:
            verdict = "missed"
        beside = (
            f"{published} ({entry['source']}, {entry['budget']} env steps)" if published is not None else ""
        )
        lines.append(f"| {name} | {count} | {' | '.join(cells)} | {beside} | {verdict} |")
    return lines


def show(recipes: list[str]) -> None:
    """Print the table of all published figures, or of everything measured with some recipes."""
    entries = [entry for entry in PUBLISHED if not recipes]
    for recipe in recipes:
        for variant in dict.fromkeys(row["variant"] for row in rows(recipe)):
            known = [e for e in PUBLISHED if (e["recipe"], e.get("variant")) == (recipe, variant)]
            entries += known or [{"recipe": recipe, "file": recipe, "variant": variant}]
    print("\n".join(table(entries)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=["run", "show"])
    parser.add_argument("what", nargs="*", help="recipe, then KEY=VALUE; for show any number of recipes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variant", default="default")
    parser.add_argument("--import", dest="imports", metavar="FILE", action="append", default=[])
    parser.add_argument("--out", help="where runs are kept; default: a folder that is removed")
    parser.add_argument("--rows", type=Path, help="file of rows; default: benchmarks/results/<recipe>.jsonl")
    parser.add_argument("--episodes", type=int, default=EPISODES)
    given = parser.parse_intermixed_args()
    if given.do == "show":
        show(given.what)
        return
    if not given.what:
        parser.error("name a recipe")
    recipe, *overrides = given.what
    if overrides and given.variant == "default":
        parser.error("give rows with KEY=VALUE a name: --variant NAME")
    with tempfile.TemporaryDirectory() as folder:
        run(given, recipe, overrides, given.out or folder)


if __name__ == "__main__":
    main()
