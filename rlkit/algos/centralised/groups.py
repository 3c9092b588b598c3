"""Groups: the actors and critics of several modules that are computed as one, with targets and an optimiser.

Modules whose networks have the same shape, play equally many agents and are trained alike share a group, and so a
`StackedBank`. Everything else is a group of one module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rlkit.algos.centralised.actions import ActionKind, masked
from rlkit.algos.centralised.banks import Bank, LoopBank, StackedBank, stack_key
from rlkit.algos.centralised.joint import CriticInput
from rlkit.algos.centralised.rows import ByAgent
from rlkit.algos.learning.adam import AdamStep


@dataclass(frozen=True)
class Training:
    """How a module is trained; modules of one group agree on it.

    Attributes:
        actor_lr, critic_lr: a number, or RLlib's schedule as a tuple of (env step, value).
        grad_clip, grad_clip_by: RLlib's words; see `clip_gradients`.
        tau: share of the new weights in the targets.
        trained: False keeps a module as it is.
    """

    actor_lr: Any = 1e-3
    critic_lr: Any = 1e-3
    grad_clip: float | None = None
    grad_clip_by: str = "norm"
    tau: float = 0.01
    trained: bool = True


@dataclass
class Group:
    """Networks of n modules.

    Attributes:
        modules: ids.
        players: the agents each module plays; equally many for all, g.
        bank, targets: n networks (critics: n, or 2n with twins, all first ones first), and their targets.
        training: of all of them.
        optimizer: set by the learner.
    """

    modules: list[str]
    players: list[tuple[str, ...]]
    bank: Bank
    targets: Bank
    training: Training
    optimizer: Any = None
    _adam: AdamStep | None = field(default=None, init=False, repr=False)

    def optimizer_step(self) -> None:
        """Step the parameters by their gradients."""
        if self._adam is None or self._adam.optimizer is not self.optimizer:
            self._adam = AdamStep(self.optimizer)
        self._adam()

    @property
    def agents(self) -> list[str]:
        """All agents played, module by module: n · g."""
        return [agent for players in self.players for agent in players]

    def batch(self, by_agent: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the networks read, (n, g B, ...), from (B, ...) by agent."""
        if len(self.players[0]) == 1:
            return torch.stack([by_agent[players[0]] for players in self.players])
        return torch.stack([torch.cat([by_agent[a] for a in players]) for players in self.players])

    def repeated(self, values: torch.Tensor) -> torch.Tensor:
        """Return (g B, ...): values that all agents share, once for each agent of a module."""
        each = len(self.players[0])
        return values if each == 1 else torch.cat([values] * each)

    def spread(self, values: torch.Tensor) -> ByAgent:
        """Return (B, ...) by agent from (n, g B, ...)."""
        each = len(self.players[0])
        return {
            agent: part
            for players, value in zip(self.players, values, strict=True)
            for agent, part in zip(players, value.chunk(each), strict=True)
        }

    def move_targets(self) -> None:
        """θ' ← τ θ + (1 - τ) θ'."""
        with torch.no_grad():
            torch._foreach_lerp_(
                self.targets.params, [p.detach() for p in self.bank.params], self.training.tau
            )


@dataclass
class ActorGroup(Group):
    """Actors; `kind` is that of all their actions."""

    kind: ActionKind = None  # type: ignore[assignment]

    def logits(self, bank: Bank, vectors: ByAgent, legal: ByAgent) -> torch.Tensor:
        """Return (n, g B, L) for observation vectors, forbidden actions masked."""
        logits = bank(self.batch(vectors))
        return masked(logits, self.batch(legal)) if self.players[0][0] in legal else logits


@dataclass
class CriticGroup(Group):
    """Critics, with the input of each module's."""

    inputs: list[CriticInput] = field(default_factory=list)

    @property
    def twins(self) -> int:
        """Critics of one module."""
        return self.bank.size // len(self.modules)

    @property
    def common(self) -> bool:
        """Whether all of them read the same vector."""
        return self.inputs[0].common

    def input(self, joint: torch.Tensor | None, observations: ByAgent, codes: ByAgent) -> torch.Tensor:
        """Return (B, D), or (n, g B, D) where each module has an input of its own."""
        if self.common:
            if joint is not None:
                return joint
            agent = self.players[0][0]
            return self.inputs[0](observations, codes, agent)
        own = [
            torch.cat([entry(observations, codes, agent) for agent in entry.players]) for entry in self.inputs
        ]
        return torch.stack(own)

    def values(self, bank: Bank, x: torch.Tensor, common: bool | None = None) -> torch.Tensor:
        """Return Q (twins, n, g B); `common` says whether x is one input for all, by default as `self.common`."""
        common = self.common if common is None else common
        if self.twins > 1 and not common:
            x = x.repeat(self.twins, *[1] * (x.dim() - 1))
        q = bank(x, common).squeeze(-1)
        return q.reshape(self.twins, len(self.modules), *q.shape[1:])


def _grouped(members: Sequence[tuple[str, Any, tuple[Any, ...]]], stack: bool) -> list[list[tuple[str, Any]]]:
    """Put (module, nets) with equal keys together; nets that no stack can hold stay alone."""
    groups: dict[Any, list[tuple[str, Any]]] = {}
    for module, nets, key in members:
        shape = stack_key(nets[0]) if stack else None
        name = (module,) if shape is None else (shape, key)
        groups.setdefault(name, []).append((module, nets))
    return list(groups.values())


def make_groups(
    modules: Mapping[str, Any],
    training: Callable[[str], Training],
    players: Callable[[str], tuple[str, ...]],
    *,
    index: int = 0,
    stack: bool = True,
) -> tuple[list[ActorGroup], list[CriticGroup]]:
    """Group the modules' networks.

    Args:
        modules: MADDPGModules by id, in the order of their agents.
        training: how each is trained; frozen modules have actors alone.
        players: the agents of each.
        index: which sub-policy of each (0 without ensembles).
        stack: False: one group per module, computed network by network.
    """
    actors: list[ActorGroup] = []
    critics: list[CriticGroup] = []
    rows: list[tuple[str, Any, tuple[Any, ...]]] = []
    for name, module in modules.items():
        how = training(name)
        rows.append((name, [module.actors[index]], (how, len(players(name)), module.kind.key)))
    for group in _grouped(rows, stack):
        names = [name for name, _ in group]
        mains = [nets[0] for _, nets in group]
        targets = [modules[name].target_actors[index] for name in names]
        kind = StackedBank if stack and stack_key(mains[0]) is not None else LoopBank
        bank = kind(mains)
        actors.append(
            ActorGroup(
                names,
                [players(name) for name in names],
                bank,
                # a frozen policy is its own target, whatever weights it is given
                kind(targets) if training(names[0]).trained else bank,
                training(names[0]),
                kind=modules[names[0]].kind,
            )
        )
    rows = []
    for name, module in modules.items():
        how, entry = training(name), module.critic_input
        if how.trained:
            key = (how, len(players(name)), entry.common, len(module.critics[index]))
            rows.append((name, list(module.critics[index]), key))
    for group in _grouped(rows, stack):
        names = [name for name, _ in group]
        mains = [nets[t] for t in range(len(group[0][1])) for _, nets in group]
        targets = [modules[n].target_critics[index][t] for t in range(len(group[0][1])) for n in names]
        kind = StackedBank if stack and stack_key(mains[0]) is not None else LoopBank
        critics.append(
            CriticGroup(
                names,
                [players(name) for name in names],
                kind(mains),
                kind(targets),
                training(names[0]),
                inputs=[modules[name].critic_input for name in names],
            )
        )
    return actors, critics
