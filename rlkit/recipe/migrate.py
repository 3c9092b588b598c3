"""`rlkit migrate FILE`: an old RLlib configuration becomes a recipe, with a line for each thing that changed.

`rlkit.recipe.old_file` reads the file, `old_script` a Python script, as text that is never run. What the check of
recipes refuses in the result is taken out, each with its reason.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlkit import registry
from rlkit.errors import printable
from rlkit.metrics import PATHS
from rlkit.recipe.check import DEFAULT_STOP, from_mapping
from rlkit.recipe.dump import dump
from rlkit.recipe.old_config import Old, move
from rlkit.recipe.old_file import AROUND, read_old
from rlkit.recipe.problems import RecipeError
from rlkit.recipe.schema import Recipe
from rlkit.recipe.words import OLD_ALGORITHMS, OLD_METRICS

ROUNDS = 20  # of taking out what the check refuses
# Gymnasium has newer versions of these, and none of the old ones.
NEW_ENVS = {
    "CartPole-v0": "CartPole-v1", "Pendulum-v0": "Pendulum-v1", "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3", "BipedalWalker-v2": "BipedalWalker-v3",
    "FrozenLake-v0": "FrozenLake-v1", "Taxi-v2": "Taxi-v3",
    **{f"{name}-v{old}": f"{name}-v5" for name in ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d",
                                                   "InvertedPendulum") for old in (1, 2, 3)},
}  # fmt: skip
TAKEN = {  # keys beside the config that a recipe has, where their values are what it expects
    "num_samples", "max_failures", "checkpoint_freq", "checkpoint_config", "keep_checkpoints_num", "metric", "mode",
    "max_concurrent_trials", "time_budget_s", "checkpoint_score_attr",
}  # fmt: skip
COMMAND = {
    "local_dir": "--out",
    "storage_path": "--out",
    "resume": "--resume RUN",
    "verbose": "--verbose or --quiet",
}
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # as in the schema
TIDY = {path: name for name, path in PATHS.items()}


@dataclass
class Migrated:
    """One experiment of an old file.

    Attributes:
        recipe: None where the algorithm or the environment cannot be named.
        notes: what changed, moved, or has no successor.
        stops: why the recipe does not pass its check yet.
    """

    name: str
    recipe: Recipe | None = None
    notes: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the recipe as YAML, the notes above it as comments."""
        words = [*(f"does not pass its check yet: {stop}" for stop in self.stops), *self.notes]
        head = "".join(f"# {printable(line)}\n" for note in words for line in note.splitlines())
        return head + ("" if self.recipe is None else dump(self.recipe))


def migrate(path: str | Path) -> list[Migrated]:
    """Return each experiment of an old configuration file, in the order of the file.

    Raises:
        UsageError: no such file, no text, a recipe already, or nothing in it that is a configuration of RLlib.
    """
    return [_migrated(old) for old in read_old(Path(path))]


def _migrated(old: Old) -> Migrated:
    known = {name.lower(): name for name in registry.TABLES["algorithms"]}
    old.algorithm = known.get(old.algorithm.lower(), old.algorithm)  # ImpalaConfig is IMPALA's
    result = Migrated(old.name, notes=list(old.notes))
    recipe: dict[str, Any] = {"name": old.name, "algorithm": old.algorithm}
    _algorithm(old, recipe, result)
    _env(old, recipe, result)
    if old.algorithm in registry.TABLES["algorithms"]:  # otherwise nobody knows what its options became
        move(old, recipe, result.notes)
    _stop(old, recipe, result)
    _around(old, recipe, result)
    if not result.stops:
        _settle(recipe, result)
    return result


def _algorithm(old: Old, recipe: dict[str, Any], result: Migrated) -> None:
    known = registry.TABLES["algorithms"]
    name = old.algorithm
    if not name:
        result.stops.append("the file names no algorithm; add `run: PPO` to it")
    elif name in OLD_ALGORITHMS or name not in known:
        fix = OLD_ALGORITHMS.get(name, f"one of {', '.join(known)}")
        result.stops.append(f"rlkit has no algorithm {name}; {fix}, and set its options anew")


def _env(old: Old, recipe: dict[str, Any], result: Migrated) -> None:
    env = old.env
    if not isinstance(env, str) or not env:
        result.stops.append(_no_name(env, result.notes))
        return
    if env in NEW_ENVS:
        result.notes.append(
            f"env {env} → {NEW_ENVS[env]}: Gymnasium has no {env}; limits and returns may differ"
        )
        env = NEW_ENVS[env]
    elif env.startswith(("ray.", "ALE/")) or "NoFrameskip" in env:
        what = (
            "a class that comes with no release of Ray 2.60"
            if env.startswith("ray.")
            else "an Atari environment"
        )
        result.notes.append(f"env {env} is {what}: register it under a name and import it with --import")
    recipe["env"] = env


def _no_name(env: Any, notes: list[str]) -> str:
    """What stops a file whose environment is no name: a grid of names, a class of the script, or none."""
    if isinstance(env, Mapping) and isinstance(names := env.get("grid_search"), list):
        listed = f"{', '.join(map(str, names[:6]))}{', …' if len(names) > 6 else ''}"
        return f"the file has a grid of {len(names)} environments ({listed}); expected a name, in a recipe for each"
    found = "names no environment" if env is None else f"has the environment {str(env)[:80]!r}"
    code = next((m for note in notes if (m := re.match(r"line \d+: env is (.+), known only", note))), None)
    if env is None and code:
        found += f" (it is {code[1]}, which only a run knows)"
    return f"the file {found}; expected a name; register yours with rlkit.register_env"


def _stop(old: Old, recipe: dict[str, Any], result: Migrated) -> None:
    stop: dict[str, Any] = {}
    for key, value in old.stop.items():
        name = _metric(str(key))
        if isinstance(value, bool) or not isinstance(value, int | float):
            result.notes.append(f"stop.{key}: {value!r} is no number; left out")
            continue
        if name != key:
            result.notes.append(f"stop.{key} → stop.{name}")
        stop[name] = value
    budget = old.around.get("time_budget_s")
    if isinstance(budget, int | float) and budget > 0:
        stop.setdefault("time_s", budget)
        result.notes.append("time_budget_s → stop.time_s, of each trial")
    if not stop:
        stop = dict(DEFAULT_STOP)
        result.notes.append(f"no limit found: stop.env_steps {DEFAULT_STOP['env_steps']:,} added")
    recipe["stop"] = stop


def _around(old: Old, recipe: dict[str, Any], result: Migrated) -> None:
    """What stands beside the config: samples, checkpoints, folders."""
    for key, value in old.around.items():
        if key == "time_budget_s" and "time_s" in recipe["stop"]:
            continue
        if key == "num_samples" and isinstance(value, int) and value >= 1:
            recipe.setdefault("tune", {})["samples"] = value
            if value > 1:
                seed = recipe.get("seed", 0)
                seeds = f", which are seeds {seed}, {seed + 1}, … here" if isinstance(seed, int) else ""
                result.notes.append(f"num_samples → tune.samples{seeds}")
        elif key == "checkpoint_score_attr" and isinstance(value, str) and not value.startswith("min-"):
            recipe.setdefault("checkpoint", {})["best"] = _metric(value)
            result.notes.append(f"checkpoint_score_attr {value} → checkpoint.best: {_metric(value)}")
        elif key == "max_failures" and isinstance(value, int) and value >= 0:
            recipe.setdefault("tune", {})["max_failures"] = value
        elif key == "checkpoint_config" and isinstance(value, Mapping):
            _checkpoints(value, recipe, result)
        elif key == "checkpoint_freq" and isinstance(value, int) and value >= 0:
            recipe.setdefault("checkpoint", {})["every"] = value
            result.notes.append("checkpoint_freq → checkpoint.every")
        elif key == "metric" and isinstance(value, str):
            recipe.setdefault("tune", {})["metric"] = _metric(value)
            result.notes.append(f"metric {value} → tune.metric: {_metric(value)}")
        elif key == "mode" and value in ("max", "min"):
            recipe.setdefault("tune", {})["mode"] = value
            result.notes.append("mode → tune.mode")
        elif key == "max_concurrent_trials" and isinstance(value, int) and value >= 1:
            recipe.setdefault("tune", {})["concurrent"] = value
            result.notes.append("max_concurrent_trials → tune.concurrent")
        elif key == "keep_checkpoints_num" and isinstance(value, int) and value >= 1:
            recipe.setdefault("checkpoint", {})["keep"] = value
            result.notes.append("keep_checkpoints_num → checkpoint.keep")
        elif key == "name" and isinstance(value, str) and RUN_NAME.fullmatch(value):
            recipe["name"] = value
            result.notes.append("name → name, of the run's folder")
        elif key in COMMAND and value:
            result.notes.append(f"{key} {value!r} left out: give {COMMAND[key]} on the command line")
        elif value is not None:
            known = key in AROUND
            got = f"{repr(value)[:60]} cannot be taken over" if key in TAKEN else "not part of a recipe"
            result.notes.append(f"{key}: {got if known else 'unknown'}; left out")


def _checkpoints(value: Mapping[str, Any], recipe: dict[str, Any], result: Migrated) -> None:
    """The arguments of Ray's CheckpointConfig."""
    section = recipe.setdefault("checkpoint", {})
    for key, item in value.items():
        whole = isinstance(item, int) and not isinstance(item, bool)
        if key == "checkpoint_frequency" and whole and item >= 0:
            section["every"] = item
        elif key == "num_to_keep" and whole and item >= 1:
            section["keep"] = item
        elif key == "checkpoint_score_attribute" and isinstance(item, str):
            section["best"] = _metric(item)
        elif (key, item) == ("checkpoint_score_order", "max") or item is None:
            continue  # as it is here
        else:
            reason = (
                "the last one is always written"
                if key == "checkpoint_at_end"
                else f"{item!r} has no successor"
            )
            result.notes.append(f"checkpoint_config.{key}: {reason}; left out")
            continue
        new = {"checkpoint_frequency": "every", "num_to_keep": "keep"}.get(key, "best")
        result.notes.append(f"checkpoint_config.{key} → checkpoint.{new}")
    if not section:
        del recipe["checkpoint"]


def _metric(name: str) -> str:
    return TIDY.get(name, OLD_METRICS.get(name, name))


def _settle(recipe: dict[str, Any], result: Migrated) -> None:
    """Take out what the check refuses, one round after the other, until the recipe passes or nothing can go."""
    for _ in range(ROUNDS):
        try:
            result.recipe = from_mapping(recipe)
            return
        except RecipeError as error:
            problems = error.problems
        left = [problem for problem in problems if not _take_out(recipe, problem.path)]
        reasons = [_reason(problem) for problem in problems if problem not in left]
        result.notes += [f"left out: {reason}" for reason in reasons]
        if left and not reasons:
            result.stops += [_reason(problem) for problem in left]
            with contextlib.suppress(RecipeError):  # its shape is right; a name or a package is missing
                result.recipe = Recipe.from_dict(recipe)
            return
    result.stops.append("the recipe keeps failing its check")


def _reason(problem: Any) -> str:
    got = f", got {problem.got}" if problem.got else ""
    return f"{problem.path}: {problem.message}{got}" + (f"; {problem.fix}" if problem.fix else "")


def _take_out(recipe: dict[str, Any], dotted: str) -> bool:
    """Remove the value at a path below a section; False for what a recipe cannot be without."""
    parts = [part for part in re.split(r"\.|\[(\d+)\]", dotted) if part]
    if not parts or (parts[0] in ("algorithm", "env", "name", "stop") and len(parts) < 2):
        return False
    here: Any = recipe
    for number in range(len(parts) - 1, -1, -1):  # keys may hold dots themselves
        head, tail = parts[:number], ".".join(parts[number:])
        here = recipe
        for part in head:
            here = here.get(part) if isinstance(here, Mapping) else None
        if isinstance(here, dict) and tail in here and not (parts[0] == "stop" and len(here) == 1):
            del here[tail]
            if not here and head:
                _take_out(recipe, ".".join(head))
            return True
        if isinstance(here, list):
            return len(head) > 0 and _take_out(recipe, ".".join(head))
    return False
