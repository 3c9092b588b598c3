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
from rlkit.recipe.tree import unreadable
from rlkit.recipe.types import expressible, members, mismatch, noun, parse_type
from rlkit.recipe.validate import type_fix
from rlkit.recipe.words import CLOSED_METHODS, ELSEWHERE, FOREIGN, IGNORED, IGNORED_BY, RENAMED

# Keys that RLlib or Ray would turn into an import, wherever they stand in an argument.
IMPORTING = (
    "runtime_env", "ray_remote_args", "custom_model", "custom_preprocessor", "custom_action_dist", "callbacks",
    "callbacks_class", "learner_class", "env_runner_cls", "sample_collector", "filesystem", "fn", "compute",
)  # fmt: skip


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
        _check_together(data, config, report)


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
            text = text.replace(
                " | None", ""
            )  # RLlib annotates every argument Optional; null breaks most of them
        check_value(argument, value, text, path, report)


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
    if argument == "replay_buffer_config":
        _check_buffer(value, path, report)


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


def _check_buffer(value: Any, path: Path, report: Report) -> None:
    for buffer in candidates(value):
        if not isinstance(buffer, Mapping):
            continue
        for kind in candidates(buffer.get("type")):
            if (
                kind is not None
                and kind not in REPLAY_BUFFERS
                and not (isinstance(kind, str) and "." in kind)
            ):
                hint = did_you_mean(kind, REPLAY_BUFFERS)
                report.add(
                    (*path, "type"),
                    f"unknown replay buffer{hint}",
                    got=kind,
                    fix=f"use one of {', '.join(REPLAY_BUFFERS)}",
                )
        for key, item in buffer.items():
            if key != "type" and not unreadable(item):
                check_limits(key, item, (*path, key), report)
        for key in ("capacity", "batch_size_B", "batch_length_T"):
            for item in candidates(buffer.get(key)):
                if item is not None and (isinstance(item, bool) or not isinstance(item, int)):
                    report.add(
                        (*path, key),
                        "a whole number is expected",
                        got=item,
                        fix=type_fix("a whole number", item, key),
                    )


def _numbers(value: Any) -> list[float]:
    return [x for x in candidates(value) if isinstance(x, int | float) and not isinstance(x, bool)]


class _Values:
    """Values of a recipe's config, with RLlib's defaults where it says nothing."""

    def __init__(self, data: Mapping[str, Any], config: Config):
        self.data, self.config = data, config

    def given(self, method: str, argument: str) -> bool:
        return argument in section(self.data, "config", method)

    def get(self, method: str, argument: str) -> Any:
        values = section(self.data, "config", method)
        return values[argument] if argument in values else self.config.default(method, argument)

    def numbers(self, method: str, argument: str) -> list[float]:
        return _numbers(self.get(method, argument))

    def one(self, method: str, argument: str, otherwise: float) -> float:
        found = self.numbers(method, argument)
        return min(found) if found else otherwise

    def batch(self) -> tuple[str, list[float]]:
        """Return the argument that sets the batch of one learner, and its candidates."""
        per_learner = self.numbers("training", "train_batch_size_per_learner")
        if per_learner:
            return "train_batch_size_per_learner", per_learner
        learners = max(1, int(self.one("learners", "num_learners", 0)))
        return "train_batch_size", [size / learners for size in self.numbers("training", "train_batch_size")]


def iteration_steps(data: Mapping[str, Any], config: Config) -> float:
    """Return the least env steps that one iteration takes, as far as the config says; 0 where it does not."""
    values = _Values(data, config)
    steps = values.one("reporting", "min_sample_timesteps_per_iteration", 0)
    if "PPOConfig" in config.line and "APPOConfig" not in config.line:
        _, batch = values.batch()
        steps = max(steps, min(batch, default=0) * max(1, values.one("learners", "num_learners", 0)))
    return steps


def _check_together(data: Mapping[str, Any], config: Config, report: Report) -> None:
    values = _Values(data, config)
    name, batch = values.batch()
    minibatch = values.numbers("training", "minibatch_size")
    if batch and minibatch and max(minibatch) > min(batch):
        argument = "minibatch_size" if values.given("training", "minibatch_size") else name
        report.add(
            ("config", "training", argument),
            f"minibatch_size {max(minibatch):g} is larger than the batch of a learner, {name} {min(batch):g}",
            fix=f"write a minibatch_size of at most {min(batch):g}, or a larger {name}",
        )
    if "SACConfig" in config.line and section(data, "config", "training").get("lr") is not None:
        report.add(
            ("config", "training", "lr"),
            f"{config.algorithm} has three learning rates and refuses lr",
            fix="write actor_lr, critic_lr and alpha_lr",
            key=True,
        )
    fragment, steps = values.get("env_runners", "rollout_fragment_length"), values.get("training", "n_step")
    longest = max(
        (max(x) if isinstance(x, list) and x else x for x in candidates(steps) if _countable(x)), default=0
    )
    if (
        values.given("env_runners", "rollout_fragment_length")
        and config.default("training", "n_step") is not None
    ):
        shortest = min(_numbers(fragment), default=longest)
        if longest > shortest:
            report.add(
                ("config", "env_runners", "rollout_fragment_length"),
                f"a fragment of {shortest:g} steps is shorter than n_step {longest:g}",
                fix=f"write rollout_fragment_length: {longest:g} or auto",
            )
    _check_batch_fits_fragments(values, config, report)
    _check_atoms(values, report)
    buffer = values.get("training", "replay_buffer_config")
    capacity = _numbers(buffer.get("capacity")) if isinstance(buffer, Mapping) else []
    if capacity and batch and max(batch) > min(capacity) >= 1:
        where = "replay_buffer_config" if values.given("training", "replay_buffer_config") else name
        report.add(
            ("config", "training", where, *(["capacity"] if where == "replay_buffer_config" else [])),
            f"the replay buffer holds {min(capacity):g} steps, the batch takes {max(batch):g}",
            fix=f"write a capacity above {max(batch):g}",
        )
    _check_learning_starts(values, capacity, report)
    if values.numbers("fault_tolerance", "max_num_env_runner_restarts"):
        low = min(values.numbers("fault_tolerance", "max_num_env_runner_restarts"))
        if low < 0:
            report.add(
                ("config", "fault_tolerance", "max_num_env_runner_restarts"),
                "must be at least 0",
                got=low,
                fix="write 1000",
            )


def _countable(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(x, int) and not isinstance(x, bool) for x in items)


def _check_batch_fits_fragments(values: _Values, config: Config, report: Report) -> None:
    """PPO refuses a batch that fragments cannot make up to within 10 % (AlgorithmConfig.validate, RLlib 2.60)."""
    if "PPOConfig" not in config.line or not values.given("env_runners", "rollout_fragment_length"):
        return
    fragments = values.numbers("env_runners", "rollout_fragment_length")
    name, batch = values.batch()
    runners = max(1, int(values.one("env_runners", "num_env_runners", 0)))
    envs = max(1, int(values.one("env_runners", "num_envs_per_env_runner", 1)))
    if len(fragments) != 1 or len(batch) != 1 or fragments[0] < 1 or batch[0] < 1:
        return
    total = batch[0] * max(1, int(values.one("learners", "num_learners", 0)))
    round_size = runners * envs * fragments[0]
    reached = round_size * -(-total // round_size)
    if reached - total > 0.1 * total:
        report.add(
            ("config", "env_runners", "rollout_fragment_length"),
            f"{runners} runners x {envs} environments x {fragments[0]:g} steps give {reached:g}, "
            f"not within 10 % of {name} {total:g}",
            fix=f"write rollout_fragment_length: auto, or {max(1, int(total // (envs * runners)))}",
        )


def _check_atoms(values: _Values, report: Report) -> None:
    low, high = values.numbers("training", "v_min"), values.numbers("training", "v_max")
    atoms = values.numbers("training", "num_atoms")
    if atoms and max(atoms) > 1 and low and high and max(low) >= min(high):
        where = next((a for a in ("v_min", "v_max") if values.given("training", a)), "num_atoms")
        report.add(
            ("config", "training", where),
            f"v_min {max(low):g} is not below v_max {min(high):g}",
            fix="write v_min and v_max around the returns to expect",
        )
    drop, quantiles = (
        values.numbers("training", "top_quantiles_to_drop_per_net"),
        values.numbers("training", "n_quantiles"),
    )
    if drop and quantiles and max(drop) >= min(quantiles):
        where = next(
            (a for a in ("top_quantiles_to_drop_per_net", "n_quantiles") if values.given("training", a)),
            "n_quantiles",
        )
        report.add(
            ("config", "training", where),
            f"top_quantiles_to_drop_per_net {max(drop):g} leaves none of n_quantiles {min(quantiles):g}",
            fix=f"write top_quantiles_to_drop_per_net of at most {int(min(quantiles)) - 1}",
        )


def _check_learning_starts(values: _Values, capacity: list[float], report: Report) -> None:
    start = values.numbers("training", "num_steps_sampled_before_learning_starts")
    limit = section(values.data, "stop").get("env_steps")
    if (
        not start
        or isinstance(limit, bool)
        or not isinstance(limit, int | float)
        or len(section(values.data, "stop")) > 1
    ):
        return
    if min(start) >= limit > 0:
        given = values.given("training", "num_steps_sampled_before_learning_starts")
        report.add(
            ("config", "training", "num_steps_sampled_before_learning_starts")
            if given
            else ("stop", "env_steps"),
            f"learning starts after {min(start):g} env steps, the run stops at {limit:g}",
            fix="write a larger stop.env_steps, or a smaller num_steps_sampled_before_learning_starts",
        )
