"""`config.training.lr=3e-4` on the command line, or `{"config.training.lr": 3e-4}` in Python, put into a recipe."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rlkit.recipe.problems import Mark, Path, RecipeError, Report, Unusable, dotted, shown
from rlkit.recipe.scalars import needs_quotes
from rlkit.recipe.spaces import SearchSpace
from rlkit.recipe.tree import MAX_DEPTH, MAX_NODES, Node, Reader, compose

COMMAND_LINE = "command line"
PLAIN = "give plain data: text, numbers, true or false, lists, mappings"
ITERATIONS = ("iteration", "iterations")  # two spellings of one stop key
_PART = re.compile(r"([^.\[\]]+)((?:\[[0-9]{1,9}\])*)")
Overrides = Sequence[str] | Mapping[str, Any]


def apply(root: Node, overrides: Overrides, report: Report) -> None:
    """Put overrides into a node tree. A null removes a section; a mapping or list replaces what stands there."""
    if isinstance(overrides, Mapping):
        mark = Mark("overrides")
        for key, value in overrides.items():
            path = parse_path(key, mark, report)
            try:
                if path is not None:
                    _set(root, path, to_node(value, mark), mark, report)
            except TypeError as error:
                report.at(mark, path or (), str(error), PLAIN)
        return
    mark = Mark(COMMAND_LINE)
    for word in [overrides] if isinstance(overrides, str) else overrides:
        key, equals, text = str(word).partition("=")
        if not equals:
            fix = "write config.training.lr=3e-4"
            report.at(mark, (), "an override is KEY=VALUE", fix, got=shown(str(word)))
            continue
        path = parse_path(key.strip(), mark, report)
        if not text.strip():  # an unset variable of the shell
            fix = f"write {key.strip()}=null to leave it out, or {key.strip()}=VALUE"
            report.at(mark, path or (), "nothing stands behind the =", fix)
            continue
        node = _value(text, path or (), report)
        if path is not None and node is not None:
            _set(root, path, node, mark, report)


def changed(values: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Return the plain data of a recipe with overrides put into it.

    Raises:
        RecipeError: an override that is none, or `values` are not plain data.
    """
    report, mark = Report("recipe"), Mark("recipe")
    found: dict[str, Any] = {}
    try:
        root = to_node(values, mark)
        apply(root, overrides, report)
        found = Reader(report).read(root)
    except TypeError as error:
        report.at(mark, (), str(error), PLAIN)
    except Unusable:
        pass
    if report.problems:
        raise RecipeError(report.problems)
    return found


def parse_path(text: str, mark: Mark, report: Report) -> Path | None:
    """Return the path of `callbacks[0].name` or `callbacks.0.name`; None after reporting that it is none."""
    parts: list[str | int] = []
    if text.count(".") + text.count("[") > MAX_DEPTH:
        report.at(mark, (), f"a key of more than {MAX_DEPTH} parts", "check the key", got=shown(text))
        return None
    for piece in text.split("."):
        match = _PART.fullmatch(piece)
        if match is None:
            fix = "write dotted keys such as config.training.lr=3e-4"
            report.at(mark, (), "not a key", fix, got=shown(text))
            return None
        parts.append(match[1])
        parts.extend(int(index) for index in re.findall(r"\d+", match[2])[:MAX_DEPTH])
    return tuple(parts)


def _value(text: str, path: Path, report: Report) -> Node | None:
    """Return the node of a value given on the command line."""
    place, inner = Mark(COMMAND_LINE), Report(COMMAND_LINE)
    try:
        node = compose(text, COMMAND_LINE, inner)
    except Unusable:
        for problem in inner.problems:
            report.at(place, path, problem.message, problem.fix)
        return None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        message = f"the value cannot be read ({getattr(error, 'problem', None) or 'not a YAML value'})"
        report.at(place, path, message, f"quote it: {dotted(path)}=\"'…'\"", got=shown(text))
        return None
    if node is None:
        fix = f"quote it: {dotted(path)}=\"'…'\", or write null to leave it out"
        report.at(
            place,
            path,
            "the value is a comment of YAML, so nothing stands behind the =",
            fix,
            got=shown(text),
        )
        return None
    return _relocate(node, place, set())


def _relocate(node: Node, mark: Mark, seen: set[int]) -> Node:
    if id(node) not in seen:
        seen.add(id(node))
        node.mark = mark
        for item in node.value if node.kind != "scalar" else ():
            for child in item if isinstance(item, tuple) else (item,):
                _relocate(child, mark, seen)
    return node


def place(part: str | int) -> int:
    """Return the place in a list that a part of a key names, -1 where it names none."""
    if isinstance(part, int):
        return part
    return int(part) if part.isascii() and part.isdigit() and len(part) < 10 else -1


def _set(root: Node, path: Path, value: Node, mark: Mark, report: Report) -> None:
    here = root
    for depth, part in enumerate(path):
        last, above = depth == len(path) - 1, dotted(path[:depth])
        if here.kind == "list":
            index = place(part)
            if not 0 <= index < len(here.value):
                known = f"0 to {len(here.value) - 1}" if here.value else "none: the list is empty"
                report.at(mark, path, f"{above} has no item {part}", f"items are {known}")
                return
            here.value[index] = value if last else _copy(here.value[index])
            here = here.value[index]
            continue
        if here.kind == "scalar" and here.plain and here.value in ("", "null", "~"):
            here.kind, here.value = "map", []
        if here.kind != "map" or isinstance(part, int):
            what = "a mapping" if here.kind == "map" else f"the value {shown(here.value)}"
            report.at(mark, path, f"{above or 'the recipe'} is {what}; it has no {part}", "check the key")
            return
        same = ITERATIONS if path[:1] == ("stop",) and part in ITERATIONS else (part,)
        keys = [key.value if key.kind == "scalar" else None for key, _ in here.value]
        found = next((index for index, key in enumerate(keys) if key in same), None)
        if last and _is_null(value) and _is_section(path):
            here.value = [item for index, item in enumerate(here.value) if index != found]
        elif last and found is not None:
            here.value[found] = (_key(part, mark), value)
        elif last:
            here.value.append((_key(part, mark), value))
        elif found is None:
            here.value.append((_key(part, mark), Node("map", mark, [])))
            here = here.value[-1][1]
        else:
            key, node = here.value[found]
            here.value[found] = (key, _copy(node))
            here = here.value[found][1]


def _copy(node: Node) -> Node:
    """A shallow copy, so that an override below an alias does not change the anchor as well."""
    value = list(node.value) if node.kind != "scalar" else node.value
    return Node(node.kind, node.mark, value, node.tag, node.plain, closed=True)


def _key(text: str | int, mark: Mark) -> Node:
    return Node("scalar", mark, str(text), plain=not needs_quotes(str(text)), closed=True)


def _is_section(path: Path) -> bool:
    return (len(path) == 1 and path != ("seed",)) or (len(path) == 2 and path[0] == "config")


def _is_null(node: Node) -> bool:
    return node.kind == "scalar" and node.plain and node.value in ("", "~", "null", "Null", "NULL")


def to_node(value: Any, mark: Mark, depth: int = 0) -> Node:
    """Return the node tree of plain data.

    Raises:
        TypeError: something in it is not plain data, or it is too deep.
    """
    if depth > MAX_DEPTH:
        raise TypeError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping | list | tuple) and len(value) > MAX_NODES:
        raise TypeError(f"more than {MAX_NODES} values")
    if isinstance(value, SearchSpace):
        items = [to_node(item, mark, depth + 1) for item in value.args]
        return Node("list", mark, items, f"!{value.kind}", closed=True)
    if isinstance(value, Mapping):
        pairs = []
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key must be text, got {key!r}")
            pairs.append((Node("scalar", mark, key, closed=True), to_node(item, mark, depth + 1)))
        return Node("map", mark, pairs, closed=True)
    if isinstance(value, list | tuple):
        return Node("list", mark, [to_node(item, mark, depth + 1) for item in value], closed=True)
    if isinstance(value, str):
        return Node("scalar", mark, str(value), closed=True)
    return Node("scalar", mark, _plain(value), plain=True, closed=True)


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return str(bool(value)).lower()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        number = float(value)
        return repr(number) if math.isfinite(number) else ".nan" if math.isnan(number) else ".inf"
    raise TypeError(f"{type(value).__name__} is not plain data")
