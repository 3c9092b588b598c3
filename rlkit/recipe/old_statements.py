"""Statements of a script, in order: what its names are bound to, and what a branch or a loop leaves open."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import Any

from rlkit.recipe.old_calls import Calls
from rlkit.recipe.old_expressions import NAMES
from rlkit.recipe.old_values import Function, Table, Unread, arithmetic, either, shown, unread

ENDS = (ast.Raise, ast.Return, ast.Continue, ast.Break)
DICTS = ("config", "stop")  # names that mean what they say where no call takes the dict


class Statements(Calls):
    """Walks a script from top to bottom, then the functions that nothing called."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[Function] = []
        self.dicts: list[tuple[int, str, Table]] = []
        self.returned: list[list[Any]] = []
        self.shared: set[str] = set()  # names that functions set by `global`

    def module(self, tree: ast.Module) -> None:
        """Read a whole script."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                self.shared |= set(node.names)
        self.body(tree.body)
        words = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        index = 0
        while index < len(self.functions):  # reading one may define others
            waiting = self.functions[index:]
            waiting.sort(key=lambda function: words[function.node.name] > 0)  # a caller before what it calls
            self.functions[index:] = waiting
            self._uncalled(self.functions[index])
            index += 1

    def body(self, statements: list[ast.stmt]) -> None:
        """Read statements one after the other."""
        for statement in statements:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        """Read one statement."""
        match node:
            case ast.Assign():
                value = self.value(node.value)
                for target in node.targets:
                    self.assign(target, value, node.lineno)
            case ast.AnnAssign() if node.value is not None:
                self.assign(node.target, self.value(node.value), node.lineno)
            case ast.AugAssign():
                self._add(node)
            case ast.Return():
                found = None if node.value is None else self.value(node.value)
                if self.returned:
                    self.returned[-1].append(found)
            case ast.If():
                self._if(node)
            case ast.For() | ast.AsyncFor() | ast.While():
                self._loop(node)
            case ast.Try():
                self.body(node.body)
                for handler in node.handlers:
                    self.branches([handler.body, []], f"as an error in line {node.lineno} decides")
                self.body([*node.orelse, *node.finalbody])
            case ast.Match():
                self.value(node.subject)
                self.branches(
                    [case.body for case in node.cases], f"as the match of line {node.lineno} decides"
                )
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    found = self.value(item.context_expr)
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, unread(item.context_expr), node.lineno)
                self.body(node.body)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                function = Function(node, list(self.scopes), self.inside, dict(self.scopes[0]))
                self.functions.append(function)
                self.scopes[-1][node.name] = function
                if node.decorator_list:  # who knows what it is now
                    del self.scopes[-1][node.name]
            case ast.ClassDef():
                self.scopes.append({})
                self.body(node.body)
                self.scopes.pop()
                self.scopes[-1].pop(node.name, None)
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    word = alias.asname or alias.name.partition(".")[0]
                    self.scopes[-1].pop(word, None)
                    if alias.name in NAMES:
                        self.scopes[-1][word] = NAMES[alias.name]
            case ast.Delete():
                for target in node.targets:
                    self._delete(target)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.value(child)

    def assign(self, target: ast.AST, value: Any, line: int) -> None:
        """Bind a name, or write into the dict or config that a target names."""
        match target:
            case ast.Name():
                if target.id in self.shared:
                    value = Unread(line, target.id, "set by functions with `global`")
                self.scopes[-1][target.id] = value
                if target.id in DICTS and type(value) is Table:
                    self.dicts.append((line, target.id, value))
            case ast.Tuple() | ast.List():
                fits = isinstance(value, list) and len(value) == len(target.elts)
                for index, item in enumerate(target.elts):
                    self.assign(item, value[index] if fits else unread(target), line)
            case ast.Starred():
                self.assign(target.value, unread(target), line)
            case ast.Attribute() | ast.Subscript():
                table = self._container(target.value)
                key = target.attr if isinstance(target, ast.Attribute) else self.value(target.slice)
                if table is None:
                    if re.search("config|cfg", ast.unparse(target.value), re.I):
                        owner = ast.unparse(target)[:60]
                        self.lost.append(
                            f"line {line}: {owner} = {shown(value)}: what it is set on is known only "
                            "when the script runs; left out"
                        )
                elif isinstance(key, str | int | float):
                    self.put(table, key, value, line)
                else:
                    table.lost.append(unread(target).note("a key"))

    def branches(self, bodies: list[list[ast.stmt]], why: str) -> None:
        """Read bodies of which one is run, and leave what all of them leave."""
        scope, inside = self.scopes[-1], self.inside
        before, left = dict(scope), []
        line = min((body[0].lineno for body in bodies if body), default=0)
        for body in bodies:
            scope.clear()
            scope.update(before)
            mark = len(self.decides)
            self.decides[mark] = why
            self.inside = (*inside, mark)
            self.body(body)
            if not (body and isinstance(body[-1], ENDS)):
                left.append(dict(scope))
        self.inside = inside
        scope.clear()
        scope.update(left[0] if left else before)
        for other in left[1:]:
            for name, value in other.items():
                scope[name] = either(line, scope[name], value, why) if name in scope else value

    def follow(self, function: Function, scope: dict[str, Any]) -> Any:
        """Read the body of a function in a scope of its own and return what it returns."""
        scopes = self.scopes
        self.scopes = [*function.scopes, scope]
        self.running.append(function.node)
        self.returned.append([])
        self.body(function.node.body)
        self.scopes = scopes
        self.running.pop()
        found: list[Any] = self.returned.pop() or [None]
        result = found[0]
        for other in found[1:]:
            result = either(function.node.lineno, result, other, "known only when the script runs")
        return result

    def _uncalled(self, function: Function) -> None:
        if function.called:
            return
        function.called = True
        mark, why = len(self.decides), f"as a call of {function.node.name} decides"
        self.decides[mark] = why
        self.inside = (*function.inside, mark)
        module = dict(function.scopes[0])
        for name, value in function.seen.items():  # between its definition and the end of the script
            module[name] = either(function.node.lineno, value, module.get(name, value), why)
        function.scopes[0] = module
        self.follow(function, self.parameters(function))
        self.inside = ()

    def _add(self, node: ast.AugAssign) -> None:
        """`lr *= 10`, `config["lr"] *= 10`, `config |= {…}`."""
        before, value = self.value(node.target), self.value(node.value)
        if isinstance(before, Table) and isinstance(node.op, ast.BitOr):
            self.update(before, value, node.value)
            return
        found = arithmetic(node, type(node.op), before, value)
        self.assign(node.target, found, node.lineno)

    def _if(self, node: ast.If) -> None:
        test = self.value(node.test)
        if isinstance(test, bool | int | str | None):
            self.body(node.body if test else node.orelse)
        else:
            self.branches([node.body, node.orelse], f"as the if of line {node.lineno} decides")

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        why = f"as the loop of line {node.lineno} goes"
        values = self.value(node.test if isinstance(node, ast.While) else node.iter)
        for part in (item for statement in node.body for item in ast.walk(statement)):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store) and part.id in self.scopes[-1]:
                before = self.scopes[-1][part.id]
                if not isinstance(before, Unread):
                    self.scopes[-1][part.id] = Unread(part.lineno, f"{shown(before)} at first", why)
        trains = any(
            isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "train"
            for statement in node.body
            for part in ast.walk(statement)
        )
        if trains:
            limit = ast.unparse(node.test if isinstance(node, ast.While) else node.iter)[:60]
            breaks = any(isinstance(part, ast.Break) for part in ast.walk(node))
            self.lost.append(
                f"line {node.lineno}: the loop that trains has a limit of its own ({limit}"
                f"{', and a break' if breaks else ''}), which is not read; write stop: {{iterations: …}}"
            )
        if not isinstance(node, ast.While):
            several = isinstance(values, list) and values and isinstance(node.target, ast.Name)
            words = " or ".join(shown(value) for value in values[:5]) if several else ast.unparse(node.target)
            target = Unread(node.lineno, words, why)
            for part in ast.walk(node.target):
                if isinstance(part, ast.Name):
                    self.scopes[-1][part.id] = target
        self.branches([node.body, []], why)
        self.body(node.orelse)

    def _delete(self, target: ast.AST) -> None:
        if isinstance(target, ast.Name):
            self.scopes[-1].pop(target.id, None)
        elif isinstance(target, ast.Subscript) and isinstance(table := self.value(target.value), Table):
            self.drop(table, self.value(target.slice), target.lineno)

    def _container(self, node: ast.AST) -> Table | None:
        """The dict or config that an expression names; one in a config that holds none yet is made."""
        found = self.value(node)
        if isinstance(found, Table):
            return found
        if not isinstance(node, ast.Attribute | ast.Subscript):
            return None
        table = self._container(node.value)
        key = node.attr if isinstance(node, ast.Attribute) else self.value(node.slice)
        if table is None or not isinstance(key, str) or key in table:
            return None
        made = Table(inside=self.inside)
        self.put(table, key, made, getattr(node, "lineno", 0))
        return made if table[key] is made else None
