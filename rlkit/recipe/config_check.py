"""The section `config`: RLlib's methods and arguments against the generated table and the algorithm's own rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.errors import did_you_mean
from rlkit.recipe.options import REGISTER, check_values, is_code
from rlkit.recipe.problems import Path, Report, instead
from rlkit.recipe.signatures import METHODS, Config, Rows
from rlkit.recipe.spaces import variants
from rlkit.recipe.without_effect import is_unread
from rlkit.recipe.words import CLOSED_METHODS, FOREIGN, RENAMED

# Keys that RLlib or Ray would turn into an import, wherever they stand in an argument.
IMPORTING = (
    "runtime_env", "ray_remote_args", "custom_model", "custom_preprocessor", "custom_action_dist", "callbacks",
    "callbacks_class", "learner_class", "env_runner_cls", "sample_collector", "filesystem", "fn", "compute",
)  # fmt: skip
# With `mode: overwrite` in it Ray Data deletes all that lies in the output folder.
WRITING = "output_write_method_kwargs"
PER_MODULE = "algorithm_config_overrides_per_module"
# Arguments of `training` that say how much is sampled, kept and drawn, or how a learner is made: never of one module.
# `Rules.of_all` has those of single algorithms.
OF_ALL_MODULES = (
    "train_batch_size", "train_batch_size_per_learner", "num_epochs", "minibatch_size", "shuffle_batch_per_epoch",
    "replay_buffer_config", "training_intensity", "num_steps_sampled_before_learning_starts", "learner_config_dict",
    "store_buffer_in_checkpoints", "add_default_connectors_to_learner_pipeline", "broadcast_interval",
    "circular_buffer_num_batches", "circular_buffer_iterations_per_batch",
)  # fmt: skip


def check_config(methods: Mapping[str, Any], names: Any, config: Config, report: Report) -> None:
    """Report unknown methods and arguments, wrong types, out-of-range values, and what RLlib would ignore.

    `names` are the keys of the section, those with a wrong value included.
    """
    for method in names:
        if method not in METHODS or method in CLOSED_METHODS:
            _unknown_method(method, config, report)
        elif config.known:
            check_arguments(config, method, methods.get(method, {}), report)


def _unknown_method(method: str, config: Config, report: Report) -> None:
    known = [m for m in METHODS if m not in CLOSED_METHODS]
    if method in CLOSED_METHODS:
        message, fix = f"a recipe does not call {method}()", CLOSED_METHODS[method]
    elif method in RENAMED:
        message, fix = f"{method!r} is not a method of AlgorithmConfig", f"write {_home(RENAMED[method])}"
    elif home := config.method_with(method):
        message = f"{method!r} is an argument, not a method"
        fix = f"write config: {{{home}: {{{method}: …}}}}"
    else:
        hint = did_you_mean(method, METHODS)
        message, fix = f"unknown section {method!r}{hint}", instead(hint, known)
    report.add(("config", method), message, fix, key=True)


def _home(dotted: str) -> str:
    """`env_runners.num_env_runners` as `config.env_runners.num_env_runners`; top-level sections as they are."""
    head = dotted.split(".")[0]
    return f"config.{dotted}" if head in METHODS and head != "evaluation" else dotted


def check_arguments(config: Config, method: str, arguments: Mapping[str, Any], report: Report) -> None:
    """Report what is wrong with arguments of one method."""
    rows = config.arguments(method)
    usable: dict[str, Any] = {}
    for argument, value in arguments.items():
        path: Path = ("config", method, argument)
        if reasons := refusal(config, method, argument, rows):
            report.add(path, *reasons, key=True)
        elif value != rows[argument].get("default") and is_unread(config.algorithm, method, argument):
            message = f"nothing reads {method}.{argument} when a recipe trains {config.algorithm}"
            report.add(path, message, "remove it (docs/without-effect.md)", key=True)
        elif is_code(rows[argument]):
            message = f"{method}.{argument} takes a class or function, which a recipe cannot name"
            report.add(path, message, REGISTER, got=value, key=True)
        elif not _imports(value, path, report):
            usable[argument] = value
            if argument == PER_MODULE and isinstance(value, Mapping):
                _check_per_module(config, value, path, report)
    check_values(usable, rows, ("config", method), report, owner=method, noun="argument", rules=config.rules)


def _check_per_module(config: Config, overrides: Mapping[str, Any], path: Path, report: Report) -> None:
    """Report overrides of single modules that are no argument of `training`, or one of all modules together."""
    rows = config.arguments("training")
    of_all = {*OF_ALL_MODULES, *(name for rules in config.rules for name in rules.of_all)}
    for module, values in overrides.items():
        given = values if isinstance(values, Mapping) else {}
        usable: dict[str, Any] = {}
        for argument, value in given.items():
            here: Path = (*path, module, argument)
            if argument in of_all and argument in rows:
                message = f"{argument} holds for all modules together; an override of one has no effect"
                report.add(here, message, f"write config.training.{argument}", key=True)
            elif reasons := refusal(config, "training", argument, rows):
                report.add(here, *reasons, key=True)
            else:
                usable[argument] = value
        check_values(usable, rows, (*path, module), report, owner=module, noun="argument", rules=config.rules)


def refusal(config: Config, method: str, argument: str, rows: Rows) -> tuple[str, str] | None:
    """Return why an argument cannot be given at all, and the fix."""
    name = f"{method}.{argument}"
    row = rows.get(argument)
    if row is None:
        return _unknown_argument(config, method, argument, rows)
    if "elsewhere" in row:
        return f"a recipe does not set {name} here", row["elsewhere"]
    if "ignored" in row:
        return f"RLlib accepts {name} and ignores it on the new API stack", row["ignored"]
    if row.get("deprecated"):
        fix = f"write {_home(RENAMED[argument])}" if argument in RENAMED else "remove it"
        return f"{name} was removed from RLlib", fix
    if argument.startswith("_"):
        return f"{name} is private to RLlib", "remove it"
    return None


def _unknown_argument(config: Config, method: str, argument: str, rows: Rows) -> tuple[str, str]:
    if RENAMED.get(argument, f"{method}.{argument}") != f"{method}.{argument}":
        return f"{method} has no argument {argument!r}", f"write {_home(RENAMED[argument])}"
    if home := config.method_with(argument):
        return f"{argument!r} is an argument of {home}, not of {method}", f"write config.{home}.{argument}"
    known = [
        name for name, row in rows.items()
        if not row.get("deprecated") and not name.startswith("_") and "ignored" not in row
    ]  # fmt: skip
    foreign = {word: target for word, target in FOREIGN.items() if target in known}
    hint = did_you_mean(argument, [*known, *foreign])
    meant = hint.split("'")[1] if hint else ""
    if meant in foreign:
        hint = f"; did you mean {foreign[meant]!r}?"
    owner = f"{config.algorithm}'s {method}" if method == "training" else method
    return f"{owner} has no argument {argument!r}{hint}", instead(hint, known)


def _imports(value: Any, path: Path, report: Report) -> bool:
    """Report keys of a mapping that would make RLlib or Ray import, install or delete; True if there is one."""
    found = False
    for variant in variants(value):
        waiting: list[tuple[Path, Any]] = [(path, variant)]
        for here, item in waiting:
            if isinstance(item, list):
                waiting.extend(((*here, index), part) for index, part in enumerate(item))
            for key, part in item.items() if isinstance(item, Mapping) else ():
                if key in IMPORTING or (key in ("type", "class") and isinstance(part, str) and "." in part):
                    message = "a recipe cannot name code for RLlib to import or run"
                    report.add((*here, key), message, "remove it", got=part, key=True)
                    found = True
                elif key == "mode" and here[-1] == WRITING:
                    message = "a recipe cannot choose what happens to files of an earlier training"
                    report.add((*here, key), message, "remove it: new files are added", got=part, key=True)
                    found = True
                waiting.append(((*here, key), part))
    return found
