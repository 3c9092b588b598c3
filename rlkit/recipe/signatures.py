"""The generated table of what RLlib's config methods and the registered names accept (signatures.json)."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlkit import registry
from rlkit.algos.rules import Rules, rules_of
from rlkit.recipe.annotations import GIVEN, options_of

METHODS = (
    "environment", "env_runners", "training", "learners", "evaluation", "multi_agent", "rl_module", "reporting",
    "debugging", "fault_tolerance", "offline_data", "checkpointing",
)  # fmt: skip
# Arguments whose default is a value and for which null means something as well.
NULLABLE = (
    "grad_clip", "minibatch_size", "min_time_s_per_iteration", "train_batch_size_per_learner", "actor_lr",
)  # fmt: skip
Rows = Mapping[str, Mapping[str, Any]]
"""{argument: row}; a row has `type`, and where they apply `default`, `required`, bounds, `deprecated`, `doc`."""


@functools.cache
def table() -> dict[str, Any]:
    """Return signatures.json."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("signatures.json").read_bytes())
    return loaded


def options_of_entry(kind: str, target: Callable[..., Any]) -> dict[str, Any]:
    """Return the options a recipe may give to a registered object; an environment takes a fraction for any number."""
    own = kind in ("envs", "callbacks", "explorations")
    found = options_of(target, frozenset({"self"}) if own else GIVEN)
    if kind == "envs":
        for row in found["arguments"].values():
            row["type"] = re.sub(r"\bint\b", "float", row["type"])
    return found


def options(kind: str, name: str) -> dict[str, Any] | None:
    """Return `{"arguments": …, "open": …}` of a registered name; None where that is not known without an import."""
    entry = registry.TABLES[kind].get(name)
    if entry is None:
        return None
    if isinstance(entry.target, str):
        found: dict[str, Any] | None = table()["options"][kind].get(name)
        return found
    return options_of_entry(kind, entry.target)


class Config:
    """What the config class of one algorithm accepts.

    Attributes:
        known: False for an algorithm that is not in the table (a user's own); then nothing is checked.
        line: names of the config class and its bases.
        rules: the algorithm's own, in the order of `line`.
    """

    def __init__(self, algorithm: str):
        row: Mapping[str, Any] = table()["algorithms"].get(algorithm, {})
        self.algorithm = algorithm
        self.known = bool(row)
        self.line: list[str] = list(row.get("line", ()))
        self._own: Mapping[str, Any] = row.get("defaults", {})

    @functools.cached_property
    def rules(self) -> list[Rules]:
        return rules_of(self.line)

    def arguments(self, method: str) -> dict[str, dict[str, Any]]:
        """Return the rows of a method, with those it passes on to the base class.

        RLlib annotates every argument Optional, and null breaks most of them: it is taken where the default is null.
        """
        rows: dict[str, dict[str, Any]] = {}
        for name in self.line:
            found = table()["classes"][name]["methods"].get(method)
            if found is None:
                continue
            for argument, row in found["arguments"].items():
                default = self.default(method, argument)
                if default is not None and argument not in NULLABLE:
                    row = {**row, "type": row["type"].removesuffix(" | None")}
                rows.setdefault(argument, row if default is None else {**row, "default": default})
            if not found["open"]:
                break
        return rows

    def default(self, method: str, argument: str) -> Any:
        """Return the default of an argument, or None where there is none."""
        base = table()["classes"]["AlgorithmConfig"]["defaults"]
        return self._own.get(method, {}).get(argument, base.get(method, {}).get(argument))

    def method_with(self, argument: str) -> str | None:
        """Return the method that has an argument of this name."""
        return next((m for m in METHODS if argument in self.arguments(m)), None)
