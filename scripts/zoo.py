"""The trained policies in rlkit/zoo: evaluate them and compare with their table, or add one.

    python scripts/zoo.py [NAME…]          # `make zoo`: plays each on the seeds of its row; exit code 1 if one differs
    python scripts/zoo.py --add RUN…       # exports the best checkpoint of runs of a recipe to rlkit/zoo/<recipe>, and
                                           # writes its row; runs of another recipe among them make another policy

With the processor and the torch of a row the mean is equal to the last digit. Elsewhere sums have other last bits, so
the two 95 % intervals have to overlap. A run's best checkpoint was chosen by its evaluation during training, on
other seeds than those of the row.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import rlkit
from rlkit.files import write_atomic
from rlkit.play.export import export
from rlkit.recipe.shipped import PREFIX, TABLE, ZOO, policies
from rlkit.runs.manifest import versions
from rlkit.runs.run import Run, open_run

EPISODES, SEED = 100, 0


def processor() -> str:
    """Return the model name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def play(name: str) -> dict[str, Any]:
    """Return what a row says of 100 greedy episodes."""
    found = rlkit.evaluate(name, episodes=EPISODES, seed=SEED)
    returns = found.episode_return
    return {
        "env": found.env,
        "episodes": EPISODES,
        "seed": SEED,
        "mean": returns["mean"],
        "ci95": returns["ci95"],
        "min": returns["min"],
        "max": returns["max"],
    }


def differs(row: dict[str, Any], now: dict[str, Any], same: bool) -> bool:
    """Whether an evaluation contradicts its row."""
    if same:
        return any(row[key] != now[key] for key in ("mean", "min", "max"))
    return row["ci95"][1] < now["ci95"][0] or now["ci95"][1] < row["ci95"][0]


def compare(names: list[str]) -> bool:
    """Play policies, print a line for each; return whether all are as their rows say."""
    here, torch, rows, good = processor(), versions()["torch"], policies(), True
    for name in [PREFIX + n.removeprefix(PREFIX) for n in names] or rows:
        now = play(name)
        row = rows[name]
        same = (row["processor"], row["versions"]["torch"]) == (here, torch)
        wrong = differs(row, now, same)
        good &= not wrong
        low, high = row["ci95"]
        print(
            f"{'DIFFERS' if wrong else 'ok':8}{name:32} {now['mean']:9.3f}"
            f"  row {row['mean']:9.3f} ({low:.2f} … {high:.2f})"
            f"  {'exact' if same else 'overlap of intervals: another processor or torch'}",
            flush=True,
        )
    return good


def add(paths: list[str]) -> None:
    """Export the best of each recipe's runs into the zoo and write its row."""
    runs: dict[str, list[Run]] = {}
    for path in paths:
        run = open_run(path)
        if run.info.best is None:
            sys.exit(
                f"{path} names no best checkpoint, expected a run with an evaluation section that made one"
            )
        runs.setdefault(run.info.name, []).append(run)
    for name, found in runs.items():
        # Every recipe of the zoo maximises its metric.
        run = max(found, key=lambda one: one.info.best.value if one.info.best else float("-inf"))
        seeds = sum(len(one.trials) for one in found)
        made = export(run.best_checkpoint or run.path, ZOO / name)
        manifest = rlkit.load(made.path).manifest
        recipe, git = manifest.recipe or {}, run.info.git
        said = [word for word in run.info.argv[3:] if re.match(r"(?!seed=|--)[\w.\[\]]+=", word)]
        row = {
            **play(str(made.path)),
            "recipe": name,
            **({"overrides": said} if said else {}),
            "trained_seed": recipe.get("seed"),
            "env_steps": manifest.env_steps,
            "chosen_from": f"{seeds} seed{'s' if seeds > 1 else ''}",
            "commit": git and f"{str(git.get('commit'))[:12]}{' with changes' if git.get('dirty') else ''}",
            "versions": {key: versions()[key] for key in ("rlkit", "ray", "torch")},
            "processor": processor(),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }
        rows = {**(json.loads(TABLE.read_text()) if TABLE.is_file() else {}), name: row}
        write_atomic(TABLE, json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
        print(f"{PREFIX}{name}: {row['mean']:.3f} in {row['ci95']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--add", metavar="RUN", nargs="+")
    options = parser.parse_args()
    if options.add:
        add(options.add)
    elif not compare(options.names):
        sys.exit(1)


if __name__ == "__main__":
    main()
