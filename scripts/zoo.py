"""The trained policies in rlkit/zoo: evaluate them and compare with their table, or add one.

    python scripts/zoo.py [NAME…]          # `make zoo`: plays each on the seeds of its row; exit code 1 if one differs
                                           # or cannot be played
    python scripts/zoo.py --note           # plays all, and notes for docs/results.md how each compares with its row
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
from rlkit.errors import UsageError
from rlkit.files import write_atomic
from rlkit.play.export import export
from rlkit.recipe.shipped import PREFIX, TABLE, ZOO, find_policy, policies
from rlkit.runs.manifest import versions
from rlkit.runs.run import Run, open_run

EPISODES, SEED = 100, 0
NOTE = Path(__file__).parents[1] / "benchmarks" / "results" / "zoo_played.json"


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


def outcome(name: str, row: dict[str, Any]) -> tuple[str, str]:
    """Play a policy; return `exact`, `interval`, `differs` or `not played`, and the numbers or the reason."""
    try:
        now = play(name)
    except Exception as error:  # a package is missing, a bundle is damaged: the others are played
        said = str(error).strip().splitlines()
        return "not played", said[0] if said else type(error).__name__
    same = (row["processor"], row["versions"]["torch"]) == (processor(), versions()["torch"])
    low, high = row["ci95"]
    return (
        "differs" if differs(row, now, same) else "exact" if same else "interval",
        f"{now['mean']:9.3f}  row {row['mean']:9.3f} ({low:.2f} … {high:.2f})"
        f"{'' if same else '  overlap of intervals: another processor or torch'}",
    )


def compare(names: list[str]) -> dict[str, str]:
    """Play policies, all without names; print a line for each and a last one; return how each compares with its row."""
    rows, found = policies(), {}
    for name in [PREFIX + n.removeprefix(PREFIX) for n in names] or rows:
        find_policy(name)  # one that is not in the zoo is an error which offers the right name
        found[name], text = outcome(name, rows[name])
        print(f"{found[name]:11}{name:32} {text}", flush=True)
    bad = wrong(found)
    listed = f"; not: {', '.join(bad)}" if bad else ""
    print(f"{len(found) - len(bad)} of {len(found)} as their rows say{listed}")
    return found


def wrong(found: dict[str, str]) -> list[str]:
    """The policies that differ from their rows or could not be played."""
    return [name for name, what in found.items() if what not in ("exact", "interval")]


def note(found: dict[str, str]) -> None:
    """Write what docs/results.md says of the last time that all were played."""
    said = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": processor(),
        "torch": versions()["torch"],
        "found": {name.removeprefix(PREFIX): what for name, what in found.items()},
    }
    write_atomic(NOTE, json.dumps(said, indent=1) + "\n")


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
    parser.add_argument("--note", action="store_true")
    options = parser.parse_args()
    if options.add:
        add(options.add)
        return
    if options.note and options.names:
        parser.error("--note is of all policies: give no names")
    try:
        found = compare(options.names)
    except UsageError as error:
        sys.exit(str(error))
    if options.note:
        note(found)
    sys.exit(1 if wrong(found) else 0)


if __name__ == "__main__":
    main()
