"""JSON Schema of a recipe, for editors: `# yaml-language-server: $schema=…/recipe.schema.json`.

Completion and descriptions come from it; `rlkit check` stays the judge. A search space may stand for any value below
`config`, `model`, `env_config` and `exploration`; editors see `!grid [1, 2]` as a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit import registry
from rlkit.recipe.limits import NOT_NEGATIVE, ONE_UP, POSITIVE, SHARE, UNIT, choices_of, range_of
from rlkit.recipe.schema import Recipe
from rlkit.recipe.signatures import METHODS, Config, table
from rlkit.recipe.types import expressible, parse_type, to_schema
from rlkit.recipe.words import CLOSED_METHODS, ELSEWHERE, IGNORED

_BOUNDS: dict[str, dict[str, Any]] = {
    UNIT: {"minimum": 0, "maximum": 1},
    SHARE: {"exclusiveMinimum": 0, "maximum": 1},
    POSITIVE: {"exclusiveMinimum": 0},
    NOT_NEGATIVE: {"minimum": 0},
    ONE_UP: {"minimum": 1},
}
_SPACE = {
    "description": "a search space: !grid, !choice, !uniform, !loguniform, !randint with a list",
    "anyOf": [
        {"type": "array"},
        {"type": "object", "properties": {"grid_search": {"type": "array"}}, "required": ["grid_search"]},
    ],
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a recipe, with the arguments of every algorithm's methods."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "rlkit recipe"
    schema["required"] = ["algorithm", "env", "stop"]  # `name` defaults to the file's stem
    properties = schema["properties"]
    properties["env"]["examples"] = ["CartPole-v1", "Pendulum-v1", "pettingzoo/mpe2.simple_spread_v3"]
    properties["stop"]["examples"] = [{"env_steps": 50000}, {"iterations": 100}]
    properties["algorithm"]["examples"] = sorted(registry.TABLES["algorithms"])
    definitions = schema["$defs"]
    definitions["search_space"] = _SPACE
    properties["callbacks"]["items"] = _named("callbacks", "name")
    properties["exploration"] = {
        **_named("explorations", "type"),
        "description": properties["exploration"]["description"],
    }
    properties["model"] = {
        "description": properties["model"]["description"],
        "anyOf": [_model(), _named("models", "name")],
    }
    branches = []
    for name in table().get("algorithms", {}):
        key = "config_" + name.replace("/", "_")
        methods = {}
        for method in _methods():
            found = _object(_arguments(Config(name), method))
            owner = f"config_{method}"
            if method == "training" or definitions.setdefault(owner, found) != found:
                owner = f"{key}_{method}"
                definitions[owner] = found
            methods[method] = {"$ref": f"#/$defs/{owner}"}
        definitions[key] = _object(methods)
        branches.append(
            {
                "if": {"properties": {"algorithm": {"const": name}}, "required": ["algorithm"]},
                "then": {"properties": {"config": {"$ref": f"#/$defs/{key}"}}},
            }
        )
    schema["allOf"] = branches
    return schema


def _methods() -> list[str]:
    return [method for method in METHODS if method not in CLOSED_METHODS]


def _object(rows: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": rows}
    return {**found, "required": required} if required else found


def _arguments(config: Config, method: str) -> dict[str, Any]:
    """Return {argument: schema} of what a recipe may set in a method."""
    return {
        argument: _value(argument, row, config.default(method, argument))
        for argument, row in sorted(config.arguments(method).items())
        if not row.get("deprecated")
        and not argument.startswith("_")
        and argument not in ELSEWHERE.get(method, {})
        and argument not in IGNORED.get(method, {})
        and expressible(parse_type(row["type"]))
    }


def _value(argument: str, row: Mapping[str, Any], default: Any) -> dict[str, Any]:
    plain = to_schema(parse_type(row["type"]))
    limits = range_of(argument)
    choices = choices_of(argument)
    options = plain.get("anyOf", [plain]) if plain else []
    for option in options:
        if limits and option.get("type") in ("number", "integer"):
            option.update(_BOUNDS[limits])
        if choices and option.get("type") == "string":
            option["enum"] = list(choices)
    schema: dict[str, Any] = {"anyOf": [*options, {"$ref": "#/$defs/search_space"}]} if options else {}
    if row.get("doc"):
        schema["description"] = row["doc"]
    if default is not None:
        schema["default"] = default
    return schema


def _named(kind: str, key: str) -> dict[str, Any]:
    """Return the schema of `{name: …, options}`: one branch per registered name, and any other name."""
    branches = []
    known = table().get("options", {}).get(kind, {})
    for name, found in known.items():
        rows = {
            option: _value(option, row, row.get("default"))
            for option, row in found["arguments"].items()
            if expressible(parse_type(row["type"]))
        }
        branch = _object(
            {key: {"const": name}, **rows}, [key, *(o for o in rows if found["arguments"][o].get("required"))]
        )
        branch["additionalProperties"] = bool(found["open"])
        branches.append(branch)
    other = {
        "type": "object",
        "required": [key],
        "properties": {key: {"type": "string", "not": {"enum": sorted(known)}}},
    }
    return {"anyOf": [*branches, other]}


def _model() -> dict[str, Any]:
    rows = {key: _value(key, row, row.get("default")) for key, row in table().get("model_config", {}).items()}
    return _object(rows)
