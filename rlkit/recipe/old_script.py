"""A Python script of RLlib read as text: the arguments of its AlgorithmConfig, and its dicts. Nothing is run.

Only what is written out counts: numbers, words, lists and dicts, names bound to such, and Tune's search spaces. What is
known only when the script runs (arguments of the command line, functions, loops) is left out, with its line.
"""

from __future__ import annotations

import ast
from typing import Any

from rlkit.recipe.old_config import CODE, Old
from rlkit.recipe.spaces import KINDS, SearchSpace, space_error

NAMES: dict[str, Any] = {  # constants of RLlib that stand in stop criteria
    "ENV_RUNNER_RESULTS": "env_runners", "EPISODE_RETURN_MEAN": "episode_return_mean",
    "EVALUATION_RESULTS": "evaluation", "NUM_ENV_STEPS_SAMPLED_LIFETIME": "num_env_steps_sampled_lifetime",
    "TRAINING_ITERATION": "training_iteration", "TIMESTEPS_TOTAL": "timesteps_total", "TIME_TOTAL_S": "time_total_s",
    "EPISODE_REWARD_MEAN": "episode_reward_mean",
}  # fmt: skip
MODEL = ("DefaultModelConfig", "RLModuleSpec")
# other classes of Ray's that end in Config; most of them are told something, which an AlgorithmConfig never is
OTHERS = (
    "RunConfig", "TuneConfig", "CheckpointConfig", "ModelConfig", "EncoderConfig", "HeadConfig", "FailureConfig",
    "LearnerConfig",
)  # fmt: skip
DEFAULTS = {  # of the parser in ray.rllib.utils.test_utils and ray.rllib.examples.utils
    "default_reward": "episode_reward_mean", "default_timesteps": "num_env_steps_sampled_lifetime",
    "default_iters": "training_iteration",
}  # fmt: skip


class Unknown(Exception):
    """A value that is known only when the script runs."""


def read_script(text: str, name: str) -> Old:
    """Return what a script says of one experiment.

    Raises:
        SyntaxError, ValueError: no Python.
    """
    reader = _Reader(name)
    reader.visit(ast.parse(text))
    return reader.old


class _Reader(ast.NodeVisitor):
    def __init__(self, name: str):
        self.old = Old(name, "", None)
        self.values: dict[str, Any] = dict(NAMES)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                self._set_item(target, node.value)
            elif isinstance(target, ast.Name):
                try:
                    self.values[target.id] = self.value(node.value)
                except Unknown:
                    self.values.pop(target.id, None)
                    continue
                if target.id in ("config", "stop") and isinstance(self.values[target.id], dict):
                    self._take(target.id, self.values[target.id])

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name = _called(node)
        if isinstance(node.func, ast.Attribute) and (owner := _config_class(node.func)):
            self._method(node, name, owner)
        elif name.endswith("Config") and not name.endswith(OTHERS) and not (node.args or node.keywords):
            self._name_algorithm(name.removesuffix("Config"))
        elif name in ("run", "Tuner", "RunConfig", "run_experiments"):
            self._experiment(node)
        elif name.endswith("Trainer") and name != "Trainer":
            self._name_algorithm(name.removesuffix("Trainer"))
            for keyword in node.keywords:
                self._keyword(keyword.arg, keyword.value)
        elif name in ("set_defaults", "add_rllib_example_script_args"):
            for keyword in node.keywords:
                for default in [DEFAULTS.get(keyword.arg or "")]:
                    if default and (number := self._try(keyword.value, keyword.arg or "")) is not None:
                        self.old.stop.setdefault(default, number)

    def value(self, node: ast.AST) -> Any:
        """The value an expression writes out.

        Raises:
            Unknown: it depends on what runs.
        """
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in self.values:
                return self.values[node.id]
            case ast.List() | ast.Tuple():
                return [self.value(item) for item in node.elts]
            case ast.Dict():
                found = {}
                for key, item in zip(node.keys, node.values, strict=True):
                    if key is None:
                        raise Unknown
                    word = self.value(key)
                    if not isinstance(word, str | int | float):
                        raise Unknown
                    try:
                        found[word] = self.value(item)
                    except Unknown:
                        self._left_out(str(word), item)
                return found
            case ast.UnaryOp(op=ast.USub()):
                number = self.value(node.operand)
                if isinstance(number, int | float):
                    return -number
            case ast.BinOp(op=ast.Mult() | ast.Pow() | ast.Div() | ast.Add() | ast.Sub()):
                return self._arithmetic(node)
            case ast.JoinedStr():
                parts = [p.value if isinstance(p, ast.FormattedValue) else p for p in node.values]
                return "".join(str(self.value(part)) for part in parts)
            case ast.Call():
                return self._call(node)
        raise Unknown

    def _arithmetic(self, node: ast.BinOp) -> int | float:
        left, right = self.value(node.left), self.value(node.right)
        if not all(isinstance(x, int | float) and abs(x) < 1e12 for x in (left, right)):
            raise Unknown
        match node.op:
            case ast.Mult():
                return left * right
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Div() if right:
                return left / right
            case ast.Pow() if abs(right) <= 64 and (left or right >= 0) and left >= 0:
                return left**right
        raise Unknown

    def _call(self, node: ast.Call) -> Any:
        name = _called(node)
        if name in MODEL or name == "dict":
            found = {}
            for keyword in node.keywords:
                if keyword.arg is None:
                    raise Unknown
                try:
                    found[keyword.arg] = self.value(keyword.value)
                except Unknown:
                    self._left_out(keyword.arg, keyword.value)
            return found.get("model_config", found) if name == "RLModuleSpec" else found
        kind = "grid" if name == "grid_search" else name
        if kind in KINDS:
            args = [self.value(argument) for argument in node.args]
            members = args[0] if kind in ("grid", "choice") and args else args
            if space_error(kind, members) is None:
                return SearchSpace(kind, tuple(members))
        raise Unknown

    def _method(self, node: ast.Call, name: str, owner: str) -> None:
        """One call of a config's method: its keywords are keys of the old flat config."""
        if owner != "config":
            self._name_algorithm(owner)
        if name == "environment" and node.args:
            self._keyword("env", node.args[0])
        if name in ("callbacks", "multi_agent", "offline_data") and (node.args or node.keywords):
            keys = [keyword.arg for keyword in node.keywords if keyword.arg] or [name]
            self.old.config.update(dict.fromkeys(keys, CODE))
            return
        for keyword in node.keywords:
            self._keyword(keyword.arg, keyword.value)

    def _keyword(self, name: str | None, node: ast.AST) -> None:
        if name is None:
            self.old.notes.append(
                f"line {getattr(node, 'lineno', 0)}: **{ast.unparse(node)[:60]} cannot be read; left out"
            )
            return
        value = self._try(node, name)
        if value is None:
            return
        if name in ("env",):
            self.old.env = value
        elif name == "config" and isinstance(value, dict):
            self._take("config", value)
        else:
            self.old.config[name] = value

    def _experiment(self, node: ast.Call) -> None:
        """`tune.run("PPO", config=…, stop=…)`, `Tuner("PPO", param_space=…)`, `RunConfig(stop=…)`."""
        if node.args:
            try:
                name = self.value(node.args[0])
            except Unknown:
                name = None
            if isinstance(name, str):
                self._name_algorithm(name)
        for keyword in node.keywords:
            if keyword.arg in ("config", "param_space", "stop"):
                try:
                    value = self.value(keyword.value)
                except Unknown:
                    continue
                if isinstance(value, dict):
                    self._take("stop" if keyword.arg == "stop" else "config", value)
            elif keyword.arg in ("num_samples", "checkpoint_freq", "max_failures", "keep_checkpoints_num"):
                value = self._try(keyword.value, keyword.arg)
                if value is not None:
                    self.old.around[keyword.arg] = value

    def _take(self, what: str, values: dict[Any, Any]) -> None:
        plain = {str(key): value for key, value in values.items()}
        if what == "stop":
            self.old.stop.update(plain)
            return
        env = plain.pop("env", None)
        self.old.env = env if env is not None else self.old.env
        self.old.config.update(plain)

    def _set_item(self, target: ast.Subscript, node: ast.AST) -> None:
        """`config["lr"] = 1e-3`."""
        if isinstance(target.value, ast.Name) and target.value.id in ("config", "stop"):
            key = self._try(target.slice, "a key")
            value = self._try(node, str(key))
            if isinstance(key, str) and value is not None:
                self._take(target.value.id, {key: value})

    def _try(self, node: ast.AST, name: str) -> Any:
        try:
            return self.value(node)
        except Unknown:
            self._left_out(name, node)
            return None

    def _left_out(self, name: str, node: ast.AST) -> None:
        text = " ".join(ast.unparse(node).split())[:60]
        note = (
            f"line {getattr(node, 'lineno', 0)}: {name} is {text}, known only when the script runs; left out"
        )
        if note not in self.old.notes:
            self.old.notes.append(note)

    def _name_algorithm(self, name: str) -> None:
        if name and name not in ("Algorithm", "Trainer") and not self.old.algorithm:
            self.old.algorithm = name


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _config_class(function: ast.Attribute) -> str:
    """`PPO` for a method called on `PPOConfig()` or a chain that begins with it, `config` for one on `config`."""
    here: ast.AST = function.value
    while isinstance(here, ast.Call) and isinstance(here.func, ast.Attribute):
        if here.func.attr.endswith("Config"):
            return here.func.attr.removesuffix("Config")
        here = here.func.value
    if isinstance(here, ast.Call) and isinstance(here.func, ast.Name) and here.func.id.endswith("Config"):
        return here.func.id.removesuffix("Config")
    return (
        "config" if isinstance(here, ast.Name) and here.id in ("config", "base_config", "algo_config") else ""
    )
