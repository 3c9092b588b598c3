"""Inferred policies ([P] §4.2): every agent models the others, and its critic's targets come from the models.

    minimise -E[log μ̂_i^j(a_j | o_j) + λ H(μ̂_i^j(o_j))]      one Adam step on the latest samples, before the critics
    y_i = r_i + γ^n Q'_i(x', μ̂'_i^1(o'_1), ..., μ'_i(o'_i), ..., μ̂'_i^N(o'_N))      μ̂' targets of the models

A model of Discrete actions is a softmax, of Box actions a Gaussian around tanh of its output with a learned width.
How far a model is from the policy it models is logged as `inferred_kl_<agent>`: KL(μ̂ || target policy), for Box
actions with the width of the exploration noise (at least .05) for the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rlkit.algos.centralised.actions import ActionKind, DiscreteActions, masked
from rlkit.algos.centralised.banks import Bank, LoopBank, StackedBank, stack_key
from rlkit.algos.centralised.groups import ActorGroup, Group, Training
from rlkit.algos.centralised.losses import (
    categorical_kl,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_likelihood,
    masked_mean,
)
from rlkit.algos.centralised.rows import ByAgent, Rows
from rlkit.algos.centralised.update import Report, Rules, step

LOG_STD = (-3.0, 0.5)
LEAST_STD = 0.05


def outputs_of(kind: ActionKind) -> int:
    """Numbers a model puts out: logits, and for Box actions a log width of each."""
    return kind.logits if kind.discrete else 2 * kind.logits


def split(out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and log standard deviation (..., A) of a Box model's output (..., 2 A)."""
    mean, width = out.chunk(2, dim=-1)
    return torch.tanh(mean), LOG_STD[0] + (LOG_STD[1] - LOG_STD[0]) * torch.sigmoid(width)


def likelihood_and_entropy(
    kind: ActionKind, out: torch.Tensor, codes: torch.Tensor
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


def divergence(kind: ActionKind, out: torch.Tensor, logits: torch.Tensor, noise: float) -> torch.Tensor:
    """KL(μ̂ || policy with these logits), (..., B)."""
    if not isinstance(kind, DiscreteActions):
        mean, log_std = split(out)
        std = torch.full_like(mean, max(noise, LEAST_STD)).log()
        return gaussian_kl(mean, log_std, torch.tanh(logits), std)
    parts = zip(kind.parts(out), kind.parts(logits), strict=True)
    return torch.stack([categorical_kl(p, q) for p, q in parts]).sum(dim=0)


class ModelGroup(Group):
    """Models of equal shape: `modules[i]` models the one agent in `players[i]`."""

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        bank: Bank,
        targets: Bank,
        training: Training,
        kind: ActionKind,
    ):
        super().__init__([m for m, _ in pairs], [(a,) for _, a in pairs], bank, targets, training)
        self.kind = kind

    def outputs(self, bank: Bank, vectors: ByAgent, legal: ByAgent) -> torch.Tensor:
        """Return (n, B, outputs) for observation vectors by agent."""
        out = bank(self.batch(vectors))
        return masked(out, self.batch(legal)) if self.players[0][0] in legal else out


def make_models(
    modules: Mapping[str, Any],
    training: Callable[[str], Training],
    kinds: Mapping[str, ActionKind],
    stack: bool,
) -> list[ModelGroup]:
    """Group all models, `modules[m].inferred[name of agent]`, by shape."""
    found: dict[Any, list[tuple[str, str]]] = {}
    for name, module in modules.items():
        for agent in module.modelled:
            shape = stack_key(module.inferred[key_of(agent)]) if stack else None
            same = (name, agent) if shape is None else (shape, kinds[agent].key, training(name))
            found.setdefault(same, []).append((name, agent))
    groups = []
    for pairs in found.values():
        bank = (
            StackedBank
            if stack and stack_key(modules[pairs[0][0]].inferred[key_of(pairs[0][1])])
            else LoopBank
        )
        mains = [modules[m].inferred[key_of(a)] for m, a in pairs]
        targets = [modules[m].target_inferred[key_of(a)] for m, a in pairs]
        groups.append(
            ModelGroup(pairs, bank(mains), bank(targets), training(pairs[0][0]), kinds[pairs[0][1]])
        )
    return groups


def key_of(agent: str) -> str:
    """An agent's name as a key of a torch ModuleDict, which takes no dots."""
    return agent.replace(".", "·")


def model_step(groups: Sequence[ModelGroup], rows: Rows, entropy_coeff: float, report: Report) -> None:
    """One step of every model on the latest samples, and of its target."""
    losses = []
    for group in groups:
        out = group.outputs(group.bank, rows.observations, rows.legal)
        likelihood, entropy = likelihood_and_entropy(group.kind, out, group.batch(rows.codes))
        mask = None if rows.valid is None else group.batch(rows.valid)
        losses.append(masked_mean(-likelihood - entropy_coeff * entropy, mask))
    step(groups, torch.cat(losses).sum())
    for group, loss in zip(groups, losses, strict=True):
        group.move_targets()
        for module, (agent,), value in zip(group.modules, group.players, loss, strict=True):
            report.add(module, **{f"inferred_loss_{agent}": value})


def model_codes(groups: Sequence[ModelGroup], rows: Rows, rules: Rules) -> dict[str, ByAgent]:
    """Return, by module, the codes of the other agents' next actions as its target models expect them."""
    codes: dict[str, ByAgent] = {}
    for group in groups:
        out = group.outputs(group.targets, rows.next_observations, rows.next_legal)
        logits = out if group.kind.discrete else out.chunk(2, dim=-1)[0]
        guess = group.kind.target(logits, rules.target_noise, rules.target_noise_clip)
        for module, (agent,), code in zip(group.modules, group.players, guess, strict=True):
            if rows.next_present is not None:
                code = code * rows.next_present[agent][..., None]
            codes.setdefault(module, {})[agent] = code
    return codes


def log_divergence(
    groups: Sequence[ModelGroup], actors: Sequence[ActorGroup], rows: Rows, noise: float, report: Report
) -> None:
    """Report how far each model is from the target policy it models."""
    policies: ByAgent = {}
    for actor in actors:
        policies |= actor.spread(actor.logits(actor.targets, rows.observations, rows.legal))
    for group in groups:
        out = group.outputs(group.bank, rows.observations, rows.legal)
        values = divergence(group.kind, out, group.batch(policies), noise).mean(dim=-1)
        for module, (agent,), value in zip(group.modules, group.players, values, strict=True):
            report.add(module, **{f"inferred_kl_{agent}": value})
