"""A Python script of RLlib read as text: its experiments, each with the config that it begins with. Nothing is run.

Only what is written out counts. What is known only when the script runs (arguments of the command line, branches,
loops) is left out, with its line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from rlkit.recipe.old_calls import CLASSES, called, is_algorithm
from rlkit.recipe.old_config import Old
from rlkit.recipe.old_statements import Statements
from rlkit.recipe.old_values import Draft, Function, Run, Table, Unread, unread

DEFAULTS = {  # of the parser in ray.rllib.utils.test_utils and ray.rllib.examples.utils
    "default_reward": "episode_reward_mean", "default_timesteps": "num_env_steps_sampled_lifetime",
    "default_iters": "training_iteration",
}  # fmt: skip
BEGINS = ("Tuner", "run_experiments", "run_rllib_example_script_experiment")
OF_RUN = {"config", "stop", "num_samples", "checkpoint_freq", "local_dir"}


def read_script(text: str, name: str) -> list[Old]:
    """Return the experiments of a script in the order of their lines; none where it configures nothing.

    Raises:
        SyntaxError, ValueError, RecursionError: no Python, or more than a script of RLlib holds.
    """
    reader = _Reader()
    reader.module(ast.parse(text))
    found = reader.experiments()
    olds = []
    for index, run in enumerate(found, 1):
        several = len(found) > 1
        old = Old(
            f"{name}_{index}" if several else name, run.algorithm, run.config.get("env"), run.stop,
            {key: value for key, value in run.config.items() if key != "env"}, run.around, run.notes,
        )  # fmt: skip
        if several:
            old.notes.insert(
                0, f"experiment {index} of the {len(found)} in this script, from line {run.line} on"
            )
        olds.append(old)
    return olds


class _Reader(Statements):
    """The calls that begin experiments, and what belongs to each."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.limits: dict[str, Any] = {}  # defaults of the parser of Ray's examples

    def experiment(self, node: ast.Call, name: str) -> Any:
        """Read a call that may begin an experiment; its arguments in any case."""
        words = {keyword.arg for keyword in node.keywords}
        of_tune = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value).endswith("tune")
        word = name.removesuffix("Trainer")
        if isinstance(node.func, ast.Call) and called(node.func) in CLASSES and node.func.args:
            self._trainer(node, self.algorithm(node.func) or "")
        elif name in BEGINS or (name == "run" and (of_tune or words & OF_RUN)):
            self._tune(node, name)
        elif (word and word != name) or (is_algorithm(name) and self._configures(node)):
            self._trainer(node, word)
        else:
            for argument in node.args:
                self.value(argument)
            for keyword in node.keywords:
                value = self.value(keyword.value)
                if name in ("set_defaults", "add_rllib_example_script_args") and keyword.arg in DEFAULTS:
                    if isinstance(value, Unread):
                        self.lost.append(value.note(keyword.arg))
                    else:
                        self.limits.setdefault(DEFAULTS[keyword.arg], value)
        return unread(node)

    def experiments(self) -> list[Run]:
        """Return what the script begins, and the configs that it only makes."""
        drafts = [d for d in self.drafts if not d.taken and (d.sure or d.built)]
        plain = {id(draft): self.plain(draft)[0] for draft in drafts}
        kept = [d for d in drafts if d.built or not (_unchanged(d, plain) or self._template(d, plain))]
        found = [*self.runs, *(self._run(draft.line, draft.algorithm, draft) for draft in kept)]
        if not found and (tables := [(n, t) for n, w, t in self.dicts if w == "config" and t]):
            found = [self._run(tables[-1][0], "", tables[-1][1])]
        found = list(_distinct(sorted(found, key=lambda run: run.line)))
        self._loose(found)
        for run in found:
            run.stop |= {key: value for key, value in self.limits.items() if key not in run.stop}
            run.notes += [note for note in dict.fromkeys(self.lost) if note not in run.notes]
        return found

    def _template(self, draft: Draft, plain: dict[int, dict[str, Any]]) -> bool:
        """True for a config that only copies were made of."""
        return any(
            other.origin and other.origin[0] is draft and other.origin[1] == plain[id(draft)]
            for other in self.drafts
        )

    def _loose(self, found: list[Run]) -> None:
        """Give the only experiment the limits that no call joins to one; name them where there are several."""
        loose: list[tuple[str, int, Table]] = [(part.name, part.line, part) for part in reversed(self.parts)]
        loose += [(word, line, table) for line, word, table in reversed(self.dicts) if word == "stop"]
        keys = {"stop": "stop", "CheckpointConfig": "checkpoint_config"}
        for name, line, table in loose:
            if table.taken:
                continue
            table.taken = True
            if len(found) == 1 and not (name == "stop" and found[0].stop):
                self._beside(found[0], Table({keys[name]: table}) if name in keys else table)
            else:
                reason = f"line {line}: no call says which experiment {name} belongs to; left out"
                self.lost.append(reason)

    def _run(self, line: int, algorithm: str, config: Any, beside: Table | None = None) -> Run:
        run = Run(line, algorithm)
        if isinstance(config, Table):
            config.taken = True
            if isinstance(config, Draft):
                run.algorithm = config.algorithm or algorithm
            run.config, run.unknown = self.plain(config)
            run.notes += run.unknown
        elif isinstance(config, Unread):
            run.notes.append(config.note("the config"))
        if beside:
            self._beside(run, beside)
        return run

    def _beside(self, run: Run, words: Table) -> None:
        """What stands beside the config: limits, samples, checkpoints."""
        words.taken = True
        rest = Table(words)
        rest.lost = words.lost
        for key in ("run_config", "tune_config", "failure_config"):
            if isinstance(rest.get(key), Table):
                self._beside(run, rest.pop(key))
        if isinstance(checkpoints := rest.get("checkpoint_config"), Table):
            checkpoints.taken = True
        stop = rest.pop("stop", None)
        if isinstance(stop, Table):
            stop.taken = True
            limits, notes = self.plain(stop)
            run.stop.update(limits)
            run.notes += notes
        elif stop is not None:
            rest["stop"] = stop
        around, notes = self.plain(rest)
        run.around.update(around)
        run.notes += notes

    def _tune(self, node: ast.Call, name: str) -> None:
        """`tune.run("PPO", config=…, stop=…)`, `Tuner("PPO", param_space=…)`, `run_experiments({…})`."""
        words = self.table(node.keywords)
        given = [self.value(argument) for argument in node.args]
        if name == "run_experiments":
            self._run_experiments(node, given[0] if given else words.get("experiments"))
            return
        trainable: ast.AST | None = node.args[0] if node.args else None
        for keyword in node.keywords:
            if keyword.arg in ("trainable", "run_or_experiment"):
                trainable = keyword.value
                words.pop(keyword.arg, None)
        configs = [words.pop(key) for key in ("config", "param_space", "base_config") if key in words]
        config = configs[0] if configs else None
        if name.startswith("run_rllib"):
            config = given[0] if given else config
            run = self._run(node.lineno, "", config, Table({k: v for k, v in words.items() if k == "stop"}))
        else:
            algorithm = self.algorithm(trainable) if trainable is not None else None
            run = self._run(node.lineno, algorithm or "", config, words)
            if not run.algorithm and trainable is not None:
                run.notes.append(unread(trainable).note("the algorithm"))
        self.runs.append(run)

    def _configures(self, node: ast.Call) -> bool:
        """True for `PPO(config)`; other libraries have a PPO too."""
        given = [keyword.value for keyword in node.keywords if keyword.arg == "config"] or node.args[:1]
        return bool(given) and isinstance(self.value(given[0]), Table)

    def _run_experiments(self, node: ast.Call, bodies: Any) -> None:
        if not isinstance(bodies, Table):
            self.lost.append(unread(node).note("an experiment"))
            return
        for key, body in bodies.items():
            if not isinstance(body, Table):
                self.lost.append(unread(node).note(f"the experiment {key}"))
                continue
            rest = Table({k: v for k, v in body.items() if k not in ("run", "env", "config")})
            algorithm = body.get("run")
            run = self._run(
                node.lineno, algorithm if isinstance(algorithm, str) else "", body.get("config"), rest
            )
            self._env(run, body.get("env"))
            self.runs.append(run)

    def _trainer(self, node: ast.Call, algorithm: str) -> None:
        """`PPOTrainer(config=…, env=…)`, `PPO(config)`."""
        words = self.table(node.keywords)
        given = [self.value(argument) for argument in node.args]
        config = words.get("config", given[0] if given else None)
        if isinstance(config, Draft) and not config.taken:
            config.built = True  # and may be told more below
        if not isinstance(config, Draft):
            self.runs.append(run := self._run(node.lineno, algorithm, config))
            self._env(run, words.get("env", given[1] if len(given) > 1 else None))

    def _env(self, run: Run, env: Any) -> None:
        if isinstance(env, Unread | Function):
            run.notes.append(
                env.note("env") if isinstance(env, Unread) else f"env is {env.node.name}; left out"
            )
        elif env is not None:
            run.config["env"] = env


def _unchanged(draft: Draft, plain: dict[int, dict[str, Any]]) -> bool:
    """True for a copy that was told nothing."""
    return draft.origin is not None and draft.origin[1] == plain[id(draft)]


def _distinct(runs: list[Run]) -> Iterator[Run]:
    """Leave out a run that says no more than another of the same config."""
    for index, run in enumerate(runs):
        twins = [
            (other, number)
            for number, other in enumerate(runs)
            if number != index
            and (other.algorithm, other.config, other.unknown) == (run.algorithm, run.config, run.unknown)
        ]
        bare = not run.stop and not run.around
        if not any(
            (bare and (o.stop or o.around or n < index))
            or (n < index and (o.stop, o.around) == (run.stop, run.around))
            for o, n in twins
        ):
            yield run
