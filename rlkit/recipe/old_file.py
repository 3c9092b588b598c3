"""An old configuration file -> its experiments: the YAML of `rllib train`, params.json, a config dict, or a script."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlkit.errors import UsageError
from rlkit.recipe.old_config import Old
from rlkit.recipe.old_script import read_script
from rlkit.recipe.scalars import read_scalar
from rlkit.recipe.schema import Recipe
from rlkit.recipe.signatures import METHODS

MAX_BYTES = 1 << 20
MAX_NODES = 100_000  # aliases of YAML can make a small file a huge tree
EXPECTED = "expected a mapping with run, env, stop and config, a flat config, or a Python script (.py)"
AROUND = {  # keys of an experiment beside run, env, stop and config, in `rllib train` and in Tune
    "num_samples", "checkpoint_freq", "checkpoint_at_end", "checkpoint_config", "max_failures", "local_dir", "restore",
    "pass_criteria", "keep_checkpoints_num", "checkpoint_score_attr", "trial_resources", "upload_dir",
    "metric", "mode", "scheduler", "search_alg", "name", "verbose", "storage_path", "callbacks", "progress_reporter",
    "max_concurrent_trials", "resources_per_trial", "log_to_file", "fail_fast", "resume", "reuse_actors", "loggers",
    "time_budget_s", "sync_config", "raise_on_failed_trial", "trial_name_creator", "trial_dirname_creator",
}  # fmt: skip
BESIDE = AROUND - {"callbacks"}  # in a flat config without the key `config`, callbacks are RLlib's
FLAT = {"env", "lr", "num_workers", "train_batch_size", "gamma", "framework"}


class Tag(str):
    """A value with a YAML tag that is never made: the tag."""


def read_old(path: Path) -> list[Old]:
    """Return the experiments of a file in their order, each with a name of its own.

    Raises:
        UsageError: no such file, no text, a recipe already, or nothing in it that is a configuration of RLlib.
    """
    text = _text(path)
    found = _script(path, text) if path.suffix == ".py" else list(_experiments(path, _data(path, text), text))
    taken: set[str] = set()
    for old in found:
        name, number = old.name, 1
        while old.name.lower() in taken:
            number += 1
            old.name = f"{name[:90]}_{number}"
        taken.add(old.name.lower())
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(
                f"{path}: {path.stat().st_size:,} bytes, expected a configuration of at most 1 MB"
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not text, expected YAML, JSON or a Python script") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _name(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", word).strip("._-")[:100]


def _script(path: Path, text: str) -> list[Old]:
    try:
        found = read_script(text, _name(path.stem) or "recipe")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path}: not a Python script that can be read ({error})") from None
    if not found:
        raise UsageError(
            f"{path}: no configuration of RLlib in it: neither an AlgorithmConfig nor a config dict"
        )
    return found


class _Loader(yaml.SafeLoader):
    """YAML as `rllib train` read it; a tag of a Python object is kept as its name, and the object never made."""

    def __init__(self, text: str):
        super().__init__(text)
        self.notes: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    self.notes.append(
                        f"line {key.start_mark.line + 1}: {key.value} stands there twice; the last counts"
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _ignored(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    return Tag(node.tag.replace("tag:yaml.org,2002:", "!!"))


def _tuple(loader: _Loader, node: yaml.Node) -> Any:
    return (
        loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else Tag(node.tag)
    )


def _power(loader: _Loader, node: yaml.ScalarNode) -> Any:
    value = read_scalar(node.value)  # 4e3 is a whole number
    return value if isinstance(value, int | float) else node.value


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _ignored)
_Loader.add_multi_constructor("!", _ignored)
_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
_Loader.add_constructor("tag:rlkit:power", _power)
# YAML 1.1 takes 1e-4 for text, and everybody who writes it means the number
_POWER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_Loader.add_implicit_resolver("tag:rlkit:power", re.compile(f"(?:{_POWER.pattern})$"), list("-+.0123456789"))


def _data(path: Path, text: str) -> tuple[Any, list[str]]:
    """The content of a file, and notes on keys that stand in it twice."""
    notes: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            twice = sorted({key for key, _ in items if [k for k, _ in items].count(key) > 1})
            notes.append(f"{', '.join(twice)} stands there twice; the last counts")
        return found

    reason = ""
    if path.suffix == ".json" or text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=pairs), notes
        except (ValueError, RecursionError) as error:
            reason = f"JSON: {error}"
        notes.clear()
        try:
            return ast.literal_eval(text.strip()), notes
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            pass  # then it is YAML with braces
    try:
        loader = _Loader(text)
        return loader.get_single_data(), loader.notes
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = reason if path.suffix == ".json" else " ".join(str(error).split())[:200]
    try:
        return ast.literal_eval(text), notes
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise UsageError(f"{path}: neither YAML, JSON nor a dict ({reason})") from None


def _experiments(path: Path, found: tuple[Any, list[str]], text: str) -> Iterator[Old]:
    data, notes = found
    if not isinstance(data, Mapping):
        raise UsageError(f"{path}: {_kind(data, text)}; {EXPECTED}")
    if _size(data) > MAX_NODES:
        raise UsageError(f"{path}: more than {MAX_NODES:,} values, expected a configuration of RLlib")
    if _is_recipe(data):
        raise UsageError(f"{path}: this is a recipe already; look at it with `rlkit check {path}`")
    name = _name(path.stem) or "recipe"
    if {"run", "algorithm", "config"} & set(data) and (
        not isinstance(data.get("config"), str) or isinstance(data["config"], Tag)
    ):
        yield _experiment(path, name, data, notes)
    elif experiments := [
        (k, v) for k, v in data.items() if isinstance(v, Mapping) and {"run", "algorithm", "config"} & set(v)
    ]:
        for key, body in experiments:
            yield _experiment(path, _name(str(key)) or name, body, notes)
    elif FLAT & set(data):
        yield _experiment(path, name, data, notes)
    else:
        raise UsageError(
            f"{path}: no configuration of RLlib in it: expected run, env, stop and config (or a flat config)"
        )


def _kind(data: Any, text: str) -> str:
    """What stands in a file in place of a mapping, in words."""
    if data is None:
        return "the file holds only comments" if text.strip() else "the file is empty"
    if isinstance(data, list | tuple):
        return f"got a list of {len(data)}"
    return f"got {' '.join(str(data).split())[:60]!r}, which is no mapping"


def _is_recipe(data: Mapping[Any, Any]) -> bool:
    """True for a file that `rlkit train` takes: its config has methods, or it has none and keys of a recipe alone."""
    config = data.get("config")
    if "algorithm" not in data or "run" in data or not isinstance(config, Mapping | None):
        return False
    if config:
        return all(key in METHODS for key in config)
    return set(data) <= set(Recipe.model_fields)


def _size(value: Any) -> int:
    waiting, count = [value], 0
    while waiting and count <= MAX_NODES:
        item = waiting.pop()
        count += 1
        if isinstance(item, Mapping | list | tuple):
            waiting += item.values() if isinstance(item, Mapping) else item
    return count


def _experiment(path: Path, name: str, body: Mapping[Any, Any], notes: list[str]) -> Old:
    notes = list(notes)
    config, stop = body.get("config"), body.get("stop")
    if isinstance(config, Tag):
        raise UsageError(
            f"{path}: the config of {name} has the tag {config}, which is never made; {EXPECTED}"
        )
    if not isinstance(config, Mapping | None):
        raise UsageError(f"{path}: the config of {name} is {str(config)[:60]!r}; expected a mapping of keys")
    own = {"run", "algorithm", "env", "stop", "config"}
    rest = {str(key): value for key, value in body.items() if key not in own}
    flat = {str(key): value for key, value in (config or {}).items()}
    if "config" not in body:  # params.json, perhaps with `run`
        flat = {key: value for key, value in rest.items() if key not in BESIDE}
        rest = {key: value for key, value in rest.items() if key in BESIDE}
    inner = flat.pop("env", None)
    if stop is not None and not isinstance(stop, Mapping):
        notes.append(f"stop: {str(stop)[:60]!r} is no mapping of metrics; left out")
    return Old(
        name, str(body.get("run") or body.get("algorithm") or ""), body.get("env", inner),
        dict(stop) if isinstance(stop, Mapping) else {}, _untagged(flat, "", notes), _untagged(rest, "", notes), notes,
    )  # fmt: skip


def _untagged(values: Mapping[Any, Any], above: str, notes: list[str]) -> dict[str, Any]:
    """The values that have no tag; the others become notes."""
    found = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found[str(key)] = _untagged(value, f"{above}{key}.", notes)
        elif tag := _tag(value):
            notes.append(f"{above}{key} has the tag {tag}, which is never made; left out")
        else:
            found[str(key)] = value
    return found


def _tag(value: Any) -> Tag | None:
    if isinstance(value, Mapping | list | tuple):
        items = value.values() if isinstance(value, Mapping) else value
        return next((tag for item in items if (tag := _tag(item))), None)
    return value if isinstance(value, Tag) else None
