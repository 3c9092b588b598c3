"""What a page says of runs beside curves: their tables, their recipes' differences from the defaults, warnings."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.errors import CheckpointError
from rlkit.recipe import RecipeError
from rlkit.recipe.schema import Recipe
from rlkit.recipe.signatures import Config
from rlkit.report.groups import TrialGroup, flatten
from rlkit.runs.reading import open_regular, parse_object, read_bytes
from rlkit.runs.run import Run, RunInfo
from rlkit.runs.statistics import MIN_SEEDS

Row = list[str]
TAIL = 4 << 20  # bytes at the end of a result.json that hold its last line


def runs_of(groups: Sequence[TrialGroup]) -> list[Run]:
    """Return the runs of groups, each once."""
    return list({trial.run.path: trial.run for group in groups for trial in group.trials}.values())


def run_rows(groups: Sequence[TrialGroup]) -> list[dict[str, str]]:
    """How each run was started, from what, and where it stands."""
    rows = []
    for run in runs_of(groups):
        info, git = run.info, run.info.git
        commit = f"{git.get('commit', '')}{' with changes' if git.get('dirty') else ''}" if git else "none"
        versions = ", ".join(f"{name} {version}" for name, version in info.versions.items())
        ends = (g.last(t, "env_steps") for g in groups for t in g.trials if t.run.path == run.path)
        steps = [end for end in ends if end is not None]
        rows.append({
            "run": str(run.path), "status": run.status, "command": _command(info), "began": info.created,
            "commit": commit, "versions": versions, "trials": str(len(run.trials)),
            "env steps": f"{int(max(steps)):,}" if steps else "none",
        })  # fmt: skip
    return rows


def _command(info: RunInfo) -> str:
    """The command that began a run, and with what it was resumed."""
    words = shlex.join(info.resumed_with)
    return f"{info.command}; resumed with {words}" if words else info.command


def differences_from_defaults(params: Mapping[str, Any]) -> list[Row]:
    """Key, value and default of all that a recipe sets otherwise than rlkit and RLlib do by themselves."""
    plain: dict[str, Any] = {
        name: None if field.is_required() else field.default for name, field in Recipe.model_fields.items()
    }
    sections = {name: value.model_dump() for name, value in plain.items() if hasattr(value, "model_dump")}
    config = Config(str(params.get("algorithm", "")))
    rows = []
    inside = {key: value for key, value in params.items() if key not in ("name", "tune", "seed")}
    for key, value in flatten(inside, nulls=True):
        head, *rest = key.split(".")
        if head == "config" and len(rest) > 1:
            default = config.default(rest[0], rest[1])
            for part in rest[2:]:
                default = default.get(part) if isinstance(default, Mapping) else None
        elif head in sections:
            default = sections[head].get(rest[0]) if rest else None
        else:
            default = plain.get(key)
        if value != (list(default) if isinstance(default, tuple) else default):
            rows.append([key, _text(value), "" if default is None else _text(default)])
    return rows


def _text(value: Any) -> str:
    text = json.dumps(value, default=str) if value is None or isinstance(value, list | dict) else str(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text):,} characters)"


def warnings(groups: Sequence[TrialGroup], metric: str) -> list[str]:
    """What a reader should know before believing the numbers."""
    found = []
    for group in groups:
        curves = group.curves(metric, "env_steps")
        seeds = len(group.trials)
        if seeds < MIN_SEEDS:
            found.append(
                f"{group.label}: {seeds} seed{'s' if seeds > 1 else ''}; an interval needs {MIN_SEEDS}"
            )
        shared = [seed for (_, seed), n in Counter(group.seeds()).items() if n > 1]
        if shared:
            found.append(
                f"{group.label}: seed {shared[0]} was trained more than once; these are not independent"
            )
        if len(curves) < seeds:
            found.append(f"{group.label}: {seeds - len(curves)} of {seeds} trials have not reported {metric}")
        ends = [curve.x[-1] for curve in curves]
        if ends and max(ends) > 1.5 * min(ends):
            found.append(
                f"{group.label}: seeds ended between {min(ends):,.0f} and {max(ends):,.0f} env steps; the IQM ends "
                "with the first"
            )
        if not group.curves("eval/episode_return", "env_steps"):
            found.append(
                f"{group.label}: no evaluation during training; returns are those of exploring episodes"
            )
    runs = runs_of(groups)
    for run in runs:
        if run.status != "done":
            why = f": {run.info.error.splitlines()[0]}" if run.info.error else ""
            found.append(f"{run.path}: {run.status}, not finished{why}")
        if run.info.git and run.info.git.get("dirty"):
            found.append(f"{run.path}: the code had changes that are in no commit")
    for name in ("rlkit", "ray", "torch"):
        used = sorted({str(run.info.versions.get(name, "unknown")) for run in runs})
        if len(used) > 1:
            found.append(f"the runs used different versions of {name}: {', '.join(used)}")
    return found


def timer_rows(group: TrialGroup, notes: list[str]) -> list[Row]:
    """Name and seconds of RLlib's timers at the end, running means of one call, over the trials; the longest first."""
    sums: dict[str, list[float]] = {}
    for trial in group.trials:
        for name, value in _last_result(trial.path / "result.json", notes).get("timers", {}).items():
            if isinstance(value, int | float) and value == value:
                sums.setdefault(str(name), []).append(float(value))
    means = {name: sum(values) / len(values) for name, values in sums.items()}
    return [
        [name, f"{means[name]:.3g} s"]
        for name in sorted(means, key=lambda n: -means[n])
        if means[name] > 1e-4
    ]


def _last_result(path: Path, notes: list[str]) -> dict[str, Any]:
    """The last line of a result.json; {} where there is none, with a note where it is damaged."""
    try:
        with open_regular(path, limit=1 << 40) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().splitlines()
        values = parse_object(lines[-1], str(path)) if lines else {}
        if not isinstance(values.get("timers", {}), dict):
            raise CheckpointError(f"{path}: expected an object with timers")
        return values
    except FileNotFoundError:
        return {}
    except CheckpointError as error:
        notes.append(f"the last line of a result.json was left out: {error}")
        return {}


def recipe_text(group: TrialGroup, notes: list[str]) -> str:
    """The recipe of a group's first run as YAML, as it lies there."""
    run = group.trials[0].run
    path = run.path / "recipe.yaml"
    try:
        return read_bytes(path).decode("utf-8", errors="replace")[:100_000]
    except FileNotFoundError:
        notes.append(f"{path}: missing")
    except CheckpointError as error:
        notes.append(str(error))
    return ""


def search_run(run: Run, notes: list[str]) -> bool:
    """Whether a run is a search: several trials whose recipe has a search space beside the seed."""
    from rlkit.report.search_figures import searched

    try:
        found = len(run.trials) > 1 and bool(searched(run))
    except (RecipeError, CheckpointError) as error:
        notes.append(f"{run.path}: its recipe cannot be read ({str(error).splitlines()[0]})")
        return False
    try:
        return found and run.last_rows is not None  # a ranking needs them
    except CheckpointError as error:
        notes.append(f"no table of the search: {str(error).splitlines()[0]}")
        return False
