"""Recipe files -> recipes, or every problem in them. Nothing here imports ray or torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit import registry
from rlkit.algos.rules import Settings
from rlkit.errors import UsageError, did_you_mean
from rlkit.recipe import default_space
from rlkit.recipe import overrides as overriding
from rlkit.recipe.config_check import check_config
from rlkit.recipe.data_check import check_data, locate
from rlkit.recipe.env_check import action_of, check_env, is_single_agent
from rlkit.recipe.overrides import COMMAND_LINE, Overrides
from rlkit.recipe.parts_check import check_parts
from rlkit.recipe.problems import Mark, Problem, RecipeError, Report, Unusable, instead, shown
from rlkit.recipe.run_check import SCHEDULER, check_run, check_spaces
from rlkit.recipe.scalars import read_scalar
from rlkit.recipe.schema import Recipe, validated
from rlkit.recipe.shipped import find_policy, find_recipe
from rlkit.recipe.signatures import Config
from rlkit.recipe.sizes_check import check_sizes
from rlkit.recipe.source import parse, read_text
from rlkit.recipe.spaces import LISTS, SearchSpace
from rlkit.recipe.tree import Node, Reader
from rlkit.recipe.words import OLD_ALGORITHMS

DEFAULT_STOP = {"env_steps": 100_000}
OLD_SHAPE_KEYS = {"run", "env", "stop", "config", "num_samples"}
BEGINNING = "start with `algorithm:`, `env:` and `stop:`"


def load(path: str | Path, overrides: Overrides = ()) -> Recipe:
    """Read a recipe file.

    Args:
        path: a YAML file, or the name of a shipped recipe.
        overrides: `["config.training.lr=3e-4", "seed=1"]` or `{"config.training.lr": 3e-4, "seed": 1}`.

    Raises:
        RecipeError: with every problem found.
    """
    return _finished(*_read(path, overrides))


def loads(text: str, overrides: Overrides = (), name: str = "recipe") -> Recipe:
    """Read a recipe from text; `name` stands for the file in messages and for a missing `name` key.

    Raises:
        RecipeError: with every problem found.
    """
    report = Report(name)
    return _finished(_guarded(lambda: parse(text, report), overrides, name, report), report)


def from_mapping(values: Mapping[str, Any], overrides: Overrides = ()) -> Recipe:
    """Check the content of a recipe given as plain data, as `load` checks a file.

    Raises:
        RecipeError: with every problem found.
    """
    report = Report("recipe")
    try:
        root = overriding.to_node(values, Mark("recipe"))
    except TypeError as error:
        report.at(Mark("recipe"), (), str(error), overriding.PLAIN)
        raise RecipeError(report.problems) from None
    return _finished(_guarded(lambda: root, overrides, "recipe", report), report)


def from_flags(algorithm: str, env: str, overrides: Overrides = ()) -> Recipe:
    """Return the recipe of `rlkit train --algorithm A --env E`: RLlib's defaults, and 100,000 env steps.

    Raises:
        RecipeError: with every problem found.
    """
    report = Report(COMMAND_LINE)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{algorithm}_{env}".lower()).strip("._-")[:100] or "run"
    values = {"name": name, "algorithm": algorithm, "env": env, "stop": DEFAULT_STOP}
    words = overrides if isinstance(overrides, Mapping) else [str(word) for word in overrides]
    if any(str(word).startswith("stop.") for word in words):
        values["stop"] = {}
    root = overriding.to_node(values, Mark(COMMAND_LINE))
    return _finished(_guarded(lambda: root, overrides, name, report), report)


def check(*paths: str | Path | Sequence[str | Path], overrides: Overrides = ()) -> list[Problem]:
    """Return every problem of the recipe files, in file order; an empty list if there is none.

    `overrides` are those of `load`, for each of the files.
    """
    problems: list[Problem] = []
    for entry in paths:
        for path in [entry] if isinstance(entry, str | Path) else entry:
            _, report = _read(path, overrides)
            problems += RecipeError(report.problems).problems
    return problems


def _read(path: str | Path, overrides: Overrides) -> tuple[Recipe | None, Report]:
    file = find_recipe(path)
    report = Report(str(file))
    return _guarded(lambda: parse(read_text(file, report), report), overrides, file.stem, report), report


def _finished(recipe: Recipe | None, report: Report) -> Recipe:
    if recipe is None or report.problems:
        raise RecipeError(report.problems)
    return recipe


def _guarded(root: Any, overrides: Overrides, name: str, report: Report) -> Recipe | None:
    """Run the steps from nodes to a recipe; what cannot be read further ends here, with its problem in the report."""
    try:
        return _recipe(root(), overrides, name, report)
    except Unusable:
        return None


def _recipe(root: Node, overrides: Overrides, name: str, report: Report) -> Recipe | None:
    if root.kind == "scalar" and root.plain and read_scalar(root.value) is None:
        report.at(root.mark, (), "the recipe is empty", BEGINNING)
        raise Unusable
    if root.kind != "map":
        got = "a list" if root.kind == "list" else shown(root.value)
        report.at(root.mark, (), "a recipe is a mapping of keys", BEGINNING, got=got)
        raise Unusable
    overriding.apply(root, overrides, report)
    data = Reader(report).read(root)
    if not isinstance(data, dict):
        raise Unusable
    _refuse_old_shape(data, report)
    if "name" not in data:
        data["name"] = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:100] or "recipe"
    locate(data, report)
    default_space.fill_in(data, report)
    check_spaces(data, report)
    recipe = validated(data, report)
    _check_meaning(data, report)
    return recipe


def _check_meaning(data: dict[str, Any], report: Report) -> None:
    """Report what the shape cannot say: names that exist, values that fit together, for what is right by itself."""
    sound = report.sound(data)
    config = Config(_algorithm(sound.get("algorithm", ""), report))
    check_env(sound, config, report)
    check_config(sound.get("config", {}), _keys(data, "config"), config, report)
    check_parts(sound, config, report)
    check_data(sound, config, report)
    sound = report.sound(sound)
    env, env_config = sound.get("env", ""), sound.get("env_config", {})
    settings = Settings(
        config.algorithm, env, config.line, sound.get("config", {}), config.default,
        action_of(env, env_config), bool(env) and is_single_agent(env), sound.get("model") or {}, env_config,
    )  # fmt: skip
    check_sizes(settings, report)
    minibatch, (name, batch) = settings.numbers("training", "minibatch_size"), settings.batch()
    if batch and minibatch and max(minibatch) > min(batch):
        argument = "minibatch_size" if settings.given("training", "minibatch_size") else name
        message = f"minibatch_size {max(minibatch):g} is larger than "
        message += f"the batch of a learner, {name} {min(batch):g}"
        fix = f"write a minibatch_size of at most {min(batch):g}, or a larger {name}"
        report.add(("config", "training", argument), message, fix)
    for rules in config.rules:
        for path, message, fix in rules.check(settings) if rules.check else ():
            report.add(path, message, fix, key=path[-1] == "lr")
    _check_sources(sound.get("init_from"), report)
    check_run(sound, _keys(data, "stop"), config, settings, report)
    _check_mutations(report.sound(sound), report)


def _check_mutations(data: Mapping[str, Any], report: Report) -> None:
    """Report what mutations of population based training make wrong in a recipe that is right without them."""
    scheduler = data.get("tune", {}).get("scheduler") or {}
    given = scheduler.get("mutations") or {}
    mutations = {key: value for key, value in given.items() if isinstance(value, SearchSpace | list)}
    if scheduler.get("type") != "pbt" or not mutations:
        return
    plain = {key: value for key, value in data.items() if key != "tune"}
    changed = plain
    for name, value in mutations.items():
        values = value if isinstance(value, list) else value.args if value.kind in LISTS else None
        space = value if values is None else SearchSpace("choice", tuple(values))
        changed = _with(changed, name.split("."), space)
    known = {(problem.path, problem.message) for problem in _problems(plain)}
    for problem in _problems(changed):
        if (problem.path, problem.message) not in known:
            name = _mutation_of(problem.path, list(mutations))
            path = (*SCHEDULER, "mutations", name)
            message = problem.message if problem.path == name else f"{problem.path}: {problem.message}"
            report.at(report.place(path), path, message, problem.fix, got=problem.got)


def _mutation_of(path: str, names: Sequence[str]) -> str:
    """Return the mutation that a problem comes from: of its path, else of its section, else the first."""
    inside = [name for name in names if path == name or path.startswith((f"{name}.", f"{name}["))]
    beside = [name for name in names if name.partition(".")[0] == path.partition(".")[0]]
    return [*inside, *beside, *names][0]


def _with(data: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return nested mappings with a value at a path, as `rlkit.launch.schedulers.fill` puts it there."""
    head, *rest = path
    return {**data, head: _with(data.get(head) or {}, rest, value) if rest else value}


def _problems(values: Mapping[str, Any]) -> list[Problem]:
    try:
        from_mapping(values)
    except RecipeError as error:
        return error.problems
    return []


def _check_sources(init_from: Any, report: Report) -> None:
    """Report a policy of the zoo that does not exist; folders are looked at when a run starts.

    A run is resumed from its own weights, so the recipe stays good when the folder has gone.
    """
    by_glob = init_from if isinstance(init_from, Mapping) else {None: init_from}
    for glob, source in by_glob.items():
        try:
            find_policy(str(source or "").partition("#")[0])
        except UsageError as error:
            path = ("init_from",) if glob is None else ("init_from", glob)
            report.add(path, str(error), "name one of `rlkit list zoo`, or a run, a checkpoint or a bundle")


def _keys(data: Mapping[str, Any], section: str) -> list[str]:
    return list(data[section]) if isinstance(data.get(section), Mapping) else []


def _algorithm(name: str, report: Report) -> str:
    """Return the algorithm whose arguments the config is checked against: for a misspelt name the one that is meant."""
    if not name or name in registry.TABLES["algorithms"]:
        return name
    if name in OLD_ALGORITHMS:
        report.add(("algorithm",), f"RLlib no longer has {name}", OLD_ALGORITHMS[name], got=name)
        return ""
    known = registry.TABLES["algorithms"]
    hint = did_you_mean(name, known)
    report.add(("algorithm",), f"unknown algorithm {name!r}{hint}", instead(hint, known))
    return hint.split("'")[1] if hint else ""


def _refuse_old_shape(data: dict[str, Any], report: Report) -> None:
    """`name: {env, run, stop, config}`, the YAML of the old `rllib train`, gets one message instead of many."""
    for name, body in data.items():
        if not (isinstance(body, Mapping) and {"run", "env"} <= set(body)) or "algorithm" in data:
            continue
        stop, config = body.get("stop"), body.get("config")
        rules = "{" + ", ".join(stop) + "}" if isinstance(stop, Mapping) else "{env_steps: …}"
        keys = ", ".join(config) if isinstance(config, Mapping) else "…"
        fix = (
            f"write name: {shown(name)[1:-1]}, algorithm: {body['run']}, env: {body['env']}, stop: {rules}, "
            f"and config: {{training: …, env_runners: …}} with {shown(keys)[1:-1]} below the method that takes it "
            "(docs/from-old-rllib.md)"
        )
        message = "this is the shape of Ray's old `rllib train`; a recipe has its keys at the top"
        report.add((name,), message, fix, got=body, key=True)
        raise Unusable
    if "run" in data and "algorithm" not in data and len(OLD_SHAPE_KEYS & set(data)) >= 2:
        message, fix = "Ray's old key for the algorithm", f"write algorithm: {data['run']}"
        report.add(("run",), message, fix, got=data.pop("run"), key=True)
        data["algorithm"] = "PPO"
