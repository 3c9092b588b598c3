"""Exploration by name, with RLlib's old names and parameters, for RLlib's new API stack.

    from rlkit.exploration import configure
    config = DQNConfig().environment("CartPole-v1")
    configure(config, {"type": "EpsilonGreedy", "final_epsilon": 0.02, "epsilon_timesteps": 10_000})

`configure` changes an unfrozen AlgorithmConfig and raises ValueError for a combination that cannot work.
"""

from rlkit import lazy_names
from rlkit.registry import TABLES

TYPES = {name: entry.module.removeprefix("rlkit.") for name, entry in TABLES["explorations"].items()}

__getattr__, __all__ = lazy_names(
    __name__, {**TYPES, "configure": "exploration.base", "create": "exploration.base"}
)
__all__ += ["TYPES"]
