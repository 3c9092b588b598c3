"""SAC: RLlib's algorithm, module and losses, on columnar replay and many updates per call.

Every option of RLlib's SAC keeps its name and meaning: see `rlkit.algos.offpolicy.step` for what the training step
adds, and docs/off-policy.md for figures.

Discrete actions may be masked (`rlkit.models.masks`). RLlib's module (2.60) takes logarithms of all probabilities, and
0 * log 0 is NaN; here what is not allowed has probability 0 and adds nothing to values, entropy or losses.

Legend: B rows, A actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.sac import SAC as RLlibSAC
from ray.rllib.algorithms.sac import SACConfig as RLlibSACConfig
from ray.rllib.algorithms.sac.sac_learner import (
    ACTION_LOG_PROBS,
    ACTION_LOG_PROBS_NEXT,
    ACTION_PROBS,
    ACTION_PROBS_NEXT,
)
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rlkit import rllib
from rlkit.algos.dqn import without_stuck
from rlkit.algos.learning.learner import ColumnLearner
from rlkit.algos.offpolicy.step import OffPolicy, OffPolicyConfig
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.models.masks import legal_of


def log_probs(probs: torch.Tensor) -> torch.Tensor:
    """Logarithms of probabilities (B, A), 0 where a probability is 0: p log p is 0 there, and so is its gradient."""
    possible = probs > 0
    return torch.where(possible, torch.where(possible, probs, 1.0).log(), 0.0)


def reachable_entropy(target: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """The mean over rows of min(target, log of the number of allowed actions).

    A temperature that waits for more entropy than the allowed actions can have grows without end.

    Args:
        target: the target entropy.
        allowed: (B, A) bool.
    """
    count = allowed.sum(dim=-1).clamp(min=1).float()
    return torch.minimum(target, count.log()).mean()


class SACModule(DefaultSACTorchRLModule):
    """RLlib's SAC module, whose Discrete actions may be masked."""

    masks = True  # see `rlkit.models.catalogs`

    def _forward_train(self, batch: Any) -> dict[str, Any]:
        out: dict[str, Any] = super()._forward_train(batch)
        if ACTION_PROBS in out and legal_of(batch[Columns.OBS]) is not None:
            out[ACTION_LOG_PROBS] = log_probs(out[ACTION_PROBS])
            out[ACTION_LOG_PROBS_NEXT] = log_probs(out[ACTION_PROBS_NEXT])
        return out


class SACLearner(ColumnLearner, SACTorchLearner):
    """RLlib's SAC learner, updated from columns: one backward pass for actor, critics and temperature."""

    def compute_loss_for_module(  # type: ignore[override]  # ColumnLearner hands all on
        self, *, module_id: str, config: Any, batch: Any, fwd_out: Any
    ) -> torch.Tensor:
        whole, allowed = self.target_entropy[module_id], legal_of(batch[Columns.OBS])
        space = self.module[module_id].unwrapped().action_space
        if allowed is not None and isinstance(space, gym.spaces.Discrete):
            batch = without_stuck(batch, (int(space.n),))
            self.target_entropy[module_id] = reachable_entropy(whole, allowed)
        try:
            loss: torch.Tensor = super().compute_loss_for_module(
                module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
            )
            return loss
        finally:
            self.target_entropy[module_id] = whole

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

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SACModule)


class SAC(OffPolicy, RLlibSAC):
    """RLlib's SAC on columnar replay."""

    @classmethod
    def get_default_config(cls) -> SACConfig:
        return SACConfig()
