"""YAML text -> nodes with line numbers -> plain data. Nothing in a recipe can construct an object.

The nodes are built from PyYAML's event stream, not by a PyYAML loader: depth and size are bounded while reading, a
duplicate key is an error that names both lines, and the only tags are those of the search spaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from rlkit.recipe.problems import BROKEN, MISSING, Mark, Path, Report, Unusable, shown
from rlkit.recipe.scalars import BadScalar, read_scalar
from rlkit.recipe.spaces import KINDS, SearchSpace, space_error

MAX_DEPTH = 32
MAX_NODES = 10_000
CORE = "tag:yaml.org,2002:"
PLAIN_TAGS = {"!", *(CORE + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq"))}
_EVENTS: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Node:
    """One YAML node. `value` is text, a list of nodes, or a list of (key, value) nodes."""

    kind: str  # "scalar", "list" or "map"
    mark: Mark
    value: Any
    tag: str | None = None
    plain: bool = False
    closed: bool = field(default=False, repr=False)


def compose(text: str, file: str, report: Report) -> Node | None:
    """Return the node tree of a single YAML document; None if the text holds none.

    Raises:
        Unusable: too deep, too large, a recursive alias, a second document; the report has the problem.
        yaml.YAMLError: a syntax error.
    """
    return _Composer(file, report).run(yaml.parse(text, Loader=_EVENTS))


class _Composer:
    def __init__(self, file: str, report: Report):
        self.file, self.report = file, report
        self.root: Node | None = None
        self.open: list[Node] = []
        self.keys: list[Node | None] = []  # the key that waits for its value, per open node
        self.anchors: dict[str, Node] = {}
        self.count = 0

    def run(self, events: Iterator[Any]) -> Node | None:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
                fix = "keep one recipe per file; remove the line `---`"
                self.stop(event, "a second document starts here", fix)
            elif isinstance(event, yaml.AliasEvent):
                self.add(self.aliased(event))
            elif isinstance(event, yaml.ScalarEvent):
                plain = not event.style and event.implicit[0]
                node = Node("scalar", self.mark(event), event.value, event.tag, plain, closed=True)
                self.start(event, node)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
                self.start(event, Node(kind, self.mark(event), [], event.tag))
                if len(self.open) > MAX_DEPTH:
                    self.stop(event, f"nested deeper than {MAX_DEPTH} levels", "flatten the recipe")
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                self.open.pop().closed = True
                self.keys.pop()
        return self.root

    def mark(self, event: Any) -> Mark:
        return Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def stop(self, event: Any, message: str, fix: str) -> NoReturn:
        self.report.at(self.mark(event), (), message, fix)
        raise Unusable

    def aliased(self, event: Any) -> Node:
        node = self.anchors.get(event.anchor)
        if node is None:
            fix = f"define it first with &{event.anchor}"
            self.stop(event, f"*{event.anchor} refers to nothing above", fix)
        if not node.closed:
            self.stop(event, f"*{event.anchor} stands inside what it refers to", "remove the recursive alias")
        return node

    def start(self, event: Any, node: Node) -> None:
        self.count += 1
        if self.count > MAX_NODES:
            self.stop(event, f"more than {MAX_NODES} values", "shorten the recipe")
        self.add(node)
        if event.anchor:
            self.anchors[event.anchor] = node
        if not node.closed:
            self.open.append(node)
            self.keys.append(None)

    def add(self, node: Node) -> None:
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        if parent.kind == "list":
            parent.value.append(node)
        elif self.keys[-1] is None:
            self.keys[-1] = node
        else:
            parent.value.append((self.keys[-1], node))
            self.keys[-1] = None


class Reader:
    """Turns nodes into plain data; fills the report with places and problems."""

    def __init__(self, report: Report):
        self.report = report
        self.count = 0

    def read(self, node: Node, path: Path = ()) -> Any:
        """Return the data of a node: dict, list, str, int, float, bool, None, SearchSpace or BROKEN.

        Raises:
            Unusable: aliases expand to more than `MAX_NODES` values or `MAX_DEPTH` levels.
        """
        self.count += 1
        if self.count > MAX_NODES:
            mark = self.report.place(path[:2], key=True)
            message = f"aliases expand to more than {MAX_NODES} values"
            self.report.at(mark, path[:2], message, "write the values out")
            raise Unusable
        if len(path) > MAX_DEPTH:
            self.report.at(node.mark, (), f"nested deeper than {MAX_DEPTH} levels", "flatten the recipe")
            raise Unusable
        self.report.values.setdefault(path, node.mark)
        if node.tag is not None and node.tag not in PLAIN_TAGS:
            return self._tagged(node, path, node.tag)
        if node.kind == "scalar":
            return self._scalar(node, path)
        if node.kind == "list":
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _scalar(self, node: Node, path: Path) -> Any:
        tag = (node.tag or "!").removeprefix(CORE)
        if (not node.plain and tag == "!") or tag == "str":
            return node.value
        value = read_scalar(node.value)
        if isinstance(value, BadScalar):
            self.report.at(node.mark, path, value.message, value.fix)
            return BROKEN
        kinds: dict[str, Any] = {"int": {int}, "float": {int, float}, "bool": {bool}, "null": {type(None)}}
        if tag in ("map", "seq") or type(value) not in kinds.get(tag, {type(value)}):
            got = shown(node.value)
            self.report.at(node.mark, path, f"!!{tag} does not fit this value", "remove the tag", got=got)
            return BROKEN
        return float(value) if tag == "float" else value

    def _tagged(self, node: Node, path: Path, tag: str) -> Any:
        kind = tag.removeprefix("!")
        if tag.startswith("!") and kind in KINDS:
            items = node.value if node.kind == "scalar" else BROKEN
            if node.kind == "list":
                items = [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
            return self.space(kind, items, path)
        name = "!!" + tag.removeprefix(CORE) if tag.startswith(CORE) else tag
        message = f"unknown tag {name}"
        fix = f"use one of {', '.join('!' + k for k in KINDS)}, or remove the tag"
        if "python" in tag:
            message = f"the tag {name} would run code"
            fix = "remove the tag; recipes are data and nothing in them is executed"
        self.report.at(node.mark, path, message, fix)
        return BROKEN

    def space(self, kind: str, items: Any, path: Path) -> Any:
        """Return a SearchSpace, or report what is wrong with it."""
        if isinstance(items, list) and self.report.has(path):
            return BROKEN
        if error := space_error(kind, items):
            self.report.add(path, *error, got=MISSING if items is BROKEN else items)
            return BROKEN
        return SearchSpace(kind, tuple(items))

    def _mapping(self, node: Node, path: Path) -> Any:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            here = (*path, key)
            if key in data:
                line = self.report.keys[here].line
                message = f"the key {key!r} stands here twice, first {f'on line {line}' if line else 'above'}"
                self.report.at(key_node.mark, here, message, "remove one of the two")
                continue
            self.report.keys[here] = key_node.mark
            data[key] = self.read(value_node, here)
        if set(data) == {"grid_search"} and path:
            return self.space("grid", data["grid_search"], path)
        return data

    def _key(self, node: Node, path: Path) -> str | None:
        """Return the key's text, or None after reporting why it cannot be a key."""
        if node.kind != "scalar" or (node.tag or "!").removeprefix(CORE) not in ("!", "str"):
            got = shown(node.value) if node.kind == "scalar" else f"a {node.kind}"
            self.report.at(node.mark, path, "a key must be a word", "write a word before the colon", got=got)
            return None
        value = read_scalar(node.value) if node.plain else node.value
        quoted = f"quote it: '{node.value}'"
        if node.plain and node.value == "<<":
            self.report.at(node.mark, path, "merge keys (<<) are not supported", "write the keys out")
        elif value is None:
            self.report.at(node.mark, path, "a key is empty or null", "write a word before the colon")
        elif isinstance(value, BadScalar):
            self.report.at(node.mark, path, f"this key is not a plain word: {value.message}", quoted)
        elif not isinstance(value, str):
            self.report.at(node.mark, path, "a key must be text", quoted, got=shown(value))
        else:
            return value
        return None
