"""What recipes must know of the arguments of rlkit's own environments: faults, and how many opponent types there are.

A module of rules imports neither ray nor torch; it is imported when a recipe uses its environment.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit import registry

Fault = tuple[tuple[str | int, ...], str, str]
"""Path within `env_config`, what is wrong, and the fix."""


def listed(names: Sequence[Any]) -> Iterator[Fault]:
    """Yield what is wrong with a list of opponents: an entry that is no name, or one that stands there twice."""
    for index, name in enumerate(names):
        if not isinstance(name, str):
            yield ("opponents", index), f"got {name!r}, expected the name of an opponent", "write names"
        elif name in names[:index]:
            message = f"{name} is in the list twice"
            yield ("opponents", index), message, f"write weights: {{{name}: 2, …}}"


@dataclass(frozen=True)
class EnvRules:
    """Of one environment.

    Attributes:
        faults: yields what is wrong with an `env_config`.
        types: number of opponent types that it puts into `infos["opponent_type"]`, for a sound `env_config`.
        events: whether infos tell more of an opponent's move than the action (`opponent_moves`, `ball_lost`).
    """

    faults: Callable[[Mapping[str, Any]], Iterator[Fault]]
    types: Callable[[Mapping[str, Any]], int]
    events: bool = False


# environment -> its rules
WHERE = {
    "soccer": "rlkit.envs.soccer_styles:RULES",
    "matrix_game": "rlkit.envs.matrix_rules:RULES",
    "tag_pool": "rlkit.envs.tag_rules:RULES",
}


def rules_of(env: str) -> EnvRules | None:
    """Return the rules of an environment, or None if it has none."""
    if env not in WHERE:
        return None
    module, _, attribute = WHERE[env].partition(":")
    found: EnvRules = getattr(importlib.import_module(module), attribute)
    return found


def opponent_types(env: str, env_config: Mapping[str, Any]) -> int | None:
    """Return how many types of opponents an environment labels: 0 for none, None where that is not known."""
    rules = rules_of(env)
    if rules is not None:
        return None if any(rules.faults(env_config)) else rules.types(env_config)
    entry = registry.TABLES["envs"].get(env)
    return None if entry is not None and not entry.module.startswith("rlkit.") else 0
