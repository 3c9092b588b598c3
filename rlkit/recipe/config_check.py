"""The section `config`: RLlib's methods and arguments against the generated table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlkit.errors import did_you_mean
from rlkit.recipe.limits import REPLAY_BUFFERS, check_limits, section
from rlkit.recipe.problems import Path, Report, instead
from rlkit.recipe.signatures import METHODS, Config
from rlkit.recipe.spaces import SearchSpace, candidates
from rlkit.recipe.together import check_together
from rlkit.recipe.tree import unreadable
from rlkit.recipe.types import expressible, members, mismatch, noun, parse_type
from rlkit.recipe.validate import type_fix
from rlkit.recipe.words import CLOSED_METHODS, EFFECTIVE, ELSEWHERE, FOREIGN, IGNORED, IGNORED_BY, RENAMED

# Keys that RLlib or Ray would turn into an import, wherever they stand in an argument.
IMPORTING = (
    "runtime_env", "ray_remote_args", "custom_model", "custom_preprocessor", "custom_action_dist", "callbacks",
    "callbacks_class", "learner_class", "env_runner_cls", "sample_collector", "filesystem", "fn", "compute",
)  # fmt: skip


# What a `replay_buffer_config` may hold: in rlkit's algorithms (rlkit.algos.offpolicy.step), and in RLlib's own (2.60).
BUFFER_KEYS = {"type": "str", "capacity": "int", "alpha": "float", "beta": "float", "columns": "list[str]"}
RLLIB_BUFFER_KEYS = {
    "type": "str",
    "capacity": "int",
    "alpha": "float",
    "beta": "float",
    "batch_size_B": "int",
    "batch_length_T": "int",
    "metrics_num_episodes_for_smoothing": "int",
}
# Arguments whose default is a value and for which null means something as well.
NULLABLE = (
    "grad_clip",
    "minibatch_size",
    "min_time_s_per_iteration",
    "train_batch_size_per_learner",
    "actor_lr",
)


def check_config(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report unknown methods and arguments, wrong types, out-of-range values, and what RLlib would ignore."""
    for method, arguments in section(data, "config").items():
        path: Path = ("config", method)
        if method not in METHODS or method in CLOSED_METHODS:
            _unknown_method(method, arguments, config, report)
        elif isinstance(arguments, Mapping) and config.known:
            for argument, value in arguments.items():
                check_argument(config, method, argument, value, (*path, argument), report)
    if config.known:
        check_together(data, config, report)


def _unknown_method(method: str, arguments: Any, config: Config, report: Report) -> None:
    path: Path = ("config", method)
    if method in CLOSED_METHODS:
        report.add(path, f"a recipe does not call {method}()", fix=CLOSED_METHODS[method], key=True)
    elif method in RENAMED:
        report.add(
            path,
            f"{method!r} is not a method of AlgorithmConfig",
            fix=f"write {_home(RENAMED[method])}",
            key=True,
        )
    elif home := config.method_with(method):
        report.add(
            path,
            f"{method!r} is an argument, not a method",
            fix=f"write config: {{{home}: {{{method}: …}}}}",
            key=True,
        )
    else:
        hint = did_you_mean(method, METHODS)
        known = [m for m in METHODS if m not in CLOSED_METHODS]
        report.add(path, f"unknown section {method!r}{hint}", fix=instead(hint, known), key=True)


def _home(dotted: str) -> str:
    """`env_runners.num_env_runners` as `config.env_runners.num_env_runners`; top-level sections as they are."""
    return (
        f"config.{dotted}"
        if dotted.split(".")[0] in METHODS and dotted.split(".")[0] != "evaluation"
        else dotted
    )


def check_argument(
    config: Config, method: str, argument: str, value: Any, path: Path, report: Report
) -> None:
    """Report what is wrong with one argument of one method."""
    rows = config.arguments(method)
    row = rows.get(argument)
    name = f"{method}.{argument}"
    if argument in ELSEWHERE.get(method, {}):
        report.add(path, f"a recipe does not set {name} here", fix=ELSEWHERE[method][argument], key=True)
    elif row is None:
        _unknown_argument(config, method, argument, path, report)
    elif row.get("deprecated"):
        fix = f"write {_home(RENAMED[argument])}" if argument in RENAMED else "remove it"
        report.add(path, f"{name} was removed from RLlib", fix=fix, key=True)
    elif reason := _ignored(config, method, argument):
        report.add(path, f"RLlib accepts {name} and ignores it on the new API stack", fix=reason, key=True)
    elif argument.startswith("_"):
        report.add(path, f"{name} is private to RLlib", fix="remove it", key=True)
    elif not expressible(parse_type(row["type"])):
        report.add(
            path,
            f"{name} takes a class or function, which a recipe cannot name",
            got=value,
            fix="register what you need (rlkit list callbacks, models, explorations) and name it in its section",
            key=True,
        )
    elif not unreadable(value):
        text = row["type"]
        if argument not in NULLABLE and config.default(method, argument) is not None:
            # RLlib annotates every argument Optional; null breaks most of them.
            text = text.replace(" | None", "")
        check_value(argument, value, text, path, report)
        if argument == "replay_buffer_config":
            _check_buffer(config, value, path, report)


def check_value(
    argument: str, value: Any, text: str, path: Path, report: Report, loose: bool = False
) -> None:
    """Report a value of the wrong type or out of range. `loose` lets a fraction stand for a whole number."""
    kind = parse_type(re.sub(r"\bint\b", "float", text) if loose else text)
    found = mismatch(value, kind, path)
    if found:
        where, expected, got = found
        main = next((m for m in members(expected) if m.name not in ("None", "class", "callable")), expected)
        fix = type_fix(noun(main), got, argument)
        report.add(where, f"{noun(expected)} is expected", got=got, fix=fix)
        return
    check_limits(argument, value, path, report)
    _check_inside(value, path, report)


def _unknown_argument(config: Config, method: str, argument: str, path: Path, report: Report) -> None:
    known = [
        name
        for name, row in config.arguments(method).items()
        if not row.get("deprecated") and not name.startswith("_") and not _ignored(config, method, name)
    ]
    if argument in RENAMED and RENAMED[argument] != f"{method}.{argument}":
        report.add(
            path, f"{method} has no argument {argument!r}", fix=f"write {_home(RENAMED[argument])}", key=True
        )
        return
    home = config.method_with(argument)
    if home:
        report.add(
            path,
            f"{argument!r} is an argument of {home}, not of {method}",
            fix=f"write config.{home}.{argument}",
            key=True,
        )
        return
    foreign = {word: target for word, target in FOREIGN.items() if target in known}
    hint = did_you_mean(argument, [*known, *foreign])
    meant = hint.split("'")[1] if hint else ""
    if meant in foreign:
        hint = f"; did you mean {foreign[meant]!r}?"
    owner = f"{config.algorithm}'s {method}" if method == "training" else method
    report.add(path, f"{owner} has no argument {argument!r}{hint}", fix=instead(hint, known), key=True)


def _ignored(config: Config, method: str, argument: str) -> str | None:
    if any(argument in EFFECTIVE.get(name, ()) for name in config.line):
        return None
    for name in config.line:
        if method == "training" and argument in IGNORED_BY.get(name, {}):
            return IGNORED_BY[name][argument]
    return IGNORED.get(method, {}).get(argument)


def _check_inside(value: Any, path: Path, report: Report) -> None:
    """Report keys of a mapping that would make RLlib or Ray import or install something."""
    if isinstance(value, SearchSpace):
        for item in value.args:
            _check_inside(item, path, report)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            here = (*path, key)
            if key in IMPORTING or (key in ("type", "class") and isinstance(item, str) and "." in item):
                report.add(
                    here,
                    "a recipe cannot name code for RLlib to import or run",
                    got=item,
                    fix="remove it",
                    key=True,
                )
            else:
                _check_inside(item, here, report)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_inside(item, (*path, index), report)


def _check_buffer(config: Config, value: Any, path: Path, report: Report) -> None:
    known = BUFFER_KEYS if "rlkit.OffPolicyConfig" in config.line else RLLIB_BUFFER_KEYS
    for buffer in candidates(value):
        for key, item in buffer.items() if isinstance(buffer, Mapping) else ():
            here = (*path, key)
            if key in IMPORTING or report.has(here) or unreadable(item):
                continue
            if key not in known:
                hint = did_you_mean(key, known)
                report.add(
                    here, f"a replay buffer has no key {key!r}{hint}", fix=instead(hint, known), key=True
                )
            elif key == "type":
                _check_buffer_type(item, here, report)
            else:
                check_value(key, item, known[key], here, report)


def _check_buffer_type(value: Any, path: Path, report: Report) -> None:
    for kind in candidates(value):
        if kind not in REPLAY_BUFFERS:
            hint = did_you_mean(kind, REPLAY_BUFFERS)
            report.add(path, f"unknown replay buffer{hint}", got=kind, fix=instead(hint, REPLAY_BUFFERS))
