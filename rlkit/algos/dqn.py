"""DQN: RLlib's algorithm, module and loss, on columnar replay and many updates per call.

Every option of RLlib's DQN keeps its name and meaning (double, dueling, distributional, n-step, prioritized
replay): see `rlkit.algos.offpolicy.step` for what the training step adds, and docs/off-policy.md for figures.

Deviations from RLlib's module (2.60):
1. Action masks (`rlkit.models.masks`) work with distributions too, and a dueling network centres on allowed actions.
2. Random actions are uniform over the allowed ones. RLlib never draws an action whose Q-value is exactly 0.
3. A recurrent module explores in any number of environments. RLlib mixes actions of shape (B,) and (B, 1).
4. A dueling network of distributions has a value for each atom, and centres advantages over actions (Rainbow, arXiv
   1710.02298, section 3). RLlib adds one value to the logits of all atoms, which the softmax takes out again.

Legend: B rows, A actions, N atoms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.dqn import DQN as RLlibDQN
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import ATOMS, QF_LOGITS, QF_PREDS, QF_PROBS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rlkit.algos.learning.learner import ColumnLearner
from rlkit.algos.offpolicy.step import OffPolicy, OffPolicyConfig
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.models.masks import ILLEGAL_Q, legal_of, masked, stuck
from rlkit.rllib import QForward


def masked_q(q: torch.Tensor, allowed: torch.Tensor, dueling: bool) -> torch.Tensor:
    """Q-values of allowed actions, -inf elsewhere, (B, A); a row in which nothing is allowed stays as it is.

    A dueling network's Q = V + A - mean A has the mean V; with a mask it becomes V + A - mean of allowed A, so that
    advantages of actions that are never taken do not move those of the others.

    Args:
        q: (B, A).
        allowed: (B, A) bool.
    """
    if dueling:
        count = allowed.sum(dim=-1, keepdim=True)
        mean = q.mean(dim=-1, keepdim=True)
        mean_allowed = torch.where(allowed, q, 0.0).sum(dim=-1, keepdim=True) / count.clamp(min=1)
        q = q + torch.where(count > 0, mean - mean_allowed, 0.0)
    return masked(q, allowed, (q.shape[-1],), ILLEGAL_Q)


def dueling_logits(
    advantages: torch.Tensor, values: torch.Tensor, allowed: torch.Tensor | None
) -> torch.Tensor:
    """Logits of each action's distribution, (..., A, N): values plus advantages less their mean over actions.

    Args:
        advantages: (..., A, N).
        values: (..., N).
        allowed: (..., A) bool, the actions of that mean; None: all.
    """
    if allowed is None:
        mean = advantages.mean(dim=-2, keepdim=True)
    else:
        weight = allowed.unsqueeze(-1).to(advantages.dtype)
        mean = (advantages * weight).sum(dim=-2, keepdim=True) / weight.sum(dim=-2, keepdim=True).clamp(min=1)
    return values.unsqueeze(-2) + advantages - mean


def epsilon_greedy(q: torch.Tensor, epsilon: Any) -> torch.Tensor:
    """The best action, or with probability epsilon any allowed one, (...,).

    Args:
        q: (..., A), -inf where an action is not allowed.
    """
    rows = q.reshape(-1, q.shape[-1])
    anything = torch.multinomial((rows != ILLEGAL_Q).float(), num_samples=1).squeeze(-1)
    explores = torch.rand(len(rows), device=q.device) < epsilon
    return torch.where(explores, anything, rows.argmax(dim=-1)).reshape(q.shape[:-1])


def without_stuck(batch: Mapping[str, Any], sizes: tuple[int, ...]) -> Mapping[str, Any]:
    """Return a batch in which nothing is bootstrapped from where the next observation allows nothing.

    Args:
        batch: `new_obs`, and `terminateds` (B,).
        sizes: actions of each choice.
    """
    allowed = legal_of(batch[Columns.NEXT_OBS])
    if allowed is None:
        return batch
    ended = batch[Columns.TERMINATEDS]
    return {**batch, Columns.TERMINATEDS: ended.bool() | stuck(allowed, sizes)}


class DQNModule(QForward, DefaultDQNTorchRLModule):
    """RLlib's DQN module, with masks and an exploration of its own."""

    masks = True  # see `rlkit.models.catalogs`

    def setup(self) -> None:
        atoms = int(self.model_config["num_atoms"])
        if self.model_config["dueling"] and atoms > 1 and hasattr(self.catalog, "vf_head_config"):
            self.catalog.vf_head_config.output_layer_dim = atoms
        super().setup()

    def q_forward(self, batch: Any, encoder: Any, head: Any) -> dict[str, Any]:
        allowed = legal_of(batch[Columns.OBS])
        if self.uses_dueling and self.num_atoms > 1:
            out = self._dueling_distributions(encoder(batch), head, allowed)
        else:
            out = super().q_forward(batch, encoder, head)
        if allowed is not None:
            out[QF_PREDS] = masked_q(out[QF_PREDS], allowed, self.uses_dueling and self.num_atoms == 1)
        return out

    def _dueling_distributions(self, encoded: Any, head: Any, allowed: Any) -> dict[str, Any]:
        found = self.compute_advantage_distribution(head["af"](encoded[ENCODER_OUT]))
        logits = dueling_logits(found["logits"], head["vf"](encoded[ENCODER_OUT]), allowed)
        probs = logits.softmax(dim=-1)
        out = {
            ATOMS: found[ATOMS],
            QF_LOGITS: logits,
            QF_PROBS: probs,
            QF_PREDS: (found[ATOMS] * probs).sum(dim=-1),
        }
        if Columns.STATE_OUT in encoded:
            out[Columns.STATE_OUT] = encoded[Columns.STATE_OUT]
        return out

    def _forward_exploration(self, batch: dict[str, Any], t: int, **kwargs: Any) -> dict[str, Any]:
        found = self.compute_q_values(batch)
        self.epsilon_schedule.update(t)
        out = {Columns.ACTIONS: epsilon_greedy(found[QF_PREDS], self.epsilon_schedule.get_current_value())}
        if Columns.STATE_OUT in found:
            out[Columns.STATE_OUT] = found[Columns.STATE_OUT]
        return out


class DQNLearner(ColumnLearner, DQNTorchLearner):
    """RLlib's DQN learner, updated from columns."""

    def compute_loss_for_module(  # type: ignore[override]  # ColumnLearner hands all on
        self, *, module_id: str, config: Any, batch: Any, fwd_out: Any
    ) -> torch.Tensor:
        sizes = (int(self.module[module_id].unwrapped().action_space.n),)
        loss: torch.Tensor = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=without_stuck(batch, sizes), fwd_out=fwd_out
        )
        return loss


class DQNConfig(OffPolicyConfig, RLlibDQNConfig):
    """RLlib's DQNConfig for the columnar DQN."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or DQN)

    def validate(self) -> None:
        if getattr(self, "env_runner_cls", None) is None and not self.is_multi_agent:
            self.env_runner_cls = ArrayEnvRunner
        super().validate()

    def get_default_learner_class(self) -> Any:
        return DQNLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=DQNModule)


class DQN(OffPolicy, RLlibDQN):
    """RLlib's DQN on columnar replay."""

    @classmethod
    def get_default_config(cls) -> DQNConfig:
        return DQNConfig()
