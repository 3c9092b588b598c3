"""What recipes must know of tag for one: its hunters by name, and what is wrong with a pool of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlkit.envs.rules import EnvRules, Fault
from rlkit.errors import did_you_mean

HUNTERS = ("chase", "lead", "surround")


def faults(env_config: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with the opponents of an `env_config`."""
    pool = env_config.get("opponents")
    if pool is None:
        return
    if not pool:
        yield ("opponents",), "got no opponents", f"use some of {', '.join(HUNTERS)}"
    for name, weight in pool.items():
        if name not in HUNTERS:
            message = f"there are no hunters {name!r}{did_you_mean(name, HUNTERS)}"
            yield ("opponents", name), message, f"use some of {', '.join(HUNTERS)}"
        elif not 0 < weight < float("inf"):
            yield ("opponents", name), f"got weight {weight}, expected a positive number", "write 1"


RULES = EnvRules(faults, lambda env_config: len(env_config.get("opponents") or HUNTERS))
