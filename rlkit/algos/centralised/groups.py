"""Groups: the actors or critics of several modules, computed as one, with targets and an optimiser.

Modules whose networks have the same shape, play equally many agents and are trained alike share a group, and so a
`StackedBank`. Everything else is a group of one module.

Legend: B rows, n networks of a group, g agents that each of its modules plays; values "by agent" are dicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from rlkit.algos.centralised.losses import FORBIDDEN
from rlkit.algos.centralised.networks import Bank, LoopBank, StackedBank, stack_key
from rlkit.algos.centralised.rows import ByAgent, CriticInput, Rows
from rlkit.algos.centralised.spaces import Actions
from rlkit.algos.learning.adam import AdamStep, clip_each
from rlkit.algos.learning.minibatches import averaged
from rlkit.algos.offpolicy.sequences import from_start
from rlkit.models.masks import masked


class Training(NamedTuple):
    """How networks are trained; those of one group agree on it.

    Attributes:
        actor_lr, critic_lr: a number, or RLlib's schedule as a tuple of (env step, value).
        grad_clip, grad_clip_by: RLlib's words; see `clip_each`.
        tau: share of the new weights in the targets.
        trained: False keeps them as they are.
    """

    actor_lr: Any
    critic_lr: Any
    grad_clip: float | None
    grad_clip_by: str
    tau: float
    trained: bool


@dataclass
class Group:
    """Networks of several modules.

    Attributes:
        modules: ids.
        players: the agents each module plays, g each.
        bank, targets: n networks (critics: n, or 2n with twins, all first ones first), and their targets.
        training: of all of them.
        optimizer: set by the learner.
    """

    modules: list[str]
    players: list[tuple[str, ...]]
    bank: Bank
    targets: Bank
    training: Training
    optimizer: Any = field(default=None, kw_only=True)
    _adam: AdamStep | None = field(default=None, init=False, repr=False)

    def batch(self, by_agent: ByAgent | None) -> Any:
        """Return what the networks read, (n, g B, ...), from (B, ...) by agent; None for None."""
        if by_agent is None:
            return None
        if len(self.players[0]) == 1:
            return torch.stack([by_agent[players[0]] for players in self.players])
        return torch.stack([torch.cat([by_agent[a] for a in players]) for players in self.players])

    def repeated(self, values: torch.Tensor | None) -> Any:
        """Return (g B, ...): values that all agents share, once for each agent of a module; None for None."""
        each = len(self.players[0])
        return values if values is None or each == 1 else torch.cat([values] * each)

    def spread(self, values: torch.Tensor) -> ByAgent:
        """Return (B, ...) by agent from (n, g B, ...)."""
        return {
            agent: part
            for players, value in zip(self.players, values, strict=True)
            for agent, part in zip(players, value.chunk(len(players)), strict=True)
        }

    def step_optimizer(self) -> None:
        """Step the parameters by their gradients."""
        if self._adam is None or self._adam.optimizer is not self.optimizer:
            self._adam = AdamStep(self.optimizer)
        self._adam()

    def move_targets(self) -> None:
        """θ' ← τ θ + (1 - τ) θ'."""
        with torch.no_grad():
            mains = [p.detach() for p in self.bank.params]
            torch._foreach_lerp_(self.targets.params, mains, self.training.tau)


@dataclass
class ActorGroup(Group):
    """Actors; `kind` is that of all their actions."""

    kind: Actions = field(kw_only=True)

    def logits(self, bank: Bank, vectors: ByAgent, legal: ByAgent) -> torch.Tensor:
        """Return (n, g B, L) for observation vectors, forbidden actions masked."""
        logits = bank(self.batch(vectors))
        if self.players[0][0] not in legal:
            return logits
        return masked(logits, self.batch(legal), self.kind.choices, FORBIDDEN)

    def next_logits(self, rows: Rows) -> torch.Tensor:
        """Return (n, g B, L) of the target actors in the next observations."""
        if not rows.recurrent:
            return self.logits(self.targets, rows.next_observations, rows.next_legal)
        # a recurrent state begins before the first step: (B, T + 1), without the first answer
        vectors = from_start(rows.observations, rows.next_observations)
        return self.logits(self.targets, vectors, from_start(rows.legal, rows.next_legal))[..., 1:, :]


@dataclass
class CriticGroup(Group):
    """Critics, with the input of each module's."""

    inputs: list[CriticInput] = field(kw_only=True)

    @property
    def common(self) -> bool:
        """Whether all of them read the same vector."""
        return self.inputs[0].common

    def _own(self, observations: ByAgent, codes: Mapping[str, ByAgent]) -> torch.Tensor:
        """Return (n, g B, D), each module's own input, from codes by module and agent."""
        pairs = zip(self.modules, self.inputs, strict=True)
        return torch.stack([torch.cat([x(observations, codes[m], a) for a in x.players]) for m, x in pairs])

    def _values(self, bank: Bank, x: torch.Tensor, common: bool) -> torch.Tensor:
        """Return Q (twins, n, g B) of inputs (n, g B, D), or of a common one (B, D)."""
        twins = bank.size // len(self.modules)
        if twins > 1 and not common:
            x = x.repeat(twins, *[1] * (x.dim() - 1))
        q = bank(x, common).squeeze(-1)
        return q.reshape(twins, len(self.modules), *q.shape[1:])

    def values(self, rows: Rows) -> torch.Tensor:
        """Return Q(x, a) of the replayed actions, (twins, n, g B)."""
        x = (
            rows.joint
            if self.common
            else self._own(rows.observations, dict.fromkeys(self.modules, rows.codes))
        )
        return self._values(self.bank, x, self.common)

    def next_values(
        self, rows: Rows, codes: ByAgent, believed: Mapping[str, ByAgent] | None = None
    ) -> torch.Tensor:
        """Return Q'(x', a') of the targets, (twins, n, g B).

        Args:
            rows: a minibatch.
            codes: of the next actions, by agent.
            believed: {module: codes by agent}, what the critics of a module put in their place for some agents.
        """
        common = self.common and not believed
        if common:
            x = torch.cat([rows.next_joint, *codes.values()], dim=-1)
        else:
            each = {m: {**codes, **(believed or {}).get(m, {})} for m in self.modules}
            x = self._own(rows.next_observations, each)
        if not rows.recurrent:
            return self._values(self.targets, x, common)
        now = rows.joint if common else self._own(rows.observations, dict.fromkeys(self.modules, rows.codes))
        return self._values(self.targets, torch.cat([now[..., :1, :], x], dim=-2), common)[..., 1:]

    def judge(self, rows: Rows, codes: ByAgent) -> ByAgent:
        """Return Q_1 (B,) by agent, of its own action with this code among the replayed ones of the others."""
        if self.common:
            new = [codes[players[0]] for players in self.players]
            return self.spread(self.bank.replacing(rows.joint, new, [x.own for x in self.inputs]).squeeze(-1))
        own = [
            torch.cat([x(rows.observations, {**rows.codes, a: codes[a]}, a) for a in x.players])
            for x in self.inputs
        ]
        return self.spread(self._values(self.bank, torch.stack(own), False)[0])


class Member(NamedTuple):
    """The networks of one module on their way into a group; `targets` None: they are their own."""

    module: str
    players: tuple[str, ...]
    nets: Sequence[nn.Module]
    targets: Sequence[nn.Module] | None
    training: Training
    key: Any


def grouped(
    members: Iterable[Member], stack: bool
) -> Iterator[tuple[list[str], list[tuple[str, ...]], Bank, Bank, Training]]:
    """Put members with equal keys and shapes together; yield what `Group` takes.

    Args:
        members: in the order of their agents; each has one network, or two with twins.
        stack: False: one group per member, computed network by network.
    """
    groups: dict[Any, list[Member]] = {}
    for number, member in enumerate(members):
        shape = stack_key(member.nets[0]) if stack else None
        key = shape, len(member.players), member.training, member.key
        groups.setdefault(number if shape is None else key, []).append(member)
    for name, group in groups.items():
        make = LoopBank if isinstance(name, int) else StackedBank
        # of twins, all first ones first
        bank = make([net for firsts in zip(*(m.nets for m in group), strict=True) for net in firsts])
        nets = [n for firsts in zip(*(m.targets for m in group if m.targets), strict=True) for n in firsts]
        yield (
            [m.module for m in group], [m.players for m in group], bank, make(nets) if nets else bank,
            group[0].training,
        )  # fmt: skip


@dataclass
class Part:
    """What is updated from one minibatch: all modules, unless an extension divides them.

    Attributes:
        name: of its minibatches in a chunk.
        actors, critics: groups; modules that are not trained have actors alone.
        suffix: of its metrics.
        share: factor on the actors' gradient.
    """

    name: str
    actors: list[ActorGroup]
    critics: list[CriticGroup]
    suffix: str = ""
    share: float = 1.0

    @property
    def trained_actors(self) -> list[ActorGroup]:
        """Those that learn."""
        return [group for group in self.actors if group.training.trained]


def make_actors(
    modules: Mapping[str, Any], training: Callable[[str], Training], index: int, stack: bool
) -> list[ActorGroup]:
    """Group the actors of MADDPGModules.

    Args:
        modules: by id, in the order of their agents.
        training: how the actor of a module is trained; a frozen one is its own target, whatever weights it is given.
        index: which of each module's sub-policies.
        stack: see `grouped`.
    """
    members = []
    for name, module in modules.items():
        how, nets = training(name), ([module.actors[index]], [module.target_actors[index]])
        key = module.kind.key, module.vector.key is None  # with a mask or without
        members.append(Member(name, module.players, nets[0], nets[1] if how.trained else None, how, key))
    return [ActorGroup(*parts, kind=modules[parts[0][0]].kind) for parts in grouped(members, stack)]


def make_critics(
    modules: Mapping[str, Any], training: Callable[[str], Training], index: int, stack: bool
) -> list[CriticGroup]:
    """Group the critics of the modules that are trained; arguments as of `make_actors`."""
    members = []
    for name, module in modules.items():
        how, nets = training(name), (list(module.critics[index]), list(module.target_critics[index]))
        key = module.critic_input.common, len(nets[0])
        members += [Member(name, module.players, *nets, how, key)] if how.trained else []
    return [
        CriticGroup(*parts, inputs=[modules[name].critic_input for name in parts[0]])
        for parts in grouped(members, stack)
    ]


class Fault(Exception):
    """A gradient is NaN or inf; nothing was stepped. The message names the modules."""


def step(groups: Sequence[Group], loss: torch.Tensor) -> list[torch.Tensor]:
    """Step the parameters of these groups alone: critics get no gradient from the actors' objective.

    Returns:
        The gradient norm of each network before clipping, (n,) by group.

    Raises:
        Fault: a gradient is NaN or inf; no parameter was changed.
    """
    params = [p for group in groups for p in group.bank.params]
    gradients = iter(averaged(torch.autograd.grad(loss, params)))
    norms = []
    for group in groups:
        own = [next(gradients) for _ in group.bank.params]
        norms.append(
            clip_each(group.bank.members(own), group.training.grad_clip, group.training.grad_clip_by)
        )
        for param, gradient in zip(group.bank.params, own, strict=True):
            param.grad = gradient.contiguous()  # fused Adam on CPU misreads a transposed one (torch 2.13)
    if not math.isfinite(torch.cat(norms).sum().item()):
        bad = {
            group.modules[i % len(group.modules)]
            for group, norm in zip(groups, norms, strict=True)
            for i in torch.nonzero(~torch.isfinite(norm)).flatten().tolist()
        }
        raise Fault(f"NaN or inf in the gradient of {', '.join(sorted(bad))}")
    for group in groups:
        group.step_optimizer()
    return norms
