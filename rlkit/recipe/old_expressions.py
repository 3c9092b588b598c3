"""Expressions of a script: numbers, words, lists and dicts, names bound to them, configs, and Tune's search spaces.

Nothing is run. A function of the script is followed with the arguments that it is called with.
"""

from __future__ import annotations

import ast
from abc import abstractmethod
from typing import Any

from rlkit.recipe.old_config import CODE
from rlkit.recipe.old_values import (
    LONG,
    NOT_SET,
    Draft,
    Part,
    Plain,
    Table,
    Unread,
    arithmetic,
    compared,
    either,
    unread,
)

NAMES: dict[str, Any] = {  # constants of RLlib that stand in stop criteria
    "ENV_RUNNER_RESULTS": "env_runners", "EPISODE_RETURN_MEAN": "episode_return_mean",
    "EVALUATION_RESULTS": "evaluation", "NUM_ENV_STEPS_SAMPLED_LIFETIME": "num_env_steps_sampled_lifetime",
    "TRAINING_ITERATION": "training_iteration", "TIMESTEPS_TOTAL": "timesteps_total", "TIME_TOTAL_S": "time_total_s",
    "EPISODE_REWARD_MEAN": "episode_reward_mean",
}  # fmt: skip
OWN = ("DEFAULT_CONFIG", "COMMON_CONFIG")  # RLlib's own dicts: what is written to a copy counts


class Expressions:
    """Values of expressions, in the scopes and the branches where the reader stands."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = [{"__name__": "__main__", **NAMES}]
        self.inside: tuple[int, ...] = ()
        self.decides: dict[int, str] = {}  # what tells whether a branch or loop is run
        self.drafts: list[Draft] = []
        self.parts: list[Part] = []
        self.lost: list[str] = []  # notes that belong to no config
        self.running: list[ast.AST] = []
        self.calls = 0
        self.spent = [0]

    @abstractmethod
    def call(self, node: ast.Call) -> Any:
        """Return what a call gives."""

    def value(self, node: ast.AST) -> Any:
        """Return what an expression is, an `Unread` where the text does not tell."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self.named(node)
            case ast.List() | ast.Tuple() | ast.Set() if not any(
                isinstance(item, ast.Starred) for item in node.elts
            ):
                return [self.value(item) for item in node.elts]
            case ast.Dict():
                return self._dict(node)
            case ast.UnaryOp(op=ast.USub()):
                operand = self.value(node.operand)
                return -operand if isinstance(operand, int | float) else unread(node)
            case ast.UnaryOp(op=ast.Not()):
                operand = self.value(node.operand)
                return not operand if isinstance(operand, bool) else unread(node)
            case ast.Compare():
                items = [self.value(item) for item in (node.left, *node.comparators)]
                return compared(node, items[0], items[1])
            case ast.BinOp():
                return self._operation(node)
            case ast.JoinedStr():
                parts = [self.value(p.value if isinstance(p, ast.FormattedValue) else p) for p in node.values]
                known = all(isinstance(part, str | int | float) for part in parts)
                text = "".join(map(str, parts)) if known else ""
                return text if known and len(text) < LONG else unread(node)
            case ast.IfExp():
                return self._choice(node)
            case ast.Attribute() | ast.Subscript():
                return self._member(node)
            case ast.Call():
                return self.call(node)
            case ast.NamedExpr():
                self.scopes[-1][node.target.id] = found = self.value(node.value)
                return found
        for child in ast.iter_child_nodes(node):  # an experiment may begin in it
            if isinstance(child, ast.expr) and not isinstance(node, ast.Lambda):
                self.value(child)
        return unread(node)

    def named(self, node: ast.Name) -> Any:
        """Return what a name is bound to."""
        for scope in reversed(self.scopes):
            if node.id in scope:
                return scope[node.id]
        return Table(inside=self.inside) if node.id in OWN else unread(node)

    def put(self, table: Table, key: Any, value: Any, line: int) -> None:
        """Write a value; one that stands in a branch or loop, beside the one it may leave in place."""
        if isinstance(value, Draft):
            value.taken = True  # an option, and no experiment
        depth = len(self.inside)
        if table.inside[:depth] != self.inside and value != CODE:
            value = either(line, table.get(key, NOT_SET), value, self.decides[self.inside[-1]])
        table[key] = value

    def update(self, table: Table, other: Any, node: ast.AST) -> None:
        """`table.update(other)`; what cannot be read is a note of the table."""
        if not isinstance(other, Table):
            reason = other if isinstance(other, Unread) else unread(node, "which is no dict")
            table.lost.append(reason.note(f"**{ast.unparse(node)[:60]}"))
            return
        table.lost += other.lost
        for key, value in list(other.items()):
            self.put(table, key, value, getattr(node, "lineno", 0))

    def table(self, keywords: list[ast.keyword]) -> Table:
        """Return keyword arguments as a dict."""
        found = Table(inside=self.inside)
        for keyword in keywords:
            if keyword.arg is None:
                self.update(found, self.value(keyword.value), keyword.value)
            else:
                found[keyword.arg] = self.value(keyword.value)
        return found

    def plain(self, table: Table) -> tuple[dict[str, Any], list[str]]:
        """Return what is known of a table now, and notes on the rest."""
        reader = Plain(self.spent)
        return reader.table(table), reader.notes

    def _dict(self, node: ast.Dict) -> Table:
        found = Table(inside=self.inside)
        for key, item in zip(node.keys, node.values, strict=True):
            value, word = self.value(item), self.value(key) if key else None
            if key is None:
                self.update(found, value, item)
            elif isinstance(word, str | int | float):
                self.put(found, word, value, item.lineno)
            else:
                found.lost.append(unread(key).note("a key"))
        return found

    def _operation(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.BitOr) and isinstance(left, Table) and isinstance(right, Table):
            found = Table(left, self.inside)
            found.lost += left.lost
            self.update(found, right, node)
            return found
        return arithmetic(node, type(node.op), left, right)

    def _choice(self, node: ast.IfExp) -> Any:
        test, yes, no = self.value(node.test), self.value(node.body), self.value(node.orelse)
        if isinstance(test, bool | int):
            return yes if test else no
        return either(node.lineno, yes, no, f"as the if of line {node.lineno} decides")

    def _member(self, node: ast.Attribute | ast.Subscript) -> Any:
        owner = self.value(node.value)
        if isinstance(node, ast.Attribute):
            if node.attr in OWN:
                return Table(inside=self.inside)
            if node.attr == "algo_class" and isinstance(owner, Draft):
                return owner.algorithm
            known = isinstance(owner, Draft) and node.attr in owner
            return owner[node.attr] if known else NAMES.get(node.attr, unread(node))
        key = self.value(node.slice)
        if isinstance(owner, Table) and isinstance(key, str | int | float):
            return owner.get(key, unread(node))
        inside = isinstance(owner, list) and isinstance(key, int) and -len(owner) <= key < len(owner)
        return owner[key] if inside else unread(node)
