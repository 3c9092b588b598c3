"""One MADDPG update: the essay.

    a'_j = μ'_j(o'_j)                                     target actors, smoothed or sampled
    y_i  = r_i + γ^n min_c Q'_ic(x', a'_1 ... a'_N)       0 after termination
    minimise (Q_ic(x, a) - y_i)²                          every critic
    maximise Q_i1(x, a with a_i = μ_i(o_i))               every actor, each `policy_delay`-th time
    θ' ← τ θ + (1 - τ) θ'                                 then the targets

The other agents' actions in the actor's objective are the replayed ones ([C] p_train), targets use the target actors.

Legend: B rows, N agents, n networks of a group, g agents per module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from rlkit.algos.centralised.banks import clip_gradients
from rlkit.algos.centralised.groups import ActorGroup, CriticGroup, Group
from rlkit.algos.centralised.losses import actor_losses, critic_losses, td_targets
from rlkit.algos.centralised.rows import ByAgent, Rows


@dataclass(frozen=True)
class Rules:
    """Options of an update; see `MADDPGConfig.training`."""

    target_noise: float = 0.0
    target_noise_clip: float = 0.5
    hard_gumbel: bool = True
    logit_regularisation: float = 1e-3


class Fault(Exception):
    """A gradient is NaN or inf; nothing was stepped.

    Attributes:
        modules: whose.
    """

    def __init__(self, modules: list[str]):
        super().__init__(f"NaN or inf in the gradient of {', '.join(modules)}")
        self.modules = modules


class Report:
    """What an update saw.

    Attributes:
        td_errors: |TD error| of each row, mean over agents, (B,).
        values: {module: {name: number}}; filled only if `full`.
    """

    def __init__(self, full: bool):
        self.full = full
        self.values: dict[str, dict[str, torch.Tensor]] = {}
        self._errors: list[torch.Tensor] = []

    def add(self, module: str, **values: torch.Tensor) -> None:
        self.values.setdefault(module, {}).update({name: v.detach() for name, v in values.items()})

    def add_errors(self, errors: ByAgent) -> None:
        self._errors += errors.values()

    def absorb(self, other: Report, suffix: str) -> None:
        """Take over another report, its values under names with a suffix."""
        self._errors += other._errors
        for module, values in other.values.items():
            self.add(module, **{name + suffix: value for name, value in values.items()})

    @property
    def td_errors(self) -> torch.Tensor:
        return torch.stack(self._errors).mean(dim=0)


def target_codes(groups: Sequence[ActorGroup], rows: Rows, rules: Rules) -> ByAgent:
    """Return the action codes of the target policies in the next observations, by agent, without a gradient."""
    codes: ByAgent = {}
    vectors, legal = rows.next_observations, rows.next_legal
    if rows.recurrent:  # the state begins before the first step
        vectors, legal = _from_start(rows.observations, vectors), _from_start(rows.legal, legal)
    for group in groups:
        logits = group.logits(group.targets, vectors, legal)
        logits = logits[..., 1:, :] if rows.recurrent else logits
        code = group.kind.target(logits, rules.target_noise, rules.target_noise_clip)
        codes |= group.spread(code)
    if rows.next_present is not None:
        codes = {agent: code * rows.next_present[agent][..., None] for agent, code in codes.items()}
    return {agent: codes[agent] for agent in rows.codes if agent in codes}


def _from_start(values: ByAgent, following: ByAgent) -> ByAgent:
    """Put the first of (B, T, ...) in front of the T that follow each step."""
    return {a: torch.cat([values[a][:, :1], following[a]], dim=1) for a in values}


def critic_targets(
    group: CriticGroup, rows: Rows, codes: ByAgent, inferred: Mapping[str, ByAgent] | None = None
) -> torch.Tensor:
    """Return y (n, g B) of the critics of a group, without a gradient.

    Args:
        group: the critics.
        rows: a minibatch.
        codes: of the target policies' next actions, by agent.
        inferred: for the modules that model others, the codes they expect of them, by agent.
    """
    if inferred:
        own = [
            torch.cat(
                [entry(rows.next_observations, {**codes, **inferred.get(m, {})}, a) for a in entry.players]
            )
            for m, entry in zip(group.modules, group.inputs, strict=True)
        ]
        x, common = torch.stack(own), False
    else:
        joint = torch.cat([rows.next_joint, *codes.values()], dim=-1) if group.common else None
        x, common = group.input(joint, rows.next_observations, codes), group.common
    if rows.recurrent:
        first = group.input(rows.joint, rows.observations, rows.codes)[..., :1, :]
        first = first if first.dim() == x.dim() else first.expand(*x.shape[:-2], *first.shape[-2:])
        q_tp1 = group.values(group.targets, torch.cat([first, x], dim=-2), common)[..., 1:].amin(dim=0)
    else:
        q_tp1 = group.values(group.targets, x, common).amin(dim=0)
    discount = group.repeated(rows.discount)
    return td_targets(group.batch(rows.rewards), discount, group.batch(rows.terminated), q_tp1)


def critic_step(group: CriticGroup, rows: Rows, y_t: torch.Tensor, report: Report) -> None:
    """Fit the critics of a group to their targets y (n, g B)."""
    mask = None if rows.valid is None else group.batch(rows.valid)
    weights = None if rows.weights is None else group.repeated(rows.weights)
    q_t = group.values(group.bank, group.input(rows.joint, rows.observations, rows.codes))
    losses = sum(critic_losses(q, y_t, weights, mask) for q in q_t)
    norms = step([group], losses.sum())
    if not report.full and rows.weights is None:
        return
    with torch.no_grad():
        errors = (q_t[0] - y_t).abs()
        report.add_errors(group.spread(errors if mask is None else errors * mask))
    for i, module in enumerate(group.modules):
        report.add(
            module,
            critic_loss=losses[i],
            q_mean=q_t[0, i].mean(),
            td_error_mean=errors[i].mean(),
            critic_gradient_norm=norms[0][i],
        )


def actor_step(
    actors: Sequence[ActorGroup],
    critics: Sequence[CriticGroup],
    rows: Rows,
    temperature: float,
    rules: Rules,
    report: Report,
    share: float = 1.0,
) -> None:
    """Follow the critics' gradient, times `share`, with every trained actor."""
    trained = [group for group in actors if group.training.trained]
    codes: ByAgent = {}
    logits = []
    for group in trained:
        logits.append(group.logits(group.bank, rows.observations, rows.legal))
        codes |= group.spread(group.kind.relaxed(logits[-1], temperature, rules.hard_gumbel))
    values: ByAgent = {}
    for critic in critics:
        values |= judge(critic, rows, codes)
    losses = []
    for group, out in zip(trained, logits, strict=True):
        mask = None if rows.valid is None else group.batch(rows.valid)
        losses.append(actor_losses(group.batch(values), out, rules.logit_regularisation, mask))
    norms = step(trained, share * torch.cat(losses).sum())
    if not report.full:
        return
    for group, loss, norm in zip(trained, losses, norms, strict=True):
        for i, module in enumerate(group.modules):
            report.add(module, actor_loss=loss[i], actor_gradient_norm=norm[i])


def judge(group: CriticGroup, rows: Rows, codes: ByAgent) -> ByAgent:
    """Return Q_i1 (B,) by agent, with the agent's own action replaced by the given one."""
    if group.common:
        new = [codes[players[0]] for players in group.players]
        q = group.bank.replacing(rows.joint, new, [entry.own for entry in group.inputs]).squeeze(-1)
    else:
        own = []
        for entry in group.inputs:
            mixed = [entry(rows.observations, {**rows.codes, a: codes[a]}, a) for a in entry.players]
            own.append(torch.cat(mixed))
        q = group.values(group.bank, torch.stack(own))[0]
    return group.spread(q)


def step(groups: Sequence[Group], loss: torch.Tensor) -> list[torch.Tensor]:
    """Step the parameters of these groups alone: critics get no gradient from the actors' objective.

    Returns:
        The gradient norm of each network before clipping, (n,) by group.

    Raises:
        Fault: a gradient is NaN or inf; no parameter was changed.
    """
    params = [p for group in groups for p in group.bank.params]
    gradients = averaged(torch.autograd.grad(loss, params))
    norms, start = [], 0
    for group in groups:
        own = gradients[start : start + len(group.bank.params)]
        start += len(own)
        how = group.training
        norms.append(clip_gradients(group.bank, own, how.grad_clip, how.grad_clip_by))
        for param, gradient in zip(group.bank.params, own, strict=True):
            param.grad = gradient.contiguous()  # fused Adam on CPU misreads a transposed one (torch 2.13)
    if not math.isfinite(torch.cat(norms).sum().item()):
        bad = {
            group.modules[i % len(group.modules)]
            for group, norm in zip(groups, norms, strict=True)
            for i in torch.nonzero(~torch.isfinite(norm)).flatten().tolist()
        }
        raise Fault(sorted(bad))
    for group in groups:
        group.optimizer_step()
    return norms


def averaged(gradients: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Average gradients over the learners of a run, where there are several (torch.distributed)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return gradients
    learners = torch.distributed.get_world_size()
    if learners > 1:
        flat = torch.cat([g.reshape(-1) for g in gradients])
        torch.distributed.all_reduce(flat)
        flat /= learners
        parts = flat.split([g.numel() for g in gradients])
        return tuple(part.view_as(g) for part, g in zip(parts, gradients, strict=True))
    return gradients
