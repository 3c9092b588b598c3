"""SAC: RLlib's algorithm, module and losses, on columnar replay and many updates per call.

Every option of RLlib's SAC keeps its name and meaning: see `rlkit.algos.offpolicy.step` for what the training step
adds, and docs/off-policy.md for figures.

Discrete actions may be masked (`rlkit.models.masks`). RLlib's module (2.60) takes logarithms of all probabilities, and
0 * log 0 is NaN; here what is not allowed, or so unlikely that its probability is 0 in float32 (a picture of raw bytes
through an mlp), adds nothing to values, entropy or losses.

Models may be recurrent (Ni et al., arXiv 2110.05038: actor and critics with a memory each). RLlib's module keeps no
state. Here each network has its own model: a sequence is learned from with the state that the actor had when it was
played; critics, which are not there then, start from their initial state. `burn_in_len` steps warm both up. See
`rlkit.algos.offpolicy.sequences`.

Legend: B rows or sequences, T steps of a sequence, A actions, F features.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.algorithms.sac import SAC as RLlibSAC
from ray.rllib.algorithms.sac import SACConfig as RLlibSACConfig
from ray.rllib.algorithms.sac.sac_learner import (
    ACTION_LOG_PROBS,
    ACTION_LOG_PROBS_NEXT,
    ACTION_PROBS,
    ACTION_PROBS_NEXT,
    LOGPS_KEY,
    QF_LOSS_KEY,
    QF_MAX_KEY,
    QF_MEAN_KEY,
    QF_MIN_KEY,
    QF_PREDS,
    QF_TARGET_NEXT,
    QF_TWIN_LOSS_KEY,
    QF_TWIN_PREDS,
)
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rlkit import rllib
from rlkit.algos.dqn import without_stuck
from rlkit.algos.learning.learner import ColumnLearner
from rlkit.algos.offpolicy.sequences import encoded, from_start, learned_steps, steps_at
from rlkit.algos.offpolicy.step import OffPolicy, OffPolicyConfig
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.models.masks import legal_of


def log_probs(probs: torch.Tensor) -> torch.Tensor:
    """Logarithms of probabilities (B, A), 0 where a probability is 0: p log p is 0 there, and so is its gradient."""
    possible = probs > 0
    return torch.where(possible, torch.where(possible, probs, 1.0).log(), 0.0)


def automatic_entropy(actions: int) -> float:
    """What `target_entropy: auto` is with Discrete actions: .98 log A (arXiv 1910.07207, section 5).

    RLlib (2.60) takes -1, which no distribution over actions has: the temperature falls without end.
    """
    return 0.98 * math.log(actions)


def reachable_entropy(target: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """The mean over rows of min(target, log of the number of allowed actions).

    A temperature that waits for more entropy than the allowed actions can have grows without end.

    Args:
        target: the target entropy.
        allowed: (B, A) bool.
    """
    count = allowed.sum(dim=-1).clamp(min=1).float()
    return torch.minimum(target, count.log()).mean()


def soft_target(
    rewards: torch.Tensor, terminated: torch.Tensor, discount: torch.Tensor, next_value: torch.Tensor
) -> torch.Tensor:
    """y = r + γ^n V(s'), without V after termination (eq. 6 of arXiv 1812.05905); no gradient. All (B,)."""
    return (rewards + discount * (1.0 - terminated.float()) * next_value).detach()


def squared_for_huber(q: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What turns the mean Huber loss of Q-values into the mean of (Q - y)² / 2 (eq. 5). All (B,)."""
    squared = torch.nn.functional.mse_loss(q, target, reduction="none") / 2
    huber = torch.nn.functional.huber_loss(q, target, reduction="none")
    return (weights * (squared - huber)).mean()


def expected_values(out: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what is logged of Discrete actions, expected under π: log π and min Q, as with Box actions.

    RLlib (2.60) logs plain means over all actions, and the first critic alone. Outputs of the module are (B, A).
    """
    probs = out[ACTION_PROBS].detach()
    q = (probs * torch.min(out[QF_PREDS], out[QF_TWIN_PREDS]).detach()).sum(-1)
    logp = (probs * out[ACTION_LOG_PROBS].detach()).sum(-1)
    return {LOGPS_KEY: logp.mean(), QF_MEAN_KEY: q.mean(), QF_MIN_KEY: q.min(), QF_MAX_KEY: q.max()}


class SACModule(DefaultSACTorchRLModule):
    """RLlib's SAC module, whose Discrete actions may be masked and whose model may be recurrent."""

    masks = True  # see `rlkit.models.catalogs`

    def get_initial_state(self) -> Any:
        """The actor's; critics have states of their own while they learn."""
        return self.pi_encoder.get_initial_state()

    @property
    def critics_remember(self) -> bool:
        """Whether values depend on the observations before: then they cannot be asked for single ones."""
        return bool(self.is_stateful())

    def _forward_inference(self, batch: Any) -> dict[str, Any]:
        encoded_now = self.pi_encoder(batch)
        out = {Columns.ACTION_DIST_INPUTS: self.pi(encoded_now[ENCODER_OUT])}
        if Columns.STATE_OUT in encoded_now:
            out[Columns.STATE_OUT] = encoded_now[Columns.STATE_OUT]
        return out

    def _forward_train(self, batch: Any) -> dict[str, Any]:
        remembers = self.is_stateful()
        out: dict[str, Any] = self._forward_sequences(batch) if remembers else super()._forward_train(batch)
        if ACTION_PROBS in out:
            out[ACTION_LOG_PROBS] = log_probs(out[ACTION_PROBS])
            out[ACTION_LOG_PROBS_NEXT] = log_probs(out[ACTION_PROBS_NEXT])
        return out

    def _forward_sequences(self, batch: Any) -> dict[str, Any]:
        """RLlib's outputs over sequences, (B, T, ...). Each network goes over the T + 1 observations once."""
        seen = from_start(batch[Columns.OBS], batch[Columns.NEXT_OBS])
        logits = self.pi(encoded(self.pi_encoder, seen, batch[Columns.STATE_IN]))
        critics = [(self.qf_encoder, self.qf)]
        targets = [(self.target_qf_encoder, self.target_qf)]
        if self.twin_q:
            critics.append((self.qf_twin_encoder, self.qf_twin))
            targets.append((self.target_qf_twin_encoder, self.target_qf_twin))
        if isinstance(self.action_space, gym.spaces.Discrete):
            return self._discrete(seen, logits, critics, targets)
        return self._continuous(seen, logits, critics, targets, batch[Columns.ACTIONS])

    def _discrete(
        self, seen: Any, logits: torch.Tensor, critics: list[Any], targets: list[Any]
    ) -> dict[str, Any]:
        """Q-values and probabilities of all actions, (B, T, A), now and in the next step."""
        probs = torch.softmax(logits, dim=-1)
        q = [head(encoded(encoder, seen))[:, :-1] for encoder, head in critics]
        with torch.no_grad():
            q_next = torch.stack([head(encoded(encoder, seen))[:, 1:] for encoder, head in targets])
        out = {
            ACTION_PROBS: probs[:, :-1], ACTION_LOG_PROBS: probs[:, :-1].log(),
            ACTION_PROBS_NEXT: probs[:, 1:], ACTION_LOG_PROBS_NEXT: probs[:, 1:].log(),
            QF_PREDS: q[0], QF_TARGET_NEXT: q_next.amin(dim=0),
        }  # fmt: skip
        return out | ({QF_TWIN_PREDS: q[1]} if self.twin_q else {})

    def _continuous(
        self, seen: Any, logits: torch.Tensor, critics: list[Any], targets: list[Any], actions: torch.Tensor
    ) -> dict[str, Any]:
        """Q-values (B, T) of the replayed actions, of new ones now, and of new ones in the next step."""

        def value(critic: tuple[Any, Any], features: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
            encoder, head = critic
            q: torch.Tensor = head(encoder.fused(features, chosen)).squeeze(-1)
            return q

        kind = self.get_train_action_dist_cls()
        chosen, logp = kind.from_logits(logits[:, :-1]).rsample_and_logp()
        remembered = [encoded(encoder.observation_encoder, seen)[:, :-1] for encoder, _ in critics]
        q = [value(c, h, actions) for c, h in zip(critics, remembered, strict=True)]
        # the actor's objective moves no critic; its gradient passes through the chosen actions alone
        with frozen([head_or_encoder for critic in critics for head_or_encoder in critic]):
            pairs = zip(critics, remembered, strict=True)
            q_chosen = torch.stack([value(critic, h.detach(), chosen) for critic, h in pairs]).amin(dim=0)
        with torch.no_grad():
            chosen_next, logp_next = kind.from_logits(logits[:, 1:]).sample_and_logp()
            after = [encoded(encoder.observation_encoder, seen)[:, 1:] for encoder, _ in targets]
            pairs = zip(targets, after, strict=True)
            q_next = torch.stack([value(target, h, chosen_next) for target, h in pairs]).amin(dim=0)
        out = {
            QF_PREDS: q[0], "q_curr": q_chosen, "logp_resampled": logp,
            "q_target_next": q_next, "logp_next_resampled": logp_next,
        }  # fmt: skip
        return out | ({QF_TWIN_PREDS: q[1]} if self.twin_q else {})


@contextlib.contextmanager
def frozen(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Record no gradient of these modules' parameters meanwhile."""
    learned = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad = True


class SACLearner(ColumnLearner, SACTorchLearner):
    """RLlib's SAC learner, updated from columns: one backward pass for actor, critics and temperature."""

    def compute_loss_for_module(  # type: ignore[override]  # ColumnLearner hands all on
        self, *, module_id: str, config: Any, batch: Any, fwd_out: Any
    ) -> torch.Tensor:
        sequences = Columns.LOSS_MASK in batch
        if sequences:  # RLlib's loss is one of rows
            learned = learned_steps(batch[Columns.LOSS_MASK], self.config.burn_in_len)
            batch, fwd_out = steps_at(batch, learned), steps_at(fwd_out, learned)
        whole, allowed = self.target_entropy[module_id], legal_of(batch[Columns.OBS])
        space = self.module[module_id].unwrapped().action_space
        if isinstance(space, gym.spaces.Discrete):
            target = whole
            if config.target_entropy in (None, "auto"):
                target = torch.full_like(whole, automatic_entropy(int(space.n)), dtype=torch.float32)
            if allowed is not None:
                batch = without_stuck(batch, (int(space.n),))
                target = reachable_entropy(target, allowed)
            self.target_entropy[module_id] = target
        if ACTION_PROBS in fwd_out and not config.twin_q:
            # RLlib (2.60) takes the smaller one of two critics for the policy, also where there is one
            fwd_out = {**fwd_out, QF_TWIN_PREDS: fwd_out[QF_PREDS]}
        try:
            loss: torch.Tensor = super().compute_loss_for_module(
                module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
            )
            if config.td_error_loss_fn == "mse":
                loss = loss + self._squared(module_id, config, batch, fwd_out)
            if ACTION_PROBS in fwd_out and (self._gate is None or self._gate.is_open):
                self.metrics.log_dict(expected_values(fwd_out), key=module_id, window=1)
            return loss
        finally:
            self.target_entropy[module_id] = whole
            if sequences and self._gate is not None:
                # sequences are drawn uniformly, nobody asks for the errors of their steps
                self._gate.td_errors.pop(module_id, None)

    def _squared(self, module_id: str, config: Any, batch: Any, fwd_out: Any) -> torch.Tensor:
        """What turns RLlib's Huber losses of the critics into squared ones; they are logged anew."""
        alpha = self.curr_log_alpha[module_id].exp().detach()
        critics = {QF_LOSS_KEY: fwd_out[QF_PREDS]}
        if config.twin_q:
            critics[QF_TWIN_LOSS_KEY] = fwd_out[QF_TWIN_PREDS]
        if ACTION_PROBS in fwd_out:
            probs, logp = fwd_out[ACTION_PROBS_NEXT], fwd_out[ACTION_LOG_PROBS_NEXT]
            next_value = (probs * (fwd_out[QF_TARGET_NEXT] - alpha * logp)).sum(-1)
            chosen = batch[Columns.ACTIONS].long().unsqueeze(-1)
            critics = {name: q.gather(-1, chosen).squeeze(-1) for name, q in critics.items()}
        else:
            next_value = fwd_out["q_target_next"] - alpha * fwd_out["logp_next_resampled"]
        discount = config.gamma ** batch["n_step"]
        target = soft_target(batch[Columns.REWARDS], batch[Columns.TERMINATEDS], discount, next_value)
        total = torch.zeros(())
        for name, q in critics.items():
            more = squared_for_huber(q, target, batch["weights"])
            squared = rllib.add_to_sac_loss(self, module_id, name, more)
            self.metrics.log_value((module_id, name), squared, window=1)
            total = total + more
        return total

    def backward(self, losses: Mapping[str, torch.Tensor]) -> None:
        super().backward(losses)
        rllib.forget_sac_losses(self)


class SACConfig(OffPolicyConfig, RLlibSACConfig):
    """RLlib's SACConfig for the columnar SAC."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or SAC)
        self.burn_in_len = 0
        self.td_error_loss_fn = "huber"

    def training(
        self,
        *,
        burn_in_len: int = NotProvided,
        td_error_loss_fn: Literal["huber", "mse"] = NotProvided,
        **kwargs: Any,
    ) -> SACConfig:
        """Set the training options.

        Args:
            burn_in_len: with a recurrent model, first steps of a sequence that only warm the state up.
            td_error_loss_fn: of the critics, RLlib's word of DQN: `huber`, as RLlib's SAC, or `mse`, as the paper.
                Where errors are far above 1 Huber's loss is the absolute error, whose minimum is the median of the
                targets: an end that comes once in a hundred steps does not count, and values are those of a life
                without end.
            **kwargs: Those of RLlib's SAC and of the off-policy step.
        """
        super().training(**kwargs)
        if burn_in_len is not NotProvided:
            self.burn_in_len = burn_in_len
        if td_error_loss_fn is not NotProvided:
            self.td_error_loss_fn = td_error_loss_fn
        return self

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
