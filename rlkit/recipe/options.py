"""Rows of the table -> pydantic models: the arguments of RLlib's methods and the options of everything registered.

A row's `type` is an annotation of these words: any, bool, int, float, str, None, list, tuple, dict, Literal, and
schedule. Numbers and texts are strict, lists stand for tuples, and the row's bounds hold for every number in it.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    TypeAdapter,
    WithJsonSchema,
    create_model,
)
from pydantic_core import ValidationError

from rlkit.algos.options import number, schedule, whole
from rlkit.algos.rules import Rules
from rlkit.recipe.annotations import BOUNDS, CODE
from rlkit.recipe.explain import explain
from rlkit.recipe.problems import Path, Report
from rlkit.recipe.signatures import Rows
from rlkit.recipe.spaces import KINDS, variants

_GRID = {"type": "object", "properties": {"grid_search": {"type": "array"}}, "required": ["grid_search"]}
_SPACE = {"description": f"a search space: !{', !'.join(KINDS)}", "anyOf": [{"type": "array"}, _GRID]}
REGISTER = "register what you need (rlkit list callbacks, models, explorations) and name it in its section"
Space = Annotated[Any, WithJsonSchema(_SPACE)]


def is_code(row: Mapping[str, Any]) -> bool:
    """True if only a class or a function fits: a recipe cannot hold those."""
    return bool(row["type"].removesuffix(" | None") == CODE)


def kind_of(row: Mapping[str, Any]) -> Any:
    """Return the annotation of a row, for pydantic."""
    return _kind(*_words(row))


def _words(row: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, float], ...]]:
    return row["type"], tuple((name, row[name]) for name in BOUNDS if name in row)


@functools.cache
def _validator(text: str, bounds: tuple[tuple[str, float], ...]) -> TypeAdapter[Any]:
    return TypeAdapter(_kind(text, bounds))


@functools.cache
def _kind(text: str, bounds: tuple[tuple[str, float], ...]) -> Any:
    limits = dict(bounds)
    words = {
        "any": Any, "bool": StrictBool, "int": whole(**limits), "float": number(**limits), "str": StrictStr,
        "schedule": schedule(**limits), "list": list, "tuple": tuple, "dict": dict, "Literal": Literal,
    }  # fmt: skip
    row = types.SimpleNamespace(__annotations__={"row": text})
    return typing.get_type_hints(row, words, include_extras=True)["row"]


def model_of(name: str, rows: Rows, *, open_ended: bool = False, spaces: bool = False) -> type[BaseModel]:
    """Return the pydantic model of rows; `spaces` lets a search space stand for any value in its JSON Schema."""
    fields: dict[str, Any] = {}
    for index, (argument, row) in enumerate(rows.items()):
        kind = kind_of(row) | Space if spaces else kind_of(row)
        default = ... if row.get("required") else row.get("default")
        # the alias is the name: pydantic keeps some names for itself
        fields[f"f{index}"] = (kind, Field(default, alias=argument, description=row.get("doc")))
    return create_model(name, __config__=ConfigDict(extra="allow" if open_ended else "forbid"), **fields)


def split(given: Mapping[str, Any], rules: Iterable[Rules]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield (model, values) for the options that algorithms describe themselves, and (None, the rest)."""
    rest = dict(given)
    for rule in rules:
        fields = rule.options.model_fields if rule.options else {}
        if own := {name: rest.pop(name) for name in fields if name in rest}:
            yield rule.options, own
    yield None, rest


def _fit(values: Mapping[str, Any], rows: Rows, open_ended: bool) -> bool:
    """True if all values, and each candidate of a search space among them, are what their rows say."""
    if not rows.keys() <= values.keys() or not (open_ended or values.keys() <= rows.keys()):
        return False
    validators = {name: _validator(*_words(row)) for name, row in rows.items()}
    try:
        for variant in variants(values):
            for name, validator in validators.items():
                validator.validate_python(variant[name])
    except ValidationError:
        return False
    return True


def check_values(
    given: Mapping[str, Any], rows: Rows, path: Path, report: Report, *, owner: str = "", noun: str = "option",
    open_ended: bool = False, rules: Iterable[Rules] = (),
) -> None:  # fmt: skip
    """Report missing and unknown arguments, and values of the wrong type or out of range.

    A search space is as good as each of its candidates. Rows are tried one by one, each kind with one validator for all
    recipes; the model, which costs more to make than all of them, is made where there is something to explain.
    """
    known = [name for name, row in rows.items() if not is_code(row)]
    code = [name for name in given if name in rows and name not in known]
    for name in code:
        words = f"{owner}.{name} takes a class or function, which a recipe cannot name"
        report.add((*path, name), words, REGISTER, got=given[name], key=True)
    for model, values in split({name: value for name, value in given.items() if name not in code}, rules):
        used = {n: rows[n] for n in known if n in values or (rows[n].get("required") and model is None)}
        if model is None and _fit(values, used, open_ended):
            continue
        model = model or model_of("Options", used, open_ended=open_ended)
        for variant in variants(values):
            try:
                model.model_validate(variant)
            except ValidationError as error:
                explain(error, variant, path, report, model, known=known, owner=owner, noun=noun)
