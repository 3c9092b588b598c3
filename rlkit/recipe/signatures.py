"""The generated table of what RLlib's config methods and the registered names accept (signatures.json)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlkit import registry
from rlkit.recipe.annotations import GIVEN, options_of

METHODS = (
    "environment", "env_runners", "training", "learners", "evaluation", "multi_agent", "rl_module", "reporting",
    "debugging", "fault_tolerance", "offline_data", "checkpointing",
)  # fmt: skip
REGENERATE = "python scripts/generate_signatures.py"


@functools.cache
def table() -> dict[str, Any]:
    """Return signatures.json."""
    path = Path(__file__).with_name("signatures.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return loaded


def options_of_entry(kind: str, target: Callable[..., Any]) -> dict[str, Any]:
    """Return the options a recipe may give to a registered object."""
    return options_of(target, frozenset({"self"}) if kind in ("envs", "callbacks", "explorations") else GIVEN)


def options(kind: str, name: str) -> dict[str, Any] | None:
    """Return `{"arguments": …, "open": …}` of a registered name; None where that is not known without an import."""
    entry = registry.TABLES[kind].get(name)
    if entry is None:
        return None
    if isinstance(entry.target, str):
        found: dict[str, Any] | None = table().get("options", {}).get(kind, {}).get(name)
        return found
    return options_of_entry(kind, entry.target)


class Config:
    """What the config class of one algorithm accepts.

    Attributes:
        known: False for an algorithm that is not in the table (a user's own); then nothing is checked.
        line: names of the config class and its bases.
    """

    def __init__(self, algorithm: str):
        row: Mapping[str, Any] = table().get("algorithms", {}).get(algorithm, {})
        self.algorithm = algorithm
        self.known = bool(row)
        self.line: list[str] = list(row.get("line", ()))
        self._own: Mapping[str, Any] = row.get("defaults", {})

    def arguments(self, method: str) -> dict[str, dict[str, Any]]:
        """Return {argument: row} of a method, with those it passes on to the base class."""
        rows: dict[str, dict[str, Any]] = {}
        for name in self.line:
            found = table()["classes"][name]["methods"].get(method)
            if found is None:
                continue
            for argument, row in found["arguments"].items():
                rows.setdefault(argument, row)
            if not found["open"]:
                break
        return rows

    def default(self, method: str, argument: str) -> Any:
        """Return the default of an argument, or None where there is none."""
        base = table().get("classes", {}).get("AlgorithmConfig", {}).get("defaults", {})
        return self._own.get(method, {}).get(argument, base.get(method, {}).get(argument))

    def method_with(self, argument: str) -> str | None:
        """Return the method that has an argument of this name."""
        return next((m for m in METHODS if argument in self.arguments(m)), None)
