"""Signatures -> rows of the table: an argument's type as text, its default, its range, and whether it must be given.

Used by scripts/generate_signatures.py for what the registry names, and while checking for what a user registered.
A row's `type` is an annotation in the words of `rlkit.recipe.options`; `code` is what plain data cannot be.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

CODE = "code"
BOUNDS = ("gt", "ge", "lt", "le")
# Parameters that rlkit fills in, not the recipe.
GIVEN = frozenset({
    "self", "config", "observation_space", "action_space", "spaces", "env", "inference_only", "learner_only",
    "catalog_class", "model_config", "rng", "algorithm",
})  # fmt: skip
_POINTS = re.compile(r"list\[(list\[|tuple\[(int|float), )(int \| )?float\]\]")


def type_text(annotation: Any) -> str:
    """Return an annotation as text; a class or a function is `code`, and left out where something else fits too."""
    if annotation is inspect.Parameter.empty or annotation is Any or isinstance(annotation, typing.TypeVar):
        return "any"
    if annotation is None or annotation is type(None):
        return "None"
    if annotation in (bool, int, float, str):
        return str(annotation.__name__)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _union([type_text(arg) for arg in args])
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin is typing.Annotated:
        return type_text(args[0])
    base = origin or annotation
    if not isinstance(base, type) or base is collections.abc.Callable:
        return CODE
    if issubclass(base, enum.Enum):
        values = ", ".join(repr(member.value) for member in base)
        return f"Literal[{values}]" if issubclass(base, str) else CODE
    inner = ["..." if arg is ... else type_text(arg) for arg in args]
    if CODE in inner:
        return CODE
    if base is tuple:
        return f"tuple[{', '.join(inner)}]" if inner else "list"
    if issubclass(base, collections.abc.Mapping):
        return f"dict[{', '.join(inner)}]" if len(inner) == 2 else "dict"
    if issubclass(base, collections.abc.Iterable) and base.__module__ in ("builtins", "collections.abc"):
        text = f"list[{inner[0]}]" if inner else "list"
        return "schedule" if _POINTS.fullmatch(text) else text
    return CODE


def _union(parts: list[str]) -> str:
    """Join the members, null last."""
    if "any" in parts:
        return "any"
    plain = list(dict.fromkeys(part for part in parts if part not in (CODE, "None")))
    return " | ".join([*(plain or [CODE]), *(["None"] if "None" in parts else [])])


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the evaluated annotations of a function or class; those that need a missing import are left out."""
    target = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    target = getattr(target, "func", target)
    scope: dict[str, Any] = dict(vars(typing)) | getattr(target, "__globals__", {})
    scope |= {"Mapping": Mapping, "Sequence": collections.abc.Sequence, "Callable": Callable}
    hints: dict[str, Any] = {}
    for name, annotation in getattr(target, "__annotations__", {}).items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(one, scope, include_extras=True)
        except Exception:  # a name that is imported for type checkers alone
            if not isinstance(annotation, str):
                hints[name] = annotation
    return hints


def plain(value: Any) -> bool:
    """True if a value is JSON-able and finite as it stands."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    return value is None or (isinstance(value, bool | int | str) and not isinstance(value, enum.Enum))


def options_of(function: Callable[..., Any], given: frozenset[str] = GIVEN) -> dict[str, Any]:
    """Return `{"arguments": {name: row}, "open": bool}` of a registered class or function.

    A row has `type`, `default` or `required`, and the bounds of `Annotated[float, Field(ge=0)]`; `open` says that any
    further keyword is accepted.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {"arguments": {}, "open": True}
    hints = hints_of(function)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [p for p in parameters if p.kind in kinds and p.name not in given]
    rows = {p.name: _row(p, hints.get(p.name, inspect.Parameter.empty)) for p in named}
    return {"arguments": rows, "open": any(p.kind is p.VAR_KEYWORD for p in parameters)}


def _row(parameter: inspect.Parameter, hint: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"type": type_text(hint)}
    if parameter.default is inspect.Parameter.empty:
        row["required"] = True
    elif plain(parameter.default):
        row["default"] = parameter.default
        if parameter.default is None and row["type"] != "any" and "None" not in row["type"]:
            row["type"] += " | None"
    for item in getattr(hint, "__metadata__", ()):
        for bound in getattr(item, "metadata", [item]):
            row |= {name: getattr(bound, name) for name in BOUNDS if hasattr(bound, name)}
    return row
