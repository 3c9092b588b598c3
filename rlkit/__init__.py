"""rlkit: recipes, exact evaluation, curriculum, callbacks, MADDPG and DRON on Ray RLlib's new API stack.

Names are imported on first use: `import rlkit` costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "train": "rlkit.launch.train",
    "resume": "rlkit.launch.train",
    "load": "rlkit.play.agent",
    "Agent": "rlkit.play.agent",
    "evaluate": "rlkit.play.evaluation",
    "Evaluation": "rlkit.play.evaluation",
    "cross_play": "rlkit.play.crossplay",
    "open_run": "rlkit.runs.run",
    "Run": "rlkit.runs.run",
    "Recipe": "rlkit.recipe",
    "register_env": "rlkit.registry",
    "register_model": "rlkit.registry",
    "register_callback": "rlkit.registry",
    "RlkitError": "rlkit.errors",
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'rlkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
