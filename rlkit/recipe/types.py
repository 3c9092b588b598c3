"""The types of arguments, as short text: `float | list[tuple[int, float]] | None`.

The generated table keeps an argument's annotation in this form. It is the part of Python's annotations that plain
data can have; what it cannot (`class`, `callable`) is a word of its own, so that an error can say what to use instead.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlkit.recipe.problems import Path, shown
from rlkit.recipe.spaces import SearchSpace

_TOKEN = re.compile(r"\s*('(?:[^'\\]|\\.)*'|[A-Za-z_]+|-?\d+|\.\.\.|[\[\],|])")
WORDS = {"any", "bool", "int", "float", "str", "None", "class", "callable", "list", "tuple", "dict"}
NOUNS = {
    "any": "any value",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "None": "null",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping (key: value)",
}


@dataclass(frozen=True)
class Type:
    """`name` is one of `WORDS`, "union" or "literal"; `args` are its members, item types or the literal's value."""

    name: str
    args: tuple[Any, ...] = ()


@functools.cache
def parse_type(text: str) -> Type:
    """Return the type a text stands for.

    Raises:
        ValueError: the text is not of the grammar.
    """
    tokens, end = [], 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            break
        tokens.append(match[1])
        end = match.end()
    if end != len(text.rstrip()):
        raise ValueError(f"not a type: {text!r}")
    result, rest = _union(tokens)
    if rest:
        raise ValueError(f"not a type: {text!r}")
    return result


def _union(tokens: list[str]) -> tuple[Type, list[str]]:
    members = []
    while True:
        member, tokens = _single(tokens)
        members.append(member)
        if not tokens or tokens[0] != "|":
            return (members[0] if len(members) == 1 else Type("union", tuple(members))), tokens
        tokens = tokens[1:]


def _single(tokens: list[str]) -> tuple[Type, list[str]]:
    if not tokens:
        raise ValueError("a type ends too early")
    word, tokens = tokens[0], tokens[1:]
    if word[0] == "'":
        return Type("literal", (word[1:-1],)), tokens
    if word.lstrip("-").isdigit():
        return Type("literal", (int(word),)), tokens
    if word not in WORDS:
        raise ValueError(f"unknown type {word!r}")
    args: list[Any] = []
    if tokens and tokens[0] == "[":
        tokens = tokens[1:]
        while tokens and tokens[0] != "]":
            if tokens[0] == "...":
                args, tokens = [*args, ...], tokens[1:]
            else:
                item, tokens = _union(tokens)
                args.append(item)
            if tokens and tokens[0] == ",":
                tokens = tokens[1:]
        if not tokens:
            raise ValueError("a type is not closed")
        tokens = tokens[1:]
    return Type(word, tuple(args)), tokens


def members(kind: Type) -> tuple[Type, ...]:
    """Return the members of a union, or the type itself as a 1-tuple."""
    return kind.args if kind.name == "union" else (kind,)


def expressible(kind: Type) -> bool:
    """False if only a class or a function fits (None aside): a recipe cannot hold those."""
    real = [m for m in members(kind) if m.name != "None"]
    return not real or any(
        m.name not in ("class", "callable") and all(map(_expressible, m.args)) for m in real
    )


def _expressible(kind: Any) -> bool:
    return not isinstance(kind, Type) or expressible(kind)


def noun(kind: Type) -> str:
    """Return the type in words: `a number, or null`."""
    parts = []
    for member in members(kind):
        if member.name == "literal":
            parts.append(shown(member.args[0]))
        elif member.name in ("list", "tuple") and member.args:
            parts.append(_list_noun(member))
        elif member.name in NOUNS:
            parts.append(NOUNS[member.name])
    parts = list(dict.fromkeys(parts))
    return (
        " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) if parts else "nothing"
    )


def _list_noun(kind: Type) -> str:
    if kind.name == "tuple" and ... not in kind.args:
        return f"a list of {len(kind.args)}"
    inner = kind.args[0]
    if isinstance(inner, Type) and inner.name in ("list", "tuple"):
        return "a schedule [[step, value], …]"
    plural = {"int": "whole numbers", "float": "numbers", "str": "words", "bool": "true or false"}
    return f"a list of {plural.get(inner.name, 'values')}" if isinstance(inner, Type) else "a list"


def mismatch(value: Any, kind: Type, path: Path = ()) -> tuple[Path, Type, Any] | None:
    """Return (path, expected type, value) of the deepest value that does not fit, or None if all fit.

    An int fits `float`; a bool fits neither; lists stand for tuples. A search space fits if its candidates do.
    """
    if isinstance(value, SearchSpace):
        for item in value.candidates():
            if found := mismatch(item, kind, path):
                return found
        return None
    if kind.name == "union":
        best: tuple[Path, Type, Any] | None = None
        for member in kind.args:
            found = mismatch(value, member, path)
            if found is None:
                return None
            if best is None or len(found[0]) > len(best[0]):
                best = found
        assert best is not None
        return best if len(best[0]) > len(path) else (path, kind, value)
    if kind.name == "literal":
        return None if type(value) is type(kind.args[0]) and value == kind.args[0] else (path, kind, value)
    if kind.name in ("list", "tuple") and isinstance(value, list | tuple):
        return _items(list(value), kind, path)
    if kind.name == "dict" and isinstance(value, Mapping):
        if len(kind.args) == 2:
            for key, item in value.items():
                if found := mismatch(item, kind.args[1], (*path, str(key))):
                    return found
        return None
    return None if _fits(value, kind.name) else (path, kind, value)


def shaped(value: Any, kind: Type) -> Any:
    """Return a list as a tuple where only a tuple fits: RLlib compares `n_step` with `isinstance(…, tuple)`."""
    if isinstance(value, list):
        fitting = [m.name for m in members(kind) if mismatch(value, m) is None]
        if "tuple" in fitting and "list" not in fitting:
            return tuple(value)
    return value


def _items(value: list[Any], kind: Type, path: Path) -> tuple[Path, Type, Any] | None:
    args = kind.args
    if kind.name == "tuple" and args and ... not in args:
        if len(args) != len(value):
            return path, kind, value
        pairs = list(zip(value, args, strict=True))
    else:
        pairs = [(item, args[0]) for item in value] if args else []
    for index, (item, item_kind) in enumerate(pairs):
        if found := mismatch(item, item_kind, (*path, index)):
            return found
    return None


def _fits(value: Any, name: str) -> bool:
    if name == "any":
        return True
    if name == "None":
        return value is None
    if name == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    classes: dict[str, Any] = {
        "bool": bool,
        "str": str,
        "dict": Mapping,
        "list": (list, tuple),
        "tuple": (list, tuple),
    }
    return isinstance(value, classes.get(name, ()))


def to_schema(kind: Type) -> dict[str, Any]:
    """Return the type as JSON Schema."""
    if kind.name == "union":
        real = [m for m in kind.args if m.name not in ("class", "callable")]
        literals = [m.args[0] for m in real if m.name == "literal"]
        rest = [to_schema(m) for m in real if m.name != "literal"]
        options = ([{"enum": literals}] if literals else []) + rest
        options = [o for i, o in enumerate(options) if o not in options[:i]]
        return options[0] if len(options) == 1 else {"anyOf": options} if options else {}
    if kind.name == "literal":
        return {"const": kind.args[0]}
    simple = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "None": "null"}
    if kind.name in simple:
        return {"type": simple[kind.name]}
    if kind.name in ("list", "tuple"):
        schema: dict[str, Any] = {"type": "array"}
        if kind.name == "tuple" and kind.args and ... not in kind.args:
            schema |= {"minItems": len(kind.args), "maxItems": len(kind.args)}
        elif kind.args:
            schema["items"] = to_schema(kind.args[0])
        return schema
    if kind.name == "dict":
        return {"type": "object"} | (
            {"additionalProperties": to_schema(kind.args[1])} if len(kind.args) == 2 else {}
        )
    return {}
