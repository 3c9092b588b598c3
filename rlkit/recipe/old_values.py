"""What the text of a script says of a value: the value, or why only a run of the script knows it."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlkit.recipe.spaces import SearchSpace
from rlkit.recipe.words import AGENTS

MAX_VALUES = 100_000
LONG = 1000  # letters of a text or items of a list that are added up
INSTEAD = {  # objects that a recipe writes as data
    "policies": f"{AGENTS}, docs/recipe.md",
    "policy_mapping_fn": f"{AGENTS}, docs/recipe.md",
    "scheduler": "tune: {scheduler: {type: asha}}, or median, hyperband, pbt with their options, docs/recipe.md",
    "search_alg": "tune: {search: {type: optuna}}, docs/recipe.md",
}
RUNS = "known only when the script runs"
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip

COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Unread:
    """A value that the text does not tell.

    Attributes:
        line: where it is written.
        text: what is written, or the values it may have.
        why: what would tell it.
    """

    line: int
    text: str
    why: str = RUNS

    def note(self, name: str) -> str:
        """Return the line for the user."""
        key = name.rpartition(".")[2]
        end = f"write {INSTEAD[key]}" if key in INSTEAD else "left out"
        return f"line {self.line}: {name} is {self.text}, {self.why}; {end}"


NOT_SET = Unread(0, "not set", "")


def unread(node: ast.AST, why: str = RUNS) -> Unread:
    """Return the unread value of an expression."""
    text = " ".join(ast.unparse(node).split())
    return Unread(getattr(node, "lineno", 0), text if len(text) <= 60 else f"{text[:59]}…", why)


class Table(dict[Any, Any]):
    """A dict of the script, shared by all its names as in Python.

    Attributes:
        inside: the branches and loops it was made in.
        lost: notes on what was written to it and cannot be read.
        taken: it became an experiment, or a part of one.
    """

    def __init__(self, values: Mapping[Any, Any] | None = None, inside: tuple[int, ...] = ()):
        super().__init__(values or {})
        self.inside = inside
        self.lost: list[str] = []
        self.taken = False

    def take(self, other: Table) -> None:
        """Take over the values of another, and what it lost."""
        self.update(other)
        self.lost += other.lost


class Draft(Table):
    """An `XConfig()`: its options by their names in the old flat config, `env` among them.

    Attributes:
        algorithm: `X`, or "" where only a run knows it.
        line: where it is made.
        sure: `X` is an algorithm, or a method of AlgorithmConfig was called.
        built: an algorithm was made of it.
        origin: what it is a copy of, and that one's content then.
    """

    def __init__(self, algorithm: str, line: int, sure: bool, inside: tuple[int, ...]):
        super().__init__({}, inside)
        self.algorithm, self.line, self.sure, self.built = algorithm, line, sure, False
        self.origin: tuple[Draft, dict[Any, Any]] | None = None


class Part(Table):
    """A `RunConfig(…)`, `TuneConfig(…)`, `CheckpointConfig(…)` or `FailureConfig(…)`."""

    def __init__(self, values: Table, name: str, line: int):
        super().__init__({}, values.inside)
        self.take(values)
        self.name, self.line = name, line


@dataclass(eq=False, repr=False)
class Function:
    """A function of the script, the scopes that it sees, and the script's names where it is defined."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    scopes: list[dict[str, Any]]
    inside: tuple[int, ...]
    seen: dict[str, Any]
    called: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Function:
        return self


@dataclass
class Run:
    """An experiment that the script begins: the config at that moment, its limits, and what stands beside it.

    Attributes:
        unknown: notes on what the config leaves open.
        notes: those, and the ones on what stands beside it.
    """

    line: int
    algorithm: str
    config: dict[str, Any] = field(default_factory=dict)
    stop: dict[str, Any] = field(default_factory=dict)
    around: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compared(node: ast.Compare, left: Any, right: Any) -> Any:
    """Return what one comparison of two known numbers or texts says, else an unread value."""
    kind = type(node.ops[0])
    numbers = all(isinstance(x, int | float) for x in (left, right))
    texts = isinstance(left, str) and isinstance(right, str)
    known = len(node.ops) == 1 and kind in COMPARISONS and (numbers or texts)
    return COMPARISONS[kind](left, right) if known else unread(node)


def arithmetic(node: ast.AST, kind: type[ast.operator], left: Any, right: Any) -> Any:
    """Return `left kind right` of two known numbers, texts or lists, else an unread value."""
    numbers = all(isinstance(x, int | float) and abs(x) < 1e12 for x in (left, right))
    texts = isinstance(left, str) and isinstance(right, str) and len(left) + len(right) < LONG
    lists = isinstance(left, list) and isinstance(right, list) and len(left) + len(right) < LONG
    if kind not in OPERATORS or not (numbers or ((texts or lists) and kind is ast.Add)):
        return unread(node)
    if kind is ast.Pow and (abs(right) > 64 or left < 0):
        return unread(node)
    try:
        return OPERATORS[kind](left, right)
    except ArithmeticError:
        return unread(node)


def number(node: ast.AST, kind: str, value: Any) -> Any:
    """Return `int(value)` or `float(value)` of a known number, else an unread value."""
    if isinstance(value, int | float) and math.isfinite(value):
        return int(value) if kind == "int" else float(value)
    return unread(node)


def same(left: Any, right: Any, depth: int = 2) -> bool:
    """True where two values are one object, or equal numbers, texts or lists of such."""
    if left is right:
        return True
    if depth and isinstance(left, list) and isinstance(right, list) and len(left) == len(right) < LONG:
        return all(same(a, b, depth - 1) for a, b in zip(left, right, strict=True))
    simple = int | float | str | bool | Unread | SearchSpace | None
    return isinstance(left, simple) and type(left) is type(right) and left == right


def either(line: int, old: Any, new: Any, why: str) -> Any:
    """Return what two branches leave: their common value, or an unread one that names both."""
    if same(old, new):
        return new
    if isinstance(old, Unread) and old.why == why:
        words = [old.text] if shown(new) in old.text.split(" or ") else [old.text, shown(new)]
        return Unread(line, " or ".join(words), why)
    first, second = (new, old) if old is NOT_SET else (old, new)
    return Unread(line, f"{shown(first)} or {shown(second)}", why)


def shown(value: Any) -> str:
    """Return a value in a few words."""
    if isinstance(value, Unread):
        return value.text
    if isinstance(value, Draft):
        return f"a config of {value.algorithm}" if value.algorithm else "a config"
    if isinstance(value, Table | Function):
        return "a dict" if isinstance(value, Table) else f"the function {value.node.name}"
    if isinstance(value, list):
        words = [shown(item) if not isinstance(item, list) else "[…]" for item in value[:9]]
        return f"[{', '.join(words)}]"[:60]
    return str(value)[:60] if isinstance(value, SearchSpace) else repr(value)[:60]


class Plain:
    """Tables as plain data; what is unread becomes a note under its name."""

    def __init__(self, spent: list[int]) -> None:
        self.notes: list[str] = []
        self.spent = spent  # one counter for all the tables of a script

    def table(self, values: Table, above: str = "") -> dict[str, Any]:
        """Return what is known of a table.

        Raises:
            ValueError: more values than any configuration has.
        """
        found: dict[str, Any] = {}
        self._say(values.lost)
        for key, value in values.items():
            name = f"{above}{key}"
            if missing := self._unread(value):
                self._say([missing.note(name)])
            elif isinstance(value, Table):
                found[str(key)] = self.table(value, f"{name}.")
            else:
                found[str(key)] = self._copy(value, name)
        return found

    def _copy(self, value: Any, name: str) -> Any:
        if isinstance(value, Table):
            return self.table(value, f"{name}.")
        return [self._copy(item, name) for item in value] if isinstance(value, list) else value

    def _unread(self, value: Any) -> Unread | None:
        """The first unread value in a list, or in lists of it."""
        self.spent[0] += 1
        if self.spent[0] > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values")
        if isinstance(value, list):
            return next((found for item in value if (found := self._unread(item))), None)
        if isinstance(value, Function):
            return Unread(value.node.lineno, shown(value), "which is no plain data")
        return value if isinstance(value, Unread) else None

    def _say(self, notes: list[str]) -> None:
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]
