"""Plain data -> `Recipe`: the shape of a recipe, with every pydantic error as a problem that names its fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rlkit.errors import did_you_mean
from rlkit.recipe.problems import MISSING, Path, RecipeError, Report, Unusable, instead
from rlkit.recipe.schema import Checkpoint, Evaluation, Policy, Recipe, Tune
from rlkit.recipe.signatures import Config
from rlkit.recipe.tree import INVALID
from rlkit.recipe.types import parse_type, shaped
from rlkit.recipe.words import OLD_TOP_KEYS

SECTIONS = {
    "env_config": "mapping", "config": "mapping", "model": "mapping", "exploration": "mapping", "policies": "mapping",
    "callbacks": "list", "curriculum": "mapping", "stop": "mapping", "evaluation": "mapping", "checkpoint": "mapping",
    "tune": "mapping",
}  # fmt: skip
_EXAMPLES = {
    "algorithm": "algorithm: DQN",
    "env": "env: CartPole-v1",
    "stop": "stop: {env_steps: 50000}",
    "agents": 'agents: ["agent_*"]',
    "type": "type: …",
}
_MODELS: dict[str, Any] = {"evaluation": Evaluation, "checkpoint": Checkpoint, "tune": Tune}


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Validate plain data against the schema alone: names and RLlib's arguments are not looked up.

    Raises:
        RecipeError: with every problem.
    """
    report = Report("recipe")
    try:
        recipe = validated(dict(values), report)
    except Unusable:
        recipe = None
    if recipe is None or report.problems:
        raise RecipeError(report.problems)
    return recipe


def validated(data: Mapping[str, Any], report: Report) -> Recipe | None:
    """Return the recipe, or None after reporting everything that is wrong with its shape."""
    values = dict(data)
    for name, kind in SECTIONS.items():
        if name in values and values[name] is None:
            empty = "{}" if kind == "mapping" else "[]"
            report.add(
                (name,),
                f"the section {name!r} is empty",
                fix=f"fill it, write {empty}, or remove the key",
                key=True,
            )
            del values[name]
    if isinstance(values.get("config"), Mapping):
        values["config"] = dict(values["config"])
        for method, arguments in list(values["config"].items()):
            if arguments is None:
                report.add(
                    ("config", method),
                    f"the section {method!r} is empty",
                    fix="fill it, write {}, or remove the key",
                    key=True,
                )
                values["config"][method] = {}
    named = _named_lists(values, report)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=True):
            _report(item, values, report)
        return None
    return _with_tuples(recipe) if named and not report.problems else None


def _with_tuples(recipe: Recipe) -> Recipe:
    """Return the recipe with lists turned into tuples where RLlib takes nothing else."""
    config = Config(recipe.algorithm)
    values: dict[str, dict[str, Any]] = {}
    for method, arguments in recipe.config.items():
        rows = config.arguments(method)
        values[method] = {
            name: shaped(value, parse_type(rows[name]["type"])) if name in rows else value
            for name, value in arguments.items()
        }
    return recipe.model_copy(update={"config": values}) if values else recipe


def _named_lists(values: Mapping[str, Any], report: Report) -> bool:
    """Check what pydantic cannot say briefly: the names inside callbacks, model, exploration and tune."""
    before = len(report.problems)
    callbacks = values.get("callbacks")
    for index, entry in enumerate(callbacks if isinstance(callbacks, list) else ()):
        if isinstance(entry, str):
            report.add(
                ("callbacks", index), "a callback is a mapping", got=entry, fix=f"write - {{name: {entry}}}"
            )
        elif isinstance(entry, Mapping):
            _word(("callbacks", index), entry, "name", report)
    exploration = values.get("exploration")
    if isinstance(exploration, str):
        report.add(
            ("exploration",),
            "exploration is a mapping",
            got=exploration,
            fix=f"write exploration: {{type: {exploration}}}",
        )
    elif isinstance(exploration, Mapping):
        _word(("exploration",), exploration, "type", report)
    model = values.get("model")
    if isinstance(model, str):
        report.add(("model",), "model is a mapping", got=model, fix=f"write model: {{name: {model}}}")
    elif isinstance(model, Mapping) and "name" in model:
        _word(("model",), model, "name", report)
    curriculum = values.get("curriculum")
    if isinstance(curriculum, Mapping) and "type" in curriculum:
        _word(("curriculum",), curriculum, "type", report)
    return len(report.problems) == before


def _word(path: Path, entry: Mapping[str, Any], key: str, report: Report) -> None:
    if key not in entry:
        report.add(
            path,
            f"the key {key!r} is missing",
            got=entry,
            fix=f"add {key}: …",
            key=bool(path) and isinstance(path[-1], str),
        )
    elif (not isinstance(entry[key], str) or not entry[key]) and entry[key] is not INVALID:
        report.add((*path, key), "a name is expected", got=entry[key], fix=f"write {key}: followed by a word")


def _report(item: Any, values: Any, report: Report) -> None:
    """Turn one pydantic error into a problem; errors below something already reported are left out."""
    path = _path(item["loc"], values)
    got = item.get("input", MISSING)
    kind, context = item["type"], item.get("ctx", {})
    if got is INVALID or (kind != "missing" and report.has(path)):
        return
    if kind == "missing":
        key = str(path[-1])
        message = f"the key {key!r} is missing"
        if key == "stop":
            message += ": a run without it never ends"
        report.add(path[:-1], message, fix=f"add `{_EXAMPLES.get(key, f'{key}: …')}`", key=True)
        return
    if kind == "extra_forbidden":
        _unknown_key(path, report)
        return
    message, fix = _explain(kind, context, got, path)
    report.add(path, message, got=got, fix=fix)


def _path(location: tuple[Any, ...], values: Any) -> Path:
    """Drop what pydantic adds to a location: union members, `[key]`."""
    path: list[str | int] = []
    here = values
    for part in location:
        if (isinstance(here, Mapping) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        ):
            here = here[part]
        elif (
            part is location[-1]
            and isinstance(here, Mapping)
            and part != "[key]"
            and not str(part).startswith(("dict[", "literal["))
        ):
            pass  # a missing key
        else:
            continue
        path.append(part)
    return tuple(path)


def fields_at(path: Path) -> list[str]:
    """Return the keys that may stand below a path of the schema."""
    if not path:
        return list(Recipe.model_fields)
    if path[0] == "policies" and len(path) == 2:
        return list(Policy.model_fields)
    model = _MODELS.get(str(path[0]))
    return list(model.model_fields) if model and len(path) == 1 else []


def _unknown_key(path: Path, report: Report) -> None:
    key, known = str(path[-1]), fields_at(path[:-1])
    if len(path) == 1 and key in OLD_TOP_KEYS:
        report.add(path, f"{key!r} is not a key of a recipe", fix=OLD_TOP_KEYS[key], key=True)
        return
    hint = did_you_mean(key, known)
    report.add(path, f"unknown key {key!r}{hint}", fix=instead(hint, known), key=True)


_NOUNS = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text", "dict_type": "a mapping (key: value)", "list_type": "a list",
    "model_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
}  # fmt: skip


def _explain(kind: str, context: Mapping[str, Any], got: Any, path: Path) -> tuple[str, str]:
    """Return what is wrong and the fix for a pydantic error type."""
    if kind in _NOUNS:
        return f"{_NOUNS[kind]} is expected", type_fix(_NOUNS[kind], got, str(path[-1]) if path else "")
    bounds = {
        "greater_than_equal": ("at least", "ge"),
        "less_than_equal": ("at most", "le"),
        "greater_than": ("above", "gt"),
    }
    if kind in bounds:
        word, key = bounds[kind]
        return f"out of range: must be {word} {context[key]}", f"write a number of {word} {context[key]}"
    if kind == "finite_number":
        return "a finite number is expected", "write a number"
    if kind == "literal_error":
        if path == ("policies",):
            return (
                "policies is a mapping, or the word shared",
                "write policies: shared, or name: {agents: [...]}",
            )
        return f"must be one of {context['expected']}", f"write {context['expected']}"
    if kind == "string_pattern_mismatch":
        return (
            "a run name has letters, digits, '.', '_' and '-', starts with a letter or digit, and is at most 100 long",
            "it names a folder; choose a plain word",
        )
    if kind in ("too_short", "string_too_short"):
        return "must not be empty", "fill it" if kind == "string_too_short" else "give at least one"
    return str(context.get("error", kind)), "see docs/recipe.md"


def type_fix(noun: str, got: Any, key: str) -> str:
    """Return what to write when a value has the wrong type."""
    if isinstance(got, str):
        text = got.strip()
        if noun.endswith("number") and _number(text) is not None:
            return f"remove the quotes: {key}: {text}"
        if noun == "true or false" and text.lower() in ("true", "false"):
            return f"remove the quotes: {key}: {text.lower()}"
        if noun.startswith("a mapping") and ":" in text:
            head, _, tail = text.partition(":")
            return f"write {head.strip()}: {tail.strip()} on a line of its own below, with a space after the colon"
    if isinstance(got, float) and noun == "a whole number" and got.is_integer():
        return f"write {int(got)}"
    if isinstance(got, bool) and noun.endswith("number"):
        return "write 1 or 0 if that is meant"
    if noun == "text" and got is not None and not isinstance(got, list | dict):
        return f"quote it: '{got}'"
    if noun == "a list" and not isinstance(got, list | dict | type(None)):
        return f"write [{got}]"
    return f"write {noun}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
