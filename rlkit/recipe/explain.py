"""pydantic's errors -> problems of a recipe, each with its path, what was got, and what to write instead."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rlkit.errors import did_you_mean
from rlkit.recipe.annotations import BOUNDS
from rlkit.recipe.problems import Path, Report, instead, shown
from rlkit.recipe.words import OLD_TOP_KEYS

_MAPPING, _SCHEDULE = "a mapping (key: value)", "a schedule [[step, value], …]"
_NOUNS = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "bool_type": "true or false", "string_type": "text", "dict_type": _MAPPING, "list_type": "a list",
    "tuple_type": "a list", "model_type": _MAPPING, "mapping_type": _MAPPING, "model_attributes_type": _MAPPING,
    "missing_item": "a list of another length", "too_long": "a list of another length",
}  # fmt: skip
_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "words", list: "lists"}
_RANGES = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_EXAMPLES = {
    "algorithm": "`algorithm: DQN`", "env": "`env: CartPole-v1`", "stop": "`stop: {env_steps: 50000}`",
    "agents": '`agents: ["agent_*"]`',
}  # fmt: skip
_NAME = (
    "a run name has letters, digits, '.', '_' and '-', begins with a letter or digit, and is at most 100 long"
)
_OTHER = {
    "finite_number": ("a finite number is expected", "write a number"),
    "string_pattern_mismatch": (_NAME, "it names a folder; choose a plain word"),
    "string_too_short": ("must not be empty", "fill it"),
    "too_short": ("must not be empty", "give at least one"),
}


def explain(
    error: ValidationError, values: Any, base: Path, report: Report, model: type[BaseModel], *,
    known: Iterable[str] | None = None, owner: str = "", noun: str = "key",
) -> None:  # fmt: skip
    """Report what was raised when a model was tried on values that stand at `base` in the recipe.

    `known` are the names that may stand at the top of the values (default: the model's fields), as `noun`s of `owner`.
    """
    unions: dict[Path, list[tuple[Path, Any]]] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "missing" and isinstance(item["loc"][-1], int):  # an item of a tuple
            item["type"], item["loc"] = "missing_item", item["loc"][:-1]
        union, path = _place(item, values)
        unions.setdefault(union, []).append((path, item))
    for found in unions.values():
        # each member of a union has its error; the one that came furthest tells what is wrong
        inner, item = max(found, key=lambda pair: (len(pair[0]), not _is_type(pair[1])))
        fields, field = _walk(model, inner)
        top = len(inner) == 1
        if item["type"] == "too_short" and report.has((*base, *inner)):
            continue
        path, kind, got = (*base, *inner), item["type"], item["input"]
        name = next((part for part in reversed(path) if isinstance(part, str)), "")
        if kind == "missing":
            _missing(path, owner, noun, report)
        elif kind == "extra_forbidden":
            names = known if top and known is not None else fields
            who = owner and (owner if top else str(inner[-2]))
            _unknown(path, who, noun if top else "key", names, report)
        elif kind == "literal_error" and path == ("policies",):
            fix = "write policies: shared, or name: {agents: [...]}"
            report.add(path, "policies is a mapping, or the word shared", fix, got=got)
        elif _is_type(item):
            nouns = [_NOUNS.get(kind) or item["ctx"]["expected"]]
            if top and field:
                nullable = owner and type(None) in typing.get_args(field.annotation)
                nouns = nouns_of(field.annotation) + ["null"] * bool(nullable)
            text = " or ".join([", ".join(nouns[:-1]), nouns[-1]] if len(nouns) > 1 else nouns)
            report.add(path, f"{text} is expected", got=got, fix=type_fix(nouns[0], got, name))
        elif kind == "literal_error":
            choices = re.findall(r"'([^']*)'", item["ctx"]["expected"])
            hint = did_you_mean(got, choices)
            report.add(path, f"unknown word for {name}{hint}", got=got, fix=instead(hint, choices))
        elif kind in _RANGES:
            words = range_of(field, _RANGES[kind], item["ctx"][_RANGES[kind]])
            least = re.fullmatch(r"at least (-?\d+)", words)
            fix = f"write {least[1]} or more" if least else f"write a number {words}"
            report.add(path, f"{name} is out of range: must be {words}", got=got, fix=fix)
        else:
            text, fix = _OTHER.get(kind, (str(item.get("ctx", {}).get("error", item["msg"])), ""))
            text, _, own = text.partition("; fix: ")
            report.add(path, text, got=got, fix=own or fix or "see docs/recipe.md")


def _is_type(item: Any) -> bool:
    return item["type"] in _NOUNS or (item["type"] == "literal_error" and not isinstance(item["input"], str))


def _place(item: Any, values: Any) -> tuple[Path, Path]:
    """Return the path of the outermost union that a location goes through (or all of it), and the path itself."""
    path: list[str | int] = []
    union: Path | None = None
    here = values
    for index, part in enumerate(item["loc"]):
        inside = isinstance(here, Mapping) and part in here
        if inside or (isinstance(here, list) and isinstance(part, int) and part < len(here)):
            here = here[part]
            path.append(part)
        elif item["type"] == "missing" and index == len(item["loc"]) - 1:
            path.append(part)
        elif union is None and not str(part).startswith(("[", "(")):  # a key's own error, a tagged member
            union = tuple(path)
    return (tuple(path) if union is None else union), tuple(path)


def _walk(model: type[BaseModel], inner: Path) -> tuple[list[str], FieldInfo | None]:
    """Return the field names of the deepest model on a path, and the last field on it."""
    field: FieldInfo | None = None
    for part in inner:
        found = {f.alias or name: f for name, f in model.model_fields.items()}.get(str(part))
        if found is not None:
            field = found
            model = next(_models(found.annotation), model)
    return [f.alias or name for name, f in model.model_fields.items()], field


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in typing.get_args(kind):
        yield from _models(part)


def nouns_of(kind: Any) -> list[str]:
    """Return the types that fit in words, null aside: `["a number", "a list of whole numbers"]`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return nouns_of(args[0])
    if origin in (typing.Union, types.UnionType):
        return list(dict.fromkeys(noun for arg in args if arg is not type(None) for noun in nouns_of(arg)))
    if origin is typing.Literal:
        return [shown(arg) for arg in args]
    if origin is tuple:
        return [f"a list of {len(args)}"]
    if origin is list:
        item = typing.get_args(args[0])[0] if typing.get_origin(args[0]) is typing.Annotated else args[0]
        item = typing.get_origin(item) or item
        plain = f"a list of {_PLURALS[item]}" if item in _PLURALS else "a list"
        return [_SCHEDULE if item is tuple else plain]
    return [_WORDS.get(origin or kind, _MAPPING)]


def range_of(field: FieldInfo | None, name: str, limit: float) -> str:
    """Return the range in which a bound stands: `between 0 and 1` for the bound `le` 1."""
    for bounds in _bounds(field.annotation, field.metadata) if field else ():
        if bounds.get(name) == limit:
            if set(bounds) == {"ge", "le"}:
                return f"between {bounds['ge']:.12g} and {bounds['le']:.12g}"
            return " and ".join(f"{_BOUNDS[key]} {value:.12g}" for key, value in bounds.items())
    return f"{_BOUNDS[name]} {limit:g}"


def _bounds(kind: Any, metadata: Iterable[Any] = ()) -> Iterator[dict[str, float]]:
    """Yield the bounds at every level of an annotation."""
    flat = [part for item in metadata for part in getattr(item, "metadata", [item])]
    yield {name: getattr(item, name) for item in flat for name in BOUNDS if hasattr(item, name)}
    args = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Annotated:
        yield from _bounds(args[0], args[1:])
    else:
        for arg in args:
            yield from _bounds(arg)


def _missing(path: Path, owner: str, noun: str, report: Report) -> None:
    if path in report.keys:  # it is there, and already reported
        return
    key = path[-1]
    message = f"the key {key!r} is missing" + (": a run without it never ends" if path == ("stop",) else "")
    message = f"{owner} needs the {noun} {key!r}" if owner else message
    fix = f"add {_EXAMPLES.get(str(key), f'{key}: …')}"
    report.add(path[:-1], message, fix, key=noun != "option")


def _unknown(path: Path, owner: str, noun: str, known: Iterable[str], report: Report) -> None:
    key = str(path[-1])
    if len(path) == 1 and key in OLD_TOP_KEYS:
        report.add(path, f"{key!r} is not a key of a recipe", OLD_TOP_KEYS[key], key=True)
        return
    head, colon, value = key.partition(":")
    if colon and head in (known := list(known)):
        report.add(
            path,
            f"{key!r} is one word to YAML",
            f"write {head}: {value} with a space after the colon",
            key=True,
        )
        return
    hint = did_you_mean(key, known)
    message = f"{owner} has no {noun} {key!r}{hint}" if owner else f"unknown key {key!r}{hint}"
    report.add(path, message, instead(hint, known), key=True)


def type_fix(noun: str, got: Any, key: str) -> str:
    """Return what to write when a value has the wrong type."""
    if isinstance(got, str):
        text = got.strip()
        if noun.endswith("number") and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
            return f"remove the quotes: {key}: {text}"
        if noun == "true or false" and text.lower() in ("true", "false"):
            return f"remove the quotes: {key}: {text.lower()}"
        if noun == _MAPPING and ":" in text:
            head, _, tail = text.partition(":")
            return f"write {head.strip()}: {tail.strip()} on a line of its own below, with a space after the colon"
    if isinstance(got, float) and noun == "a whole number" and got.is_integer():
        return f"write {int(got)}"
    if isinstance(got, bool) and noun.endswith("number"):
        return "write 1 or 0 if that is meant"
    if noun == "text" and got is not None and not isinstance(got, list | dict):
        return f"quote it: '{got}'"
    if noun.startswith("a list") and not isinstance(got, list | dict | type(None)):
        return f"write [{got}]"
    return f"write {noun}"
