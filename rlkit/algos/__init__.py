"""Algorithms: RLlib's own configuration classes, with rlkit's training step behind them.

    from rlkit.algos import DQNConfig
    algorithm = DQNConfig().environment("CartPole-v1").training(training_intensity=32).build_algo()

Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "DQN": "rlkit.algos.dqn",
    "DQNConfig": "rlkit.algos.dqn",
    "DRON": "rlkit.algos.dron",
    "DRONConfig": "rlkit.algos.dron",
    "MADDPG": "rlkit.algos.maddpg",
    "MADDPGConfig": "rlkit.algos.maddpg",
    "MATD3": "rlkit.algos.maddpg",
    "MATD3Config": "rlkit.algos.maddpg",
    "PPO": "rlkit.algos.ppo",
    "PPOConfig": "rlkit.algos.ppo",
    "SAC": "rlkit.algos.sac",
    "SACConfig": "rlkit.algos.sac",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
