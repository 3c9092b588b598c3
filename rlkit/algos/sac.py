"""SAC: RLlib's algorithm, module and losses, on columnar replay and many updates per call.

Every option of RLlib's SAC keeps its name and meaning: see `rlkit.algos.offpolicy.step` for what the training step
adds, and docs/off-policy.md for figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.sac import SAC as RLlibSAC
from ray.rllib.algorithms.sac import SACConfig as RLlibSACConfig
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner

from rlkit import rllib
from rlkit.algos.learning.learner import ColumnLearner
from rlkit.algos.offpolicy.step import OffPolicy, OffPolicyConfig
from rlkit.algos.sampling.array_runner import ArrayEnvRunner


class SACLearner(ColumnLearner, SACTorchLearner):
    """RLlib's SAC learner, updated from columns: one backward pass for actor, critics and temperature."""

    def backward(self, losses: Mapping[str, torch.Tensor]) -> None:
        super().backward(losses)
        rllib.forget_sac_losses(self)


class SACConfig(OffPolicyConfig, RLlibSACConfig):
    """RLlib's SACConfig for the columnar SAC."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or SAC)

    def validate(self) -> None:
        if getattr(self, "env_runner_cls", None) is None and not self.is_multi_agent:
            self.env_runner_cls = ArrayEnvRunner
        super().validate()

    def get_default_learner_class(self) -> Any:
        return SACLearner


class SAC(OffPolicy, RLlibSAC):
    """RLlib's SAC on columnar replay."""

    @classmethod
    def get_default_config(cls) -> SACConfig:
        return SACConfig()
