"""Environments by name, and adapters to RLlib that are useful on their own.

    make_env("CartPole-v1", {})                        a Gymnasium id
    make_env("pettingzoo/mpe2.simple_spread_v3", {})   pettingzoo/<module>.<env>: mpe2, or a family of PettingZoo
    make_env("vmas/balance", {})                       vmas/<scenario>, with the extra `vmas`

Importing this package imports neither ray nor torch nor an environment library; the classes below load when asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlkit.envs.names import adapt, available, check_name, is_multi_agent, make_env

if TYPE_CHECKING:
    from rlkit.envs.contract import checked
    from rlkit.envs.pettingzoo import PettingZooEnv, natural_order
    from rlkit.envs.vmas import VmasBatch, VmasEnv

__all__ = [
    "PettingZooEnv",
    "VmasBatch",
    "VmasEnv",
    "adapt",
    "available",
    "check_name",
    "checked",
    "is_multi_agent",
    "make_env",
    "natural_order",
]

_LAZY = {
    "PettingZooEnv": "pettingzoo",
    "natural_order": "pettingzoo",
    "VmasBatch": "vmas",
    "VmasEnv": "vmas",
    "checked": "contract",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"rlkit.envs.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'rlkit.envs' has no attribute {name!r}")
