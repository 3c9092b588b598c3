"""Signatures -> rows of the table: an argument's type as text, its default, and whether it must be given.

Used by scripts/generate_signatures.py for what the registry names, and while checking for what a user registered.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

# Parameters that rlkit fills in, not the recipe.
GIVEN = frozenset(
    {
        "self", "config", "observation_space", "action_space", "spaces", "env", "inference_only", "learner_only",
        "catalog_class", "model_config", "rng", "algorithm",
    }
)  # fmt: skip
_LISTS = (
    list,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_DEPRECATED = -1  # ray.rllib.utils.deprecation.DEPRECATED_VALUE


def type_text(annotation: Any) -> str:
    """Return an annotation as the text of `rlkit.recipe.types`; what plain data cannot be is `class` or `callable`."""
    if annotation is inspect.Parameter.empty or annotation is Any or isinstance(annotation, typing.TypeVar):
        return "any"
    if annotation is None or annotation is type(None):
        return "None"
    if annotation in (bool, int, float, str):
        return str(annotation.__name__)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = list(dict.fromkeys(type_text(arg) for arg in args))
        return "any" if "any" in parts else " | ".join(sorted(parts, key=lambda part: part == "None"))
    if origin is typing.Literal:
        return " | ".join(
            repr(arg) if isinstance(arg, str) else "None" if arg is None else str(arg) for arg in args
        )
    if origin is typing.Annotated:
        return type_text(args[0])
    base = origin or annotation
    if base is tuple:
        return f"tuple[{', '.join('...' if a is ... else type_text(a) for a in args)}]" if args else "list"
    if base in _LISTS:
        return f"list[{type_text(args[0])}]" if args else "list"
    if base in _DICTS:
        return f"dict[{type_text(args[0])}, {type_text(args[1])}]" if len(args) == 2 else "dict"
    if base is collections.abc.Callable:
        return "callable"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum) and issubclass(annotation, str):
        return " | ".join(repr(member.value) for member in annotation)
    return "class"


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the evaluated annotations of a function or class; those that need a missing import are left out."""
    target = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    target = getattr(target, "func", target)
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:
        return _hints_one_by_one(target)


def _hints_one_by_one(target: Any) -> dict[str, Any]:
    """Evaluate annotations separately: names imported for type checkers alone make only their own unknown."""
    scope: dict[str, Any] = dict(vars(typing)) | getattr(target, "__globals__", {})
    scope |= {"Mapping": Mapping, "Sequence": collections.abc.Sequence, "Callable": Callable}
    hints: dict[str, Any] = {}
    for name, annotation in getattr(target, "__annotations__", {}).items():
        if isinstance(annotation, str):
            try:
                annotation = typing.get_type_hints(
                    types.SimpleNamespace(__annotations__={name: annotation}), scope
                )[name]
            except Exception:
                continue
        hints[name] = annotation
    return hints


def plain(value: Any) -> bool:
    """True if a value is JSON-able and finite as it stands."""
    if value is None or isinstance(value, bool | int | str):
        return not isinstance(value, enum.Enum)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return isinstance(value, dict) and all(
        isinstance(key, str) and plain(item) for key, item in value.items()
    )


def options_of(function: Callable[..., Any], given: frozenset[str] = GIVEN) -> dict[str, Any]:
    """Return `{"arguments": {name: row}, "open": bool}` of a registered class or function.

    A row has `type`, and `default` or `required`; `open` says that any further keyword is accepted.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {"arguments": {}, "open": True}
    hints = hints_of(function)
    rows: dict[str, Any] = {}
    open_ended = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif (
            parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in given
        ):
            rows[parameter.name] = _row(parameter, hints)
    return {"arguments": rows, "open": open_ended}


def _row(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"type": type_text(hints.get(parameter.name, inspect.Parameter.empty))}
    if parameter.default is inspect.Parameter.empty:
        row["required"] = True
    elif plain(parameter.default):
        row["default"] = parameter.default
        if parameter.default is None and row["type"] not in ("any", "None") and "None" not in row["type"]:
            row["type"] += " | None"
    return row


def method_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the same of an AlgorithmConfig method; a row has `type`, and `deprecated` where that is so."""
    hints = hints_of(function)
    rows: dict[str, Any] = {}
    open_ended = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.name != "self":
            row: dict[str, Any] = {"type": type_text(hints.get(parameter.name, inspect.Parameter.empty))}
            if type(parameter.default) is int and parameter.default == _DEPRECATED:
                row["deprecated"] = True
            rows[parameter.name] = row
    return {"arguments": rows, "open": open_ended}
