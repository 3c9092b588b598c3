"""docs/results.md from benchmarks/results/*.jsonl.

    python scripts/results.py            # writes docs/results.md
    python scripts/results.py --check    # says whether it is up to date; exit code 1 if not

A line of those files is one training run (or one evaluation of it). Runs of one name, variant and pool are one row of a
table: its seeds, spread, budget, wall and CPU time. Where a line says on which processor, commit and date it was
measured, so does the row; what no line says is "not recorded", and what some lines do not say is counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
HEAD = """\
# Results

Written by `python scripts/results.py` from `benchmarks/results/*.jsonl`, in which every line is one training run,
failures included. A result is the final value of each seed, in the order of the seeds; of more than ten seeds the
lowest, the median and the highest. Wall and CPU times depend on the processor and on what else ran on it; the env steps
that a seed needs depend on the processor too, because the last bits of sums do. Lines that do not say when, where or
with which commit they were measured are "not recorded". A dash: one seed has no deviation.
"""
UNKNOWN = "not recorded"


# What a line calls the number it is about: of the last policy, of a confirming evaluation, of a team.
NUMBERS = ("return", "final", "confirmed", "team_sum")
MOST = 10  # seeds whose results are listed one by one


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines() if text.strip()]


def key_of(line: dict[str, Any], file: str) -> tuple[str, ...]:
    words = [line["recipe"]] if line.get("recipe") not in (None, file) else []
    return tuple(map(str, words + [line[k] for k in ("name", "pool", "variant") if line.get(k) is not None]))


def result_of(line: dict[str, Any]) -> float | None:
    """The one number that a line is about; None for a run that has none."""
    final = next((line[word] for word in NUMBERS if word in line), None)
    value = final.get("all") if isinstance(final, dict) else final
    return float(value) if isinstance(value, int | float) else None


def seeds(lines: list[dict[str, Any]]) -> str:
    """The seeds of sorted lines; many in a row as `0 to 49`."""
    found = [line.get("seed") for line in lines]
    if len(found) > MOST and None not in found and found == list(range(found[0], found[0] + len(found))):
        return f"{found[0]} to {found[-1]}"
    return ", ".join("–" if seed is None else str(seed) for seed in found)


def results(values: list[float | None], digits: int) -> str:
    """The results of the seeds; of many the lowest, the median and the highest."""
    known = sorted(value for value in values if value is not None)
    if len(values) <= MOST or not known:
        return ", ".join("failed" if value is None else f"{value:.{digits}f}" for value in values)
    return " … ".join(f"{value:.{digits}f}" for value in (known[0], statistics.median(known), known[-1]))


def row(key: tuple[str, ...], lines: list[dict[str, Any]]) -> str:
    lines = sorted(lines, key=lambda line: line.get("seed", 0))
    values = [result_of(line) for line in lines]
    known = [value for value in values if value is not None]
    failed = len(values) - len(known)

    def span(name: str, scale: float = 1.0) -> str:
        found = [line[name] / scale for line in lines if isinstance(line.get(name), int | float)]
        if not found:
            return UNKNOWN
        low, high = min(found), max(found)
        return f"{low:,.0f}" if f"{low:,.0f}" == f"{high:,.0f}" else f"{low:,.0f} to {high:,.0f}"

    def said(name: str) -> str:
        found = [str(line[name]) for line in lines if line.get(name)]
        missing = len(lines) - len(found)
        rest = (
            [f"{UNKNOWN} ({missing} of {len(lines)})"] if missing and found else [UNKNOWN] if missing else []
        )
        return ", ".join([*sorted(set(found)), *rest])

    steps = span("env_steps" if any("env_steps" in line for line in lines) else "steps", 1000)
    largest = max(map(abs, known), default=0.0)
    digits = 3 if largest < 2 else 2 if largest < 10 else 1
    cells = [
        " ".join(key),
        seeds(lines),
        results(values, digits),
        f"{statistics.mean(known):.{digits}f}" if known else "–",
        f"{statistics.stdev(known):.{digits}f}" if len(known) > 1 else "–",
        str(failed),
        steps if steps == UNKNOWN else f"{steps}k",
        span("wall_s"), span("cpu_s"), said("processor"), said("commit"), said("date"),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


BESIDE = """
## Against published figures

100 greedy episodes of each seed, its own; the mean over seeds and its 95 %
bootstrap interval (seeds drawn again).
"Reached" means that the whole interval of the best checkpoints lies at or above the figure. The best checkpoint is the
one that the training's own evaluation chose, on other episodes. Teams: the last policy, per agent, after the smaller
budget of the recipe. `python benchmarks/zoo.py show` prints this table, `run RECIPE` measures a row of it.
"""


def module_of(path: Path) -> Any:
    """Import a script of benchmarks/."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def beside() -> list[str]:
    """The table of benchmarks/zoo.py."""
    zoo = module_of(ROOT / "benchmarks" / "zoo.py")
    lines: list[str] = zoo.table(zoo.PUBLISHED)
    rows = lines[2:]
    reached = sum(line.rstrip("| ").endswith("reached") for line in rows)
    return [BESIDE, f"Reached: {reached} of {len(rows)} rows.\n", *lines]


POLICIES = """
## Policies that come along

The best checkpoint of the seed that the training's own evaluation found best, played greedily on the episodes of the
environment's seeds 0 to 99: `rlkit evaluate zoo/NAME --episodes 100 --seed 0` ([export.md](export.md)). `make zoo`
plays them all and compares with these rows: equal to the last digit with the processor and torch of the row, else the
intervals overlap. {played}

| policy | mean, 95 % interval | lowest, highest | trained seed | env steps | processor | commit | date |
|---|---|---|---|---|---|---|---|"""


def played() -> str:
    """What the last `scripts/zoo.py --note` found."""
    note = json.loads((RESULTS / "zoo_played.json").read_text())
    words = {"exact": "equal", "interval": "overlapping", "differs": "different", "not played": "not played"}
    parts = []
    for what, word in words.items():
        names = [f"`{name}`" for name, said in note["found"].items() if said == what]
        listed = f" ({', '.join(names)})" if what in ("differs", "not played") else ""
        parts += [f"{len(names)} {word}{listed}"] if names else []
    where = f"{note['processor']}, torch {note['torch']}"
    return f"The last time, on {note['date']} ({where}): {', '.join(parts)}."


def policies() -> list[str]:
    """A line for each policy in rlkit/zoo."""
    lines = [POLICIES.format(played=played())]
    for name, row in json.loads((ROOT / "rlkit" / "zoo" / "table.json").read_text()).items():
        digits = 1 if abs(row["mean"]) >= 10 else 3
        low, high, least, most = (f"{x:.{digits}f}" for x in (*row["ci95"], row["min"], row["max"]))
        cells = [
            f"`zoo/{name}`", f"{row['mean']:.{digits}f} ({low} to {high})", f"{least}, {most}",
            f"{row['trained_seed']}, the best of {row['chosen_from']}", f"{row['env_steps'] / 1000:,.0f}k",
            *(row.get(word) or UNKNOWN for word in ("processor", "commit", "date")),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


STARTED = """
## Every benchmark, started

What `make bench-smoke` gave: each script of `benchmarks/` in a short form (its arguments stand in
[smoke.py](../benchmarks/smoke.py)), to its end, with what it cost in seconds of wall-clock on a busy machine. So short
a form says that a script runs, not what it measures: a bar may be missed in it.

| script | seconds | date |
|---|---|---|"""


def started() -> list[str]:
    """A line for each benchmark that has a short form."""
    benchmarks = ROOT / "benchmarks"
    kept = json.loads((benchmarks / "smoke.json").read_text())
    names = module_of(benchmarks / "smoke.py").SHORT
    rows = [(name, kept.get(name, {"took": UNKNOWN, "date": UNKNOWN})) for name in sorted(names)]
    return [STARTED, *(f"| `{name}.py` | {row['took']} | {row['date']} |" for name, row in rows)]


def page() -> str:
    parts = [HEAD, *beside(), *policies(), *started()]
    columns = ["run", "seeds", "result", "mean", "std", "failed", "env steps"]
    columns += ["wall s", "CPU s", "processor", "commit", "date"]
    for path in sorted(RESULTS.glob("*.jsonl")):
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for line in lines_of(path):
            if line.get("kind", "run") == "run":
                groups.setdefault(key_of(line, path.stem), []).append(line)
        if not groups:
            continue
        parts += [f"\n## {path.stem}\n", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        parts += [row(key, lines) for key, lines in groups.items()]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    text = page()
    if parser.parse_args().check:
        if not PAGE.is_file() or PAGE.read_text() != text:
            sys.exit(
                "docs/results.md is not what benchmarks/results/*.jsonl say; run python scripts/results.py"
            )
        return
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
