"""Calls in a script: methods of configs and dicts, search spaces, and the script's own functions.

Nothing is run. A function of the script is followed with the arguments that it is called with.
"""

from __future__ import annotations

import ast
import copy
from abc import abstractmethod
from typing import Any

from rlkit import registry
from rlkit.recipe.old_config import CODE
from rlkit.recipe.old_expressions import Expressions
from rlkit.recipe.old_values import NOT_SET, RUNS, Draft, Function, Part, Table, Unread, number, unread
from rlkit.recipe.signatures import METHODS
from rlkit.recipe.spaces import KINDS, SearchSpace, space_error
from rlkit.recipe.words import BY_HAND, CLOSED_METHODS, OLD_ALGORITHMS

MODEL = ("DefaultModelConfig", "RLModuleSpec")
PARTS = ("RunConfig", "TuneConfig", "CheckpointConfig", "FailureConfig")
# other classes of Ray's that end in Config; most of them are told something, which an AlgorithmConfig never is
OTHERS = (*PARTS, "ModelConfig", "EncoderConfig", "HeadConfig", "LearnerConfig", "ScalingConfig")
OF_CONFIG = {*METHODS, *CLOSED_METHODS, "update_from_dict"}
BUILDS = ("build", "build_algo")
CLASSES = ("get_trainable_cls", "get_trainer_class", "get_algorithm_class", "get_agent_class")
MAX_CALLS = 100  # functions that are followed


class Calls(Expressions):
    """Values of calls."""

    @abstractmethod
    def experiment(self, node: ast.Call, name: str) -> Any:
        """Read a call that may begin an experiment."""

    @abstractmethod
    def follow(self, function: Function, scope: dict[str, Any]) -> Any:
        """Read the body of a function and return what it returns."""

    def call(self, node: ast.Call) -> Any:
        name = called(node)
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value)
            if isinstance(owner, Draft) and (name in OF_CONFIG or name in BUILDS):
                return self._method(owner, node, name)
            if isinstance(owner, Table | list):
                return self._of_container(owner, node, name)
            if (draft := self._default(node, name)) is not None:
                return draft
            if (
                name in OF_CONFIG
                and node.keywords
                and isinstance(owner, Unread)
                and "super()" not in owner.text
            ):
                words = ", ".join(keyword.arg or "**" for keyword in node.keywords)
                self.lost.append(
                    f"line {node.lineno}: {name}({words}) is called on {owner.text}, {owner.why}; left out"
                )
        elif isinstance(node.func, ast.Name) and isinstance(found := self.named(node.func), Function):
            return self._function(found, node)
        if name.endswith("Config") and not name.endswith(OTHERS):
            known = is_algorithm(name.removesuffix("Config"))
            if known or name == "AlgorithmConfig" or not (node.args or node.keywords):
                return self.draft(name.removesuffix("Config"), node.lineno, known)
        if name in MODEL or name == "dict":
            found = self.table(node.keywords)
            for argument in node.args[:1]:
                self.update(found, self.value(argument), argument)
            return found.get("model_config", found) if name == "RLModuleSpec" else found
        if name == "PolicySpec":
            return self.table(node.keywords)
        if name in PARTS:
            part = Part(self.table(node.keywords), name, node.lineno)
            for inner in part.values():
                if isinstance(inner, Part):
                    inner.taken = True
            self.parts.append(part)
            return part
        if name in ("int", "float") and len(node.args) == 1:
            return number(node, name, self.value(node.args[0]))
        if name in ("copy", "deepcopy") and len(node.args) == 1:
            owner = self.value(node.args[0])
            return self._copy(owner, node.lineno) if isinstance(owner, Table) else unread(node)
        kind = "grid" if name == "grid_search" else name
        if kind in KINDS:
            return self._space(node, kind)
        return self.experiment(node, name)

    def draft(self, algorithm: str, line: int, sure: bool) -> Draft:
        """Return a new config of an algorithm."""
        self.drafts.append(
            Draft("" if algorithm in ("Algorithm", "Trainer") else algorithm, line, sure, self.inside)
        )
        return self.drafts[-1]

    def _default(self, node: ast.Call, name: str) -> Draft | None:
        """`PPO.get_default_config()`, `get_trainable_cls("PPO").get_default_config()`, `PPOConfig.from_dict({…})`."""
        assert isinstance(node.func, ast.Attribute)
        owner = node.func.value
        if name == "get_default_config":
            algorithm = self.algorithm(owner)
            draft = self.draft(algorithm or "", node.lineno, True)
            if algorithm is None:
                draft.lost.append(unread(owner).note("the algorithm"))
            return draft
        word = getattr(owner, "attr", getattr(owner, "id", ""))
        if name == "from_dict" and word.endswith("Config") and not word.endswith(OTHERS):
            draft = self.draft(word.removesuffix("Config"), node.lineno, True)
            for argument in node.args[:1]:
                self.update(draft, self.value(argument), argument)
            return draft
        return None

    def algorithm(self, node: ast.AST) -> str | None:
        """Return the algorithm that an expression names: `"PPO"`, `ppo.PPOTrainer`, `get_trainer_class("PPO")`."""
        if isinstance(node, ast.Call) and called(node) in CLASSES and node.args:
            node = node.args[0]
        value = self.value(node)
        if isinstance(value, str):
            return value
        word = getattr(node, "attr", getattr(node, "id", "")).removesuffix("Trainer")
        return word if isinstance(value, Unread) and is_algorithm(word) else None

    def _method(self, draft: Draft, node: ast.Call, name: str) -> Draft | Unread:
        """One call of a config's method: its keywords are keys of the old flat config."""
        draft.sure = True
        if name in BUILDS:
            draft.built = True
            return unread(node)
        if name == "update_from_dict":
            for argument in node.args:
                self.update(draft, self.value(argument), argument)
        elif name in ("callbacks", "multi_agent", "offline_data") and (node.args or node.keywords):
            given = self.table(node.keywords) if node.keywords else Table({name: CODE})
            for key, value in given.items():
                code = name == "callbacks" or key in BY_HAND
                self.put(draft, key, CODE if code else value, node.lineno)
        else:
            first = {"environment": "env", "framework": "framework"}.get(name)
            if first and node.args:
                self.put(draft, first, self.value(node.args[0]), node.args[0].lineno)
            elif node.args:
                text = ", ".join(ast.unparse(argument) for argument in node.args)[:60]
                draft.lost.append(f"line {node.lineno}: {name}({text}): a value without a keyword; left out")
            self.update(draft, self.table(node.keywords), node)
        return draft

    def _of_container(self, owner: Table | list[Any], node: ast.Call, name: str) -> Any:
        """A method of a dict or list."""
        values = [self.value(argument) for argument in node.args]
        if isinstance(owner, Table):
            if name in ("copy", "to_dict"):
                return owner if name == "to_dict" else self._copy(owner, node.lineno)
            if name == "update":
                for argument, value in zip(node.args, values, strict=True):
                    self.update(owner, value, argument)
                self.update(owner, self.table(node.keywords), node)
            elif name == "setdefault" and len(values) == 2 and isinstance(values[0], str):
                if values[0] in owner:
                    return owner[values[0]]
                self.put(owner, values[0], values[1], node.lineno)
            elif name in ("pop", "clear", "popitem"):
                if name == "pop" and values and isinstance(values[0], str):
                    found = owner.get(values[0], unread(node))
                    self.drop(owner, values[0], node.lineno)
                    return found
                owner.lost.append(unread(node).note("what it takes out"))
            elif name == "get" and values and isinstance(values[0], str):
                return owner.get(values[0], values[1] if len(values) > 1 else None)
        elif name in ("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"):
            if name == "append" and len(values) == 1 and not self.inside:
                owner.append(values[0])
            else:
                owner[:] = [unread(node)]
        return unread(node)

    def drop(self, table: Table, key: Any, line: int) -> None:
        """`del table[key]`."""
        if isinstance(key, str | int | float) and key in table:
            self.put(table, key, NOT_SET, line)
            if table[key] is NOT_SET:
                del table[key]

    def _copy(self, owner: Table, line: int) -> Table:
        if isinstance(owner, Draft):
            found: Table = self.draft(owner.algorithm, line, True)
            assert isinstance(found, Draft)
            found.origin = (owner, self.plain(owner)[0])
        else:
            found = Table(inside=self.inside)
        found.take(owner)
        for key, value in found.items():
            if isinstance(value, list | Table):
                # what Ray and `deepcopy` do; for `dict.copy` the safer reading
                found[key] = copy.deepcopy(value)
        return found

    def _space(self, node: ast.Call, kind: str) -> Any:
        args = [self.value(argument) for argument in node.args]
        members = args[0] if kind in ("grid", "choice") and args else args
        plain = isinstance(members, list) and not any(
            isinstance(m, Unread | Table | Function) for m in members
        )
        return (
            SearchSpace(kind, tuple(members))
            if plain and space_error(kind, members) is None
            else unread(node)
        )

    def _function(self, function: Function, node: ast.Call) -> Any:
        """A call of a function of the script."""
        function.called = True
        self.calls += 1
        arguments = function.node.args
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        given = [self.value(argument) for argument in node.args if not isinstance(argument, ast.Starred)]
        words = {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
        if function.node in self.running or self.calls > MAX_CALLS:
            if self.calls == MAX_CALLS + 1:
                self.lost.append(f"line {node.lineno}: this call and those below are not followed: too many")
            return unread(node)
        scope = self.parameters(function)
        if None in words or len(given) < len(node.args):  # with * or **: nobody knows which is which
            return self.follow(function, scope)
        defaults = dict(zip(reversed(names), reversed(arguments.defaults), strict=False))
        defaults |= {a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d}
        scope |= {name: self.value(default) for name, default in defaults.items()}
        scope |= dict(zip(names, given, strict=False))
        scope |= {name: value for name, value in words.items() if name in (*names, *defaults)}
        scope |= {a.arg: words[a.arg] for a in arguments.kwonlyargs if a.arg in words}
        if arguments.vararg:
            scope[arguments.vararg.arg] = given[len(names) :]
        if arguments.kwarg:
            more = {name: value for name, value in words.items() if name not in scope}
            scope[arguments.kwarg.arg] = Table(more, self.inside)
        return self.follow(function, scope)

    def parameters(self, function: Function) -> dict[str, Any]:
        """Return a function's arguments, all of them unread."""
        found = {}
        for argument in ast.walk(function.node.args):
            if isinstance(argument, ast.arg):
                text = f"the argument {argument.arg} of {function.node.name}"
                found[argument.arg] = Unread(function.node.lineno, text, RUNS)
        return found


def called(node: ast.Call) -> str:
    """Return the last word of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def is_algorithm(word: str) -> bool:
    """True for an algorithm of RLlib's, old or new."""
    return word in OLD_ALGORITHMS or word in registry.TABLES["algorithms"]
