"""rlkit: recipes, exact evaluation, curriculum, callbacks, MADDPG and DRON on Ray RLlib's new API stack.

Names are imported on first use: `import rlkit` costs milliseconds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__version__ = "0.1.0"


def lazy_names(package: str, where: Mapping[str, str]) -> tuple[Callable[[str], Any], list[str]]:
    """Return `__getattr__` and `__all__` of a package whose names are imported on first use.

    Args:
        package: its `__name__`.
        where: name -> the module that has it, relative to rlkit: `play.agent`.
    """

    def load(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"rlkit.{where[name]}"), name)

    return load, sorted(where)


__getattr__, __all__ = lazy_names(
    __name__,
    {
        "train": "launch.train",
        "resume": "launch.train",
        "load": "play.agent",
        "Agent": "play.agent",
        "evaluate": "play.evaluation",
        "Evaluation": "play.evaluation",
        "cross_play": "play.crossplay",
        "open_run": "runs.run",
        "Run": "runs.run",
        "Recipe": "recipe",
        "register_env": "registry",
        "register_model": "registry",
        "register_callback": "registry",
        "register_algorithm": "registry",
        "register_exploration": "registry",
        "RlkitError": "errors",
    },
)
__all__ += ["__version__"]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
