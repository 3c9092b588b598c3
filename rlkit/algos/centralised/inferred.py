"""Inferred policies (section 4.2 of the paper): every agent models the others, and its targets come from the models.

    minimise -E[log μ̂_i^j(a_j | o_j) + λ H(μ̂_i^j(o_j))]      one Adam step on the latest samples, before the critics
    y_i = r_i + γ^n Q'_i(x', μ̂'_i^1(o'_1), ..., μ'_i(o'_i), ..., μ̂'_i^N(o'_N))      μ̂' targets of the models

A model of Discrete actions is a softmax, of Box actions a Gaussian around tanh of its output with a learned width.
How far a model is from the policy it models is logged as `inferred_kl_<agent>`: KL(μ̂ || target policy), for Box
actions with the width of the exploration noise (at least .05) for the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rlkit.algos.centralised.extension import JOINT, Extension
from rlkit.algos.centralised.groups import ActorGroup, Member, Part, grouped, step
from rlkit.algos.centralised.losses import masked_mean
from rlkit.algos.centralised.module import MADDPGModule, frozen
from rlkit.algos.centralised.networks import make_net
from rlkit.algos.centralised.options import LOCAL
from rlkit.algos.centralised.rows import ByAgent, Rows
from rlkit.algos.centralised.spaces import Actions, DiscreteActions
from rlkit.replay import Replay

LATEST = "latest"
LOG_STD = (-3.0, 0.5)
LEAST_STD = 0.05


# Equations of tensors (..., B, A) ---------------------------------------------------------------------------


def gaussian_log_likelihood(x: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """log N(x; mean, exp(log_std)²), summed over the action: (B,)."""
    z = (x - mean) * torch.exp(-log_std)
    return (-0.5 * z.square() - log_std - 0.9189385332046727).sum(dim=-1)


def gaussian_entropy(log_std: torch.Tensor) -> torch.Tensor:
    """Entropy of a diagonal Gaussian, (B,)."""
    return (log_std + 1.4189385332046727).sum(dim=-1)


def gaussian_kl(
    mean: torch.Tensor, log_std: torch.Tensor, other_mean: torch.Tensor, other_log_std: torch.Tensor
) -> torch.Tensor:
    """KL(N(mean, std) || N(other_mean, other_std)), summed over the action: (B,)."""
    ratio = 2.0 * (log_std - other_log_std)
    distance = ((mean - other_mean) * torch.exp(-other_log_std)).square()
    return 0.5 * (torch.exp(ratio) + distance - 1.0 - ratio).sum(dim=-1)


def categorical_kl(logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(softmax(logits) || softmax(other)), (B,)."""
    log_p, log_q = torch.log_softmax(logits, dim=-1), torch.log_softmax(other, dim=-1)
    p = log_p.exp()
    # 0 log 0 = 0 where an action is forbidden in both
    return torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p)).sum(dim=-1)


def split(out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and log standard deviation (..., A) of a Box model's output (..., 2 A)."""
    mean, width = out.chunk(2, dim=-1)
    return torch.tanh(mean), LOG_STD[0] + (LOG_STD[1] - LOG_STD[0]) * torch.sigmoid(width)


def likelihood_and_entropy(
    kind: Actions, out: torch.Tensor, codes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """log μ̂(a|o) and H(μ̂(o)), (..., B), for action codes (..., B, C)."""
    if not isinstance(kind, DiscreteActions):
        mean, log_std = split(out)
        return gaussian_log_likelihood(codes, mean, log_std), gaussian_entropy(log_std)
    likelihood = entropy = out.new_zeros(out.shape[:-1])
    for part, code in zip(kind.parts(out), kind.parts(codes), strict=True):
        log_p = torch.log_softmax(part, dim=-1)
        likelihood = likelihood + (code * log_p).sum(dim=-1)
        entropy = entropy - (log_p.exp() * log_p).sum(dim=-1)
    return likelihood, entropy


def divergence(kind: Actions, out: torch.Tensor, logits: torch.Tensor, noise: float) -> torch.Tensor:
    """KL(μ̂ || policy with these logits), (..., B)."""
    if not isinstance(kind, DiscreteActions):
        mean, log_std = split(out)
        std = torch.full_like(mean, max(noise, LEAST_STD)).log()
        return gaussian_kl(mean, log_std, torch.tanh(logits), std)
    parts = zip(kind.parts(out), kind.parts(logits), strict=True)
    return torch.stack([categorical_kl(p, q) for p, q in parts]).sum(dim=0)


# The plug-in ------------------------------------------------------------------------------------------------


class InferringModule(MADDPGModule):
    """A policy with a model, and its target, of every agent that it does not play and its critics look at."""

    trained_only = (*MADDPGModule.trained_only, "inferred", "target_inferred")

    def setup(self) -> None:
        super().setup()
        self.modelled: tuple[str, ...] = ()
        if self.joint is None or self.critic_input.local:
            return
        joint = self.joint
        self.modelled = tuple(a for a in joint.agents if a not in self.players)
        if self.modelled:
            models = {}
            for agent in self.modelled:
                kind = joint.kinds[agent]
                outputs = kind.size if kind.discrete else 2 * kind.size  # a log width of each number
                models[key_of(agent)] = make_net(
                    [joint.vectors[agent]], 0, outputs, self.model_config, "pi_gain"
                )
            self.inferred = nn.ModuleDict(models)
            self.target_inferred = frozen(self.inferred)


def key_of(agent: str) -> str:
    """An agent's name as a key of a torch ModuleDict, which takes no dots."""
    return agent.replace(".", "·")


class InferredPolicies(Extension):
    """Models of equal shape are groups: `modules[i]` models the one agent in `players[i]`.

    A policy that is not trained has no critic that learns, so its models stay as they are.
    """

    module_class = InferringModule
    models: list[ActorGroup]

    @classmethod
    def wanted(cls, config: Any) -> bool:
        return bool(config.infer_policies)

    def validate(self) -> None:
        config = self.config
        if config.recurrent_model():
            raise ValueError(
                "infer_policies: got true together with a recurrent model; inferred ones learn from single steps"
            )
        policies = list(config.policies) if config.is_multi_agent else []
        if all(config.critic_of(module_id) == LOCAL for module_id in policies):
            raise ValueError(
                f"infer_policies: got true with critics {config.critic!r}; only centralized critics of several agents "
                "look at the others, so there is nothing to infer"
            )

    def draw(self, replay: Replay, size: int, updates: int) -> dict[str, np.ndarray]:
        """Add the newest rows, oldest first, `infer_batch_size` for each update. Few rows are repeated."""
        each = self.config.infer_batch_size
        count = min(len(replay), updates * each)
        rows = (replay.ring.head - count + np.arange(count)) % replay.capacity
        return {**super().draw(replay, size, updates), LATEST: np.resize(rows, (updates, each))}

    def build(self, learner: Any) -> list[Part]:
        parts = super().build(learner)
        self.learner, members = learner, []
        for name, module in learner.players.items():
            how = learner.training_of(name)
            for agent in module.modelled if how.trained else ():
                model, target = (nets[key_of(agent)] for nets in (module.inferred, module.target_inferred))
                members.append(Member(name, (agent,), [model], [target], how, learner.joint.kinds[agent].key))
        self.models = []
        for number, group in enumerate(grouped(members, self.config.stack_agents)):
            ((agent,), *_) = group[1]
            self.models.append(ActorGroup(*group, kind=learner.joint.kinds[agent]))
            learner.optimize(self.models[-1], f"inferred_{number}", group[-1].actor_lr)
        return parts

    def before_update(self, rows: Mapping[str, Rows], log: Any) -> None:
        """One step of every model on the latest samples, and of its target."""
        if LATEST not in rows or not self.models:
            return
        recent, losses = rows[LATEST], []
        for model in self.models:
            out = model.logits(model.bank, recent.observations, recent.legal)
            likelihood, entropy = likelihood_and_entropy(model.kind, out, model.batch(recent.codes))
            bonus = self.config.infer_entropy_coeff * entropy
            losses.append(masked_mean(-likelihood - bonus, model.batch(recent.valid)))
        step(self.models, torch.cat(losses).sum())
        for model, loss in zip(self.models, losses, strict=True):
            model.move_targets()
            self._log(log, "inferred_loss", model, loss)

    def believed(self, rows: Rows) -> dict[str, ByAgent]:
        """The next actions of the others as a module's target models expect them."""
        codes: dict[str, ByAgent] = {}
        for model in self.models:
            out = model.next_logits(rows)
            logits = out if model.kind.discrete else out.chunk(2, dim=-1)[0]
            guess = model.kind.target(logits, self.config.target_noise, self.config.target_noise_clip)
            for module, (agent,), code in zip(model.modules, model.players, guess, strict=True):
                codes.setdefault(module, {}).update(rows.there({agent: code}))
        return codes

    def after_update(self, rows: Mapping[str, Rows], log: Any) -> None:
        """Log how far each model is from the target policy it models."""
        now = rows[JOINT]
        policies: ByAgent = {}
        for actor in self.learner.parts[0].actors:
            policies |= actor.spread(actor.logits(actor.targets, now.observations, now.legal))
        for model in self.models:
            out = model.logits(model.bank, now.observations, now.legal)
            far = divergence(model.kind, out, model.batch(policies), log.noise).mean(dim=-1)
            self._log(log, "inferred_kl", model, far)

    def _log(
        self, log: Any, name: str, model: ActorGroup, values: Sequence[torch.Tensor] | torch.Tensor
    ) -> None:
        for module, (agent,), value in zip(model.modules, model.players, values, strict=True):
            log([module], **{f"{name}_{agent}": [value]})
