"""Recipe files -> recipes, or every problem in them. Nothing here imports ray or torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.recipe import overrides as overriding
from rlkit.recipe.meaning import check_meaning
from rlkit.recipe.overrides import COMMAND_LINE, Overrides
from rlkit.recipe.problems import Mark, Problem, RecipeError, Report, Unusable, shown, sorted_problems
from rlkit.recipe.run_check import check_spaces
from rlkit.recipe.scalars import read_scalar
from rlkit.recipe.schema import Recipe
from rlkit.recipe.shipped import find_recipe
from rlkit.recipe.source import parse, read_text
from rlkit.recipe.tree import Node, Reader
from rlkit.recipe.validate import validated
from rlkit.recipe.words import OLD_SHAPE_KEYS

DEFAULT_STOP = {"env_steps": 100_000}


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

    def root() -> Node:
        try:
            return overriding.to_node(values, Mark("recipe"))
        except TypeError as error:
            report.at(
                Mark("recipe"),
                (),
                str(error),
                fix="give plain data: text, numbers, true or false, lists, mappings",
            )
            raise Unusable from None

    return _finished(_guarded(root, overrides, "recipe", report), report)


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
    return _finished(
        _guarded(lambda: overriding.to_node(values, Mark(COMMAND_LINE)), overrides, name, report), report
    )


def check(*paths: str | Path | Sequence[str | Path]) -> list[Problem]:
    """Return every problem of the recipe files, in file order; an empty list if there is none."""
    problems: list[Problem] = []
    for entry in paths:
        for path in [entry] if isinstance(entry, str | Path) else entry:
            _, report = _read(path, ())
            problems += sorted_problems(report.problems)
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
        report.at(root.mark, (), "the recipe is empty", fix="start with `algorithm:`, `env:` and `stop:`")
        raise Unusable
    if root.kind != "map":
        got = "a list" if root.kind == "list" else shown(root.value)
        report.at(
            root.mark,
            (),
            "a recipe is a mapping of keys",
            got=got,
            fix="start with `algorithm:`, `env:` and `stop:`",
        )
        raise Unusable
    overriding.apply(root, overrides, report)
    data = Reader(report).read(root)
    if not isinstance(data, dict):
        raise Unusable
    _refuse_old_shape(data, report)
    if "name" not in data:
        data["name"] = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:100] or "recipe"
    check_spaces(data, report)
    recipe = validated(data, report)
    check_meaning(data, report)
    return recipe


def _refuse_old_shape(data: dict[str, Any], report: Report) -> None:
    """`name: {env, run, stop, config}`, the YAML of the old `rllib train`, gets one message instead of many."""
    for name, body in data.items():
        if not (isinstance(body, Mapping) and {"run", "env"} <= set(body)) or "algorithm" in data:
            continue
        stop, config = body.get("stop"), body.get("config")
        rules = "{" + ", ".join(stop) + "}" if isinstance(stop, Mapping) else "{env_steps: …}"
        keys = ", ".join(config) if isinstance(config, Mapping) else "…"
        report.add(
            (name,),
            "this is the shape of Ray's old `rllib train`; a recipe has its keys at the top",
            got=body,
            fix=f"write name: {shown(name)[1:-1]}, algorithm: {body['run']}, env: {body['env']}, stop: "
            f"{rules}, and config: {{training: …, env_runners: …}} with {shown(keys)[1:-1]} "
            "below the method that takes it (docs/from-old-rllib.md)",
            key=True,
        )
        raise Unusable
    if "run" in data and "algorithm" not in data and len(OLD_SHAPE_KEYS & set(data)) >= 2:
        report.add(
            ("run",),
            "Ray's old key for the algorithm",
            got=data["run"],
            fix=f"write algorithm: {data['run']}",
            key=True,
        )
        del data["run"]
        data["algorithm"] = "PPO"
