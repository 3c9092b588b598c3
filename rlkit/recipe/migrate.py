"""`rlkit migrate FILE`: an old RLlib configuration becomes a recipe, with a line for each thing that changed.

Read are the YAML of `rllib train`, params.json or a flat `config` dict, and Python scripts (as text, never run; see
`rlkit.recipe.old_script`). What the check of recipes refuses in the result is taken out, each with its reason.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlkit import registry
from rlkit.errors import UsageError
from rlkit.metrics import PATHS
from rlkit.recipe.check import DEFAULT_STOP, from_mapping
from rlkit.recipe.dump import dump
from rlkit.recipe.old_config import Old, move
from rlkit.recipe.old_script import read_script
from rlkit.recipe.problems import RecipeError
from rlkit.recipe.schema import Recipe
from rlkit.recipe.words import OLD_ALGORITHMS, OLD_METRICS

MAX_BYTES = 1 << 20
MAX_NODES = 100_000  # aliases of YAML can make a small file a huge tree
ROUNDS = 20  # of taking out what the check refuses
# Gymnasium has newer versions of these, and none of the old ones.
NEW_ENVS = {
    "CartPole-v0": "CartPole-v1", "Pendulum-v0": "Pendulum-v1", "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3", "BipedalWalker-v2": "BipedalWalker-v3",
    "FrozenLake-v0": "FrozenLake-v1", "Taxi-v2": "Taxi-v3",
    **{f"{name}-v{old}": f"{name}-v5" for name in ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d",
                                                   "InvertedPendulum") for old in (1, 2, 3)},
}  # fmt: skip
AROUND = {  # keys of an experiment of `rllib train` beside run, env, stop and config
    "num_samples", "checkpoint_freq", "checkpoint_at_end", "checkpoint_config", "max_failures", "local_dir", "restore",
    "pass_criteria", "keep_checkpoints_num", "checkpoint_score_attr", "trial_resources", "upload_dir",
}  # fmt: skip
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


def printable(text: str) -> str:
    """Return text without control characters: it stands in a comment and in the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def migrate(path: str | Path) -> list[Migrated]:
    """Return each experiment of an old configuration file, in the order of the file.

    Raises:
        UsageError: no such file, no text, or nothing in it that is a configuration of RLlib.
    """
    path = Path(path)
    return [_migrated(old) for old in _experiments(path, _text(path))]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(
                f"{path}: {path.stat().st_size:,} bytes, expected a configuration of at most 1 MB"
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not text, expected YAML, JSON or a Python script") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _experiments(path: Path, text: str) -> Iterator[Old]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-")[:100] or "recipe"
    if path.suffix == ".py":
        try:
            found = read_script(text, name)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise UsageError(f"{path}: not a Python script that can be read ({error})") from None
        if not found.algorithm and not found.config:
            raise UsageError(
                f"{path}: no configuration of RLlib in it: neither an AlgorithmConfig nor a config dict"
            )
        yield found
        return
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        try:
            data = ast.literal_eval(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UsageError(f"{path}: neither YAML, JSON nor a dict ({reason})") from None
    if not isinstance(data, Mapping) or _size(data) > MAX_NODES:
        raise UsageError(f"{path}: expected a mapping of keys of at most {MAX_NODES:,} values")
    if {"run", "algorithm", "config"} & set(data) and not isinstance(data.get("config"), str):
        yield _experiment(name, data)
    elif experiments := [
        (k, v) for k, v in data.items() if isinstance(v, Mapping) and {"run", "config"} & set(v)
    ]:
        for key, body in experiments:
            yield _experiment(re.sub(r"[^A-Za-z0-9._-]+", "_", str(key)).strip("._-")[:100] or name, body)
    elif {"env", "lr", "num_workers", "train_batch_size", "gamma", "framework"} & set(data):
        yield Old(name, "", data.get("env"), {}, {str(k): v for k, v in data.items() if k != "env"})
    else:
        raise UsageError(
            f"{path}: no configuration of RLlib in it: expected run, env, stop and config (or a flat config)"
        )


class _Loader(yaml.SafeLoader):
    """YAML as `rllib train` read it; a tag of a Python object is taken as nothing, and never made."""


def _ignored(loader: yaml.Loader, suffix: str, node: yaml.Node) -> str:
    return f"<{node.tag}>"


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _ignored)
_Loader.add_multi_constructor("!", _ignored)


def _size(value: Any) -> int:
    waiting, count = [value], 0
    while waiting and count <= MAX_NODES:
        item = waiting.pop()
        count += 1
        waiting += (
            list(item.values())
            if isinstance(item, Mapping)
            else item
            if isinstance(item, list | tuple)
            else []
        )
    return count


def _experiment(name: str, body: Mapping[str, Any]) -> Old:
    config = body.get("config")
    flat = {str(k): v for k, v in config.items()} if isinstance(config, Mapping) else {}
    env = body.get("env", flat.pop("env", None))
    flat.pop("env", None)
    stop = body.get("stop")
    around = {str(k): v for k, v in body.items() if k not in ("run", "algorithm", "env", "stop", "config")}
    algorithm = str(body.get("run") or body.get("algorithm") or "")
    return Old(name, algorithm, env, dict(stop) if isinstance(stop, Mapping) else {}, flat, around)


def _migrated(old: Old) -> Migrated:
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
        result.stops.append(f"RLlib 2.60 has no algorithm {name}; {fix}, and set its options anew")


def _env(old: Old, recipe: dict[str, Any], result: Migrated) -> None:
    env = old.env
    if not isinstance(env, str) or not env:
        found = "names no environment" if env is None else f"has the environment {str(env)[:80]!r}"
        result.stops.append(f"the file {found}; expected a name; register yours with rlkit.register_env")
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


def _stop(old: Old, recipe: dict[str, Any], result: Migrated) -> None:
    stop: dict[str, Any] = {}
    for key, value in old.stop.items():
        name = TIDY.get(str(key), OLD_METRICS.get(str(key), str(key)))
        if isinstance(value, bool) or not isinstance(value, int | float):
            result.notes.append(f"stop.{key}: {value!r} is no number; left out")
            continue
        if name != key:
            result.notes.append(f"stop.{key} → stop.{name}")
        stop[name] = value
    if not stop:
        stop = dict(DEFAULT_STOP)
        result.notes.append(f"no limit: stop.env_steps {DEFAULT_STOP['env_steps']:,} added")
    recipe["stop"] = stop


def _around(old: Old, recipe: dict[str, Any], result: Migrated) -> None:
    """What stands beside the config: samples, checkpoints, folders."""
    for key, value in old.around.items():
        if key == "num_samples" and isinstance(value, int) and value >= 1:
            recipe.setdefault("tune", {})["samples"] = value
            if value > 1:
                result.notes.append("num_samples → tune.samples, which are seeds 0, 1, … here")
        elif key == "max_failures" and isinstance(value, int) and value >= 0:
            recipe.setdefault("tune", {})["max_failures"] = value
        elif key in ("checkpoint_freq", "checkpoint_config"):
            every = value.get("checkpoint_frequency") if isinstance(value, Mapping) else value
            keep = value.get("num_to_keep") if isinstance(value, Mapping) else None
            if isinstance(every, int) and every:
                recipe.setdefault("checkpoint", {})["every"] = every
                result.notes.append(f"{key} → checkpoint.every")
            if isinstance(keep, int) and keep:
                recipe.setdefault("checkpoint", {})["keep"] = keep
        elif key == "keep_checkpoints_num" and isinstance(value, int) and value >= 1:
            recipe.setdefault("checkpoint", {})["keep"] = value
            result.notes.append("keep_checkpoints_num → checkpoint.keep")
        else:
            result.notes.append(f"{key}: {'not part of a recipe' if key in AROUND else 'unknown'}; left out")


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
