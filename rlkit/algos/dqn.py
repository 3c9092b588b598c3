"""DQN: RLlib's algorithm, module and loss, on columnar replay and many updates per call.

Every option of RLlib's DQN keeps its name and meaning (double, dueling, distributional, n-step, prioritized
replay): see `rlkit.algos.offpolicy` for what the training step adds, and docs/off-policy.md for figures.
"""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.dqn import DQN as RLlibDQN
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner

from rlkit.algos.learner import ColumnLearner
from rlkit.algos.offpolicy import OffPolicy, OffPolicyConfig


class DQNLearner(ColumnLearner, DQNTorchLearner):
    """RLlib's DQN learner, updated from columns."""


class DQNConfig(OffPolicyConfig, RLlibDQNConfig):
    """RLlib's DQNConfig for the columnar DQN."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or DQN)

    def get_default_learner_class(self) -> Any:
        return DQNLearner


class DQN(OffPolicy, RLlibDQN):
    """RLlib's DQN on columnar replay."""

    @classmethod
    def get_default_config(cls) -> DQNConfig:
        return DQNConfig()
