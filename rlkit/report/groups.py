"""Trials grouped into what a reader compares: one group per recipe, one curve per seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlkit.errors import CheckpointError, UsageError, did_you_mean
from rlkit.metrics import path_of
from rlkit.recipe.overrides import place
from rlkit.report.frames import read_frame
from rlkit.runs import store
from rlkit.runs.run import Run, Trial, open_run
from rlkit.runs.statistics import Array

if TYPE_CHECKING:
    import pandas
Runs = str | Path | Run | Sequence[str | Path | Run]

SEED_KEYS = ("seed", "tune")  # what may differ between the seeds of one group
SHORT = 0.8  # a curve that ends before this share of its trial's env steps is told


@dataclass(frozen=True)
class Curve:
    """One trial's metric. x rises strictly; points where either value is absent, NaN or infinite are left out."""

    trial: Trial
    x: Array
    y: Array
    env: str = ""


@dataclass
class TrialGroup:
    """Trials with the same recipe up to the seed, or with the same values of what runs are grouped by.

    Attributes:
        params: what the recipes of all trials have in common.
        scale: environment -> the returns that count as 0 and as 1; empty for returns as they are.
    """

    name: str
    params: dict[str, Any]
    trials: list[Trial]
    frames: dict[Path, pandas.DataFrame]
    envs: dict[Path, str] = field(default_factory=dict)  # trial folder -> its environment
    varied: str = ""  # what tells this group from others of the same name: "lr=0.001"
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.name} {self.varied}".strip()

    def seeds(self) -> list[tuple[str, str]]:
        """Environment and seed of each trial that has one; trials without share nothing."""
        seeds = [(self.envs[trial.path], trial.params.get("seed")) for trial in self.trials]
        return [(env, json.dumps(seed, default=str)) for env, seed in seeds if seed is not None]

    def last(self, trial: Trial, metric: str) -> float | None:
        """The last finite value of a metric that a trial has reported; None where it has none."""
        frame = self.frames[trial.run.path]
        if metric not in frame:
            return None
        values = frame.loc[frame["trial"] == trial.name, metric].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        return float(values[-1]) if len(values) else None

    def curves(self, metric: str, x: str) -> list[Curve]:
        """The metric of each trial that has it."""
        found = []
        for trial in self.trials:
            frame = self.frames[trial.run.path]
            if metric not in frame or x not in frame:
                continue
            values = frame.loc[frame["trial"] == trial.name, [x, metric]].to_numpy(dtype=np.float64)
            values = values[np.isfinite(values).all(axis=1)]
            if len(values):
                rising = np.concatenate([[True], np.diff(np.maximum.accumulate(values[:, 0])) > 0])
                env = self.envs[trial.path]
                low, high = self.scale.get(env, (0.0, 1.0)) if is_return(metric) else (0.0, 1.0)
                y = (values[rising, 1] - low) / (high - low)
                found.append(Curve(trial, values[rising, 0], y, env))
        return found


def is_return(metric: str) -> bool:
    """Whether scores of an environment say something of a metric: `eval/episode_return`, `return/agent_0`."""
    return "return" in metric


def fewest_seeds(curves: Sequence[Curve]) -> int:
    """The number of seeds in the environment that has the fewest; intervals draw the seeds of each by itself."""
    return min(Counter(curve.env for curve in curves).values(), default=0)


def as_list(runs: Runs) -> list[str | Path | Run]:
    """One path or run, or several of them, as a list.

    Raises:
        UsageError: an empty list.
    """
    found = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    if not found:
        raise UsageError("expected at least one run folder")
    return found


def load_groups(
    runs: Runs,
    metric: str,
    x: str = "env_steps",
    by: Sequence[str] = (),
    scale: Mapping[str, tuple[float, float]] | None = None,
    notes: list[str] | None = None,
) -> list[TrialGroup]:
    """Return the groups of runs, trials or checkpoints, in the order given.

    Args:
        by: keys of the recipe that tell groups apart (`algorithm`, `env`, `config.training.lr`); without any, recipes
            that differ only in the seed are one group.
        scale: environment -> the returns that count as 0 and 1; then a group may hold several environments.
        notes: what was left out of the runs, and why, is added to it.

    Raises:
        UsageError: a path that is no run, an unknown metric or key, a metric that none of the runs has reported, or
            returns of several environments that would be averaged as they are.
        CheckpointError: none of the runs can be read.
    """
    notes = [] if notes is None else notes
    found = read_groups(runs, by, scale, notes)
    frames = {path: frame for group in found for path, frame in group.frames.items()}
    for column in (x, metric):
        if column == "trial" or not any(column in f and _finite(f[column]).any() for f in frames.values()):
            raise UsageError(_no_such_metric(column, frames))
    if not any(group.curves(metric, x) for group in found):
        raise UsageError(
            f"no run here has reported {metric!r} together with {x} in the trials that are asked for"
        )
    notes += [line for group in found for line in _left_out(group, metric, x)]
    return found


def _finite(column: pandas.Series) -> Array:
    return np.isfinite(column.to_numpy(dtype=np.float64))


def _left_out(group: TrialGroup, metric: str, x: str) -> list[str]:
    """What a reader of a group's numbers has to know: trials without the metric, curves that end early, equal seeds."""
    curves = {curve.trial.path: curve for curve in group.curves(metric, x)}
    found = []
    for trial in group.trials:
        curve, end = curves.get(trial.path), group.last(trial, x)
        if curve is None:
            found.append(f"left out: {trial.path}: has no value of {metric}")
        elif end is not None and curve.x[-1] < SHORT * end:
            found.append(
                f"{trial.path}: its last {metric} is of {x} {curve.x[-1]:,.0f}, it ended at {end:,.0f}"
            )
    for (env, seed), count in Counter(group.seeds()).items():
        if count > 1:
            found.append(
                f"{group.label}: seed {seed} in {env} counts {count} times; these are not independent"
            )
    return found


def read_groups(
    runs: Runs,
    by: Sequence[str] = (),
    scale: Mapping[str, tuple[float, float]] | None = None,
    notes: list[str] | None = None,
) -> list[TrialGroup]:
    """Return the groups of runs whatever they have reported; see `load_groups`."""
    notes = [] if notes is None else notes
    frames: dict[Path, pandas.DataFrame] = {}
    groups: dict[str, TrialGroup] = {}
    entries: list[tuple[Trial, dict[str, Any]]] = []
    damaged: dict[Path, CheckpointError] = {}
    for trial in read_trials(as_list(runs), notes):
        if trial.run.path not in frames and trial.run.path not in damaged:
            try:
                frames[trial.run.path], left_out = read_frame(trial.run)
                notes += left_out
            except CheckpointError as error:
                damaged[trial.run.path] = error
                notes.append(f"left out: {error}")
        if trial.run.path in frames:
            entries.append((trial, trial.params))
    if damaged and not entries:
        raise next(iter(damaged.values()))
    _check_keys(by, [params for _, params in entries])
    for trial, params in entries:
        name = str(params.get("name") or trial.run.name)
        same = {key: value for key, value in params.items() if key not in SEED_KEYS}
        key = json.dumps([name, same], sort_keys=True, default=str)
        if by:
            key, name = json.dumps([_given(params, k) for k in by], default=str), ""
        group = groups.setdefault(key, TrialGroup(name, same, [], frames, scale=scale or {}))
        group.params = {k: v for k, v in group.params.items() if same.get(k) == v}
        group.trials.append(trial)
        group.envs[trial.path] = str(params.get("env", ""))
    found = list(groups.values())
    envs = sorted({env for group in found for env in group.envs.values()})
    for env in getattr(scale, "given", ()):
        if env not in envs:
            raise UsageError(
                f"--score {env}: no run here is in {env}{did_you_mean(env, envs)}; got {', '.join(envs)}"
            )
    for group in found:
        _check_envs(group)
    if by:
        _name(found, by)
    else:
        _tell_apart(found)
    _number(found)
    return found


def _name(groups: Sequence[TrialGroup], by: Sequence[str]) -> None:
    """Name groups by the values they have in common, with as many digits as tell them apart."""
    for word in (_word, _exact):
        for group in groups:
            first = group.trials[0].params
            group.name = _group_name(by, [_given(first, key) for key in by], word)
        if len({group.name for group in groups}) == len(groups):
            break


def _number(groups: Sequence[TrialGroup]) -> None:
    """Number groups whose recipes differ in nothing that a label can say, such as an empty section."""
    taken: set[str] = set()
    for group in groups:
        words, count = group.varied, 1
        while group.label in taken:
            count += 1
            group.varied = f"{words} #{count}".strip()
        taken.add(group.label)


def _given(params: Mapping[str, Any], key: str) -> list[Any]:
    """The value of a dotted key in a list; empty where the recipe does not have the key."""
    inside, _, last = key.rpartition(".")
    section = value_of(params, inside) if inside else params
    last = "name" if key == "recipe" else last
    return [section[last]] if isinstance(section, Mapping) and last in section else []


def value_of(params: Mapping[str, Any], key: str, missing: Any = None) -> Any:
    """Return the value of a dotted key of a recipe, `missing` where it has none; `recipe` is its name."""
    value: Any = params
    for part in ("name" if key == "recipe" else key).split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and 0 <= (at := place(part)) < len(value):
            value = value[at]
        else:
            return missing
    return value


def _group_name(by: Sequence[str], values: Sequence[list[Any]], word: Callable[[Any], str]) -> str:
    words = []
    for key, value in zip(by, values, strict=True):
        text = word(value[0]) if value else "(default)"
        plain = key in ("recipe", "name", "algorithm", "env")
        words.append(text if plain else f"{key.rpartition('.')[2]}={text}")
    return ", ".join(words)


def _check_keys(by: Sequence[str], params: Sequence[Mapping[str, Any]]) -> None:
    for key in by:
        if params and not any(_given(p, key) for p in params):
            known = sorted({"recipe"} | {k for p in params for k, _ in flatten(p)})
            raise UsageError(
                f"--by {key}: no recipe here has that key{did_you_mean(key, known)}; for example recipe, algorithm, "
                "env, config.training.lr"
            )


def _check_envs(group: TrialGroup) -> None:
    envs = sorted(set(group.envs.values()))
    missing = [env for env in envs if env not in group.scale]
    if group.scale and missing:
        raise UsageError(
            f"no scores are known that count as 0 and 1 in {missing[0]}; give them: --score {missing[0]}=LOW:HIGH"
        )
    if len(envs) > 1 and not group.scale:
        raise UsageError(
            f"{group.name} has runs in {' and '.join(envs[:3])}, whose returns cannot be averaged; add --by env, or "
            "--normalise"
        )


def read_trials(paths: Sequence[str | Path | Run], notes: list[str]) -> list[Trial]:
    """The trials meant by each path, each once: all of a run's, or the one that the path names or lies in.

    A damaged run is left out with a note, unless there is no other.
    """
    found: dict[Path, Trial] = {}
    for path in paths:
        try:
            run = path if isinstance(path, Run) else open_run(path)
            for trial in run.trials:
                trial.params  # noqa: B018  the error of a damaged one comes now
        except CheckpointError as error:
            if len(paths) == 1:
                raise
            notes.append(f"left out: {error}")
            continue
        here = (
            run.path if isinstance(path, Run) else store.staging(path) if store.is_uri(path) else Path(path)
        )
        if here.is_file():  # of the run or trial that it lies in
            here = here.parent
        for trial in run.trials:
            folder = trial.path.resolve()
            inside = here.resolve()
            if inside in folder.parents or folder == inside or folder in inside.parents:
                found.setdefault(folder, trial)
    return list(found.values())


def _no_such_metric(metric: str, frames: Mapping[Path, pandas.DataFrame]) -> str:
    columns = {c for f in frames.values() for c in f.columns if c != "trial" and _finite(f[c]).any()}
    if not columns:
        return f"nothing to show: {', '.join(map(str, frames)) or 'these runs'} have no results yet"
    if metric not in columns:
        hint = did_you_mean(metric, columns)
        if not hint:
            path_of(metric)  # a name that no run can report: say so
        return f"no run here has reported {metric!r}{hint}; reported: {', '.join(sorted(columns))}"
    return f"no run here has reported {metric!r}"


def _tell_apart(groups: Sequence[TrialGroup]) -> None:
    """Give groups of one name the differences of their recipes: `lr=0.001, gamma=0.9`."""
    for name in {g.name for g in groups}:
        alike = [g for g in groups if g.name == name]
        if len(alike) > 1:
            for word in (_word, _exact):
                for group, words in zip(alike, differences([g.params for g in alike], word), strict=True):
                    group.varied = ", ".join(f"{key}={value}" for key, value in words.items()) or "(default)"
                if len({group.varied for group in alike}) == len(alike):
                    break


# How long a recipe runs and where: not what a reader compares, unless nothing else differs.
AROUND = (
    "stop",
    "checkpoint",
    "evaluation",
    "config.env_runners.num_env",
    "config.learners",
    "config.resources",
)


def differences(
    recipes: Sequence[Mapping[str, Any]], word: Callable[[Any], str] | None = None
) -> list[dict[str, str]]:
    """Return for each recipe the values in which it differs from the others, by the shortest name that is unique.

    A key that a recipe does not have is left out; one that is null there says so. Keys of the surroundings (`AROUND`)
    are named only where recipes would look the same without them. `word` makes text of a value.
    """
    word = word or _word
    flat = [dict(flatten(recipe, nulls=True)) for recipe in recipes]

    def differ(key: str) -> bool:
        return len({json.dumps([values[key]] if key in values else [], default=str) for values in flat}) > 1

    keys = sorted(key for key in {key for values in flat for key in values} if differ(key))
    inside = [key for key in keys if not key.startswith(AROUND)]

    def told(keys: Sequence[str]) -> int:
        return len(
            {json.dumps([[values[k]] if k in values else [] for k in keys], default=str) for values in flat}
        )

    if told(inside) == told(keys):
        keys = inside
    last = [key.rpartition(".")[2] for key in keys]
    short = {key: end if last.count(end) == 1 else key for key, end in zip(keys, last, strict=True)}
    return [{short[key]: word(values[key]) for key in keys if key in values} for values in flat]


def flatten(tree: Mapping[str, Any], prefix: str = "", nulls: bool = False) -> list[tuple[str, Any]]:
    """Dotted keys and values of nested sections; empty sections say nothing, nulls do where they are asked for."""
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat += flatten(value, f"{path}.", nulls)
        elif value is not None or nulls:
            flat.append((path, value))
    return flat


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and 1 <= abs(value) < 1e15 else f"{value:.4g}"
    return "null" if value is None else str(value)


def _exact(value: Any) -> str:
    return repr(value) if isinstance(value, float) else _word(value)
