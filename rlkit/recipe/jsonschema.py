"""JSON Schema of a recipe, for editors, from the pydantic models: `rlkit show --schema > recipe.schema.json`.

Completion and descriptions come from it; `rlkit check` stays the judge. A search space may stand for any value below
`config`, `model`, `env_config` and `exploration`; editors see `!grid [1, 2]` as a list.
"""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from rlkit import registry
from rlkit.recipe.config_check import refusal
from rlkit.recipe.options import Space, is_code, model_of
from rlkit.recipe.schema import Recipe
from rlkit.recipe.signatures import METHODS, Config, table
from rlkit.recipe.words import CLOSED_METHODS


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a recipe, with the arguments of every algorithm's methods."""
    configs = {name: _config(name) for name in table()["algorithms"]}
    parts = {key: _named(kind, word) for key, kind, word in (
        ("callbacks", "callbacks", "name"), ("exploration", "explorations", "type"), ("model", "models", "name"),
    )}  # fmt: skip
    parts["model"].append(model_of("DefaultModelConfig", table()["model_config"], spaces=True))
    models: list[Any] = [Recipe, *configs.values(), *(model for group in parts.values() for model in group)]
    places, found = models_json_schema([(model, "validation") for model in models])
    ref = {model: places[model, "validation"] for model in models}
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **found["$defs"].pop("Recipe"), **found}
    _tidy(schema)
    schema |= {"title": "rlkit recipe", "required": ["algorithm", "env", "stop"]}  # `name` is the file's stem
    properties = schema["properties"]
    properties["algorithm"]["examples"] = sorted(registry.TABLES["algorithms"])
    properties["env"]["examples"] = ["CartPole-v1", "Pendulum-v1", "pettingzoo/mpe2.simple_spread_v3"]
    properties["stop"]["examples"] = [{"env_steps": 50000}, {"iterations": 100}]
    for key, group in parts.items():
        choice: dict[str, Any] = {"anyOf": [ref[model] for model in group]}
        choice = {"type": "array", "items": choice} if key == "callbacks" else choice
        properties[key] = {"description": properties[key]["description"], **choice}
    schema["allOf"] = []
    for name, model in configs.items():
        condition = {"properties": {"algorithm": {"const": name}}, "required": ["algorithm"]}
        schema["allOf"].append({"if": condition, "then": {"properties": {"config": ref[model]}}})
    return schema


def _config(name: str) -> type[BaseModel]:
    """Return the model of an algorithm's section `config`: what a recipe may set."""
    config = Config(name)
    fields: dict[str, Any] = {}
    for method in METHODS:
        if method not in CLOSED_METHODS:
            rows = config.arguments(method)
            usable = [name for name in sorted(rows) if not refusal(config, method, name, rows)]
            usable = [name for name in usable if not is_code(rows[name])]
            own = [rules.options for rules in config.rules if rules.options] if method == "training" else []
            text = json.dumps({name: rows[name] for name in usable})
            fields[method] = (_section(method, text, tuple(own)), None)
    return create_model(f"config_{name}", __config__=ConfigDict(extra="forbid"), **fields)


@functools.cache
def _section(method: str, rows: str, own: tuple[type[BaseModel], ...]) -> type[BaseModel]:
    """Return the model of a method's arguments; algorithms that have the same ones share it."""
    fields: dict[str, Any] = {}
    for model in reversed(own):
        for name, field in model.model_fields.items():
            kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            fields[name] = (kind | Space, field.default)
    rest = {argument: row for argument, row in json.loads(rows).items() if argument not in fields}
    return create_model(method, __base__=model_of(method, rest, spaces=True), **fields)


def _named(kind: str, key: str) -> list[type[BaseModel]]:
    """Return the models of `{name: …, options}`: one per registered name, and one for any other name."""
    known = table()["options"][kind]
    models = []
    for name, found in known.items():
        rows = {option: row for option, row in found["arguments"].items() if not is_code(row)}
        base = model_of(name, rows, open_ended=found["open"], spaces=True)
        models.append(create_model(name, __base__=base, **{key: (Literal[name], ...)}))  # type: ignore[call-overload]
    other: Any = Annotated[str, Field(json_schema_extra={"not": {"enum": sorted(known)}})]
    fields: dict[str, Any] = {key: (other, ...)}
    models.append(create_model(f"other_{key}", __config__=ConfigDict(extra="allow"), **fields))
    return models


def _tidy(schema: Any) -> None:
    """Drop what helps no editor: titles made of names, and defaults of null."""
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _tidy(value)
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        if schema.get("default", ...) is None:
            del schema["default"]
