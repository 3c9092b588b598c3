"""The commands that start nothing: check, show, list, init, migrate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rlkit.cli.common import AsJson, Imports, exists, plugins, recipe_names, split
from rlkit.errors import UsageError, printable


def check(
    words: Annotated[
        list[str], typer.Argument(metavar="RECIPE... [KEY=VALUE]...", autocompletion=recipe_names)
    ],
    seed: Annotated[
        bool, typer.Option("--seed", help="Train the first iterations twice, and compare bit by bit.")
    ] = False,
    imports: Imports = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Report every error of a recipe with its line, without starting anything. Overrides hold for each recipe.

    `rlkit train RECIPE --dry-run` also makes the environment and the networks.
    """
    plugins(imports)
    from rlkit.recipe import check as check_recipes

    overrides = [word for word in words if "=" in word and not exists(word)]
    recipes = [word for word in words if word not in overrides]
    if not recipes:
        raise UsageError("give a recipe file: rlkit check configs/dqn_cartpole.yaml")
    problems = check_recipes(recipes, overrides=overrides)
    if as_json:
        print(json.dumps([problem.to_dict() for problem in problems]))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        if not problems:
            print(f"{len(recipes)} recipe{'s' if len(recipes) > 1 else ''} ok")
    if problems:
        raise typer.Exit(2)
    if seed:
        from rlkit.launch.seed_check import check_seed

        for recipe in recipes:
            print(check_seed(recipe, overrides, imports), file=sys.stderr if as_json else sys.stdout)


def show(
    recipe: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", autocompletion=recipe_names)
    ] = None,
    imports: Imports = [],  # noqa: B006
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes instead.")
    ] = False,
) -> None:
    """Print a recipe as rlkit reads it: defaults filled in, overrides applied."""
    from rlkit import recipe as recipes

    if schema:
        print(json.dumps(recipes.json_schema(), indent=2))
        return
    plugins(imports)
    file, overrides = split(recipe or [])
    if file is None:
        raise UsageError("give a recipe: rlkit show dqn_cartpole")
    print(recipes.dump(recipes.load(file, overrides)), end="")


def list_names(
    kind: Annotated[
        str, typer.Argument(metavar="algorithms|envs|models|callbacks|curricula|explorations|recipes|zoo")
    ],
    imports: Imports = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """List the names a recipe may use, and the trained policies that come along."""
    from rlkit import registry
    from rlkit.errors import did_you_mean

    plugins(imports)
    if kind == "recipes":
        from rlkit.recipe.shipped import shipped

        rows = {name: recipe_summary(path) for name, path in shipped().items()}
    elif kind == "zoo":
        from rlkit.recipe.shipped import policies, policy_summary

        rows = {name: policy_summary(row) for name, row in policies().items()}
    elif kind in registry.TABLES:
        rows = {name: entry.summary for name, entry in sorted(registry.TABLES[kind].items())}
    else:
        known = [*registry.KINDS, "recipes", "zoo"]
        raise UsageError(f"cannot list {kind!r}{did_you_mean(kind, known)}; one of {', '.join(known)}")
    if as_json:
        print(json.dumps(rows))
        return
    width = max((len(name) for name in rows), default=0)
    for name, summary in rows.items():
        print(f"{name:<{width}}  {summary}".rstrip())
    if kind == "envs":
        print("\nand every Gymnasium id, pettingzoo/<module>.<env>, vmas/<scenario>")


def recipe_summary(path: Path) -> str:
    """Return the first comment line of a recipe."""
    first = path.read_text().splitlines()[:1]
    return first[0].lstrip("# ") if first and first[0].startswith("#") else ""


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Folder to create, and name of the run.")],
) -> None:
    """Start a project: recipe, environment, callback, model, test, README."""
    from rlkit.recipe.starter import create

    for path in create(name):
        print(path)
    print(f"\nnext: cd {name} && rlkit train recipe.yaml --import parts.py", file=sys.stderr)


def migrate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML of `rllib train`, a config dict, or a script.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the recipe there; several: into that folder.")
    ] = None,
) -> None:
    """Turn an old RLlib configuration into a recipe; say what changed, moved, or has no successor."""
    from rlkit.files import write_atomic
    from rlkit.recipe.migrate import migrate as read

    found = read(file)
    if out is not None and not (out if len(found) > 1 else out.parent).is_dir():
        several = f"{file} has {len(found)} experiments; " if len(found) > 1 else ""
        raise UsageError(f"cannot write {out}: {several}expected a folder that exists")
    for number, result in enumerate(found):
        for note in result.notes:
            print(f"{result.name}: {printable(note)}", file=sys.stderr)
        for stop in result.stops:
            print(f"{result.name}: stops it: {printable(stop)}", file=sys.stderr)
        if result.recipe is None:
            continue
        if out is None:
            print(("---\n" if number else "") + result.text(), end="")
            continue
        path = out / f"{result.name}.yaml" if len(found) > 1 else out
        if path.exists():
            raise UsageError(f"{path} exists; choose another --out")
        write_atomic(path, result.text())
        print(path)
    if any(result.stops for result in found):
        raise typer.Exit(2)
