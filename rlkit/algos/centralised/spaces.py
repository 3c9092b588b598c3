"""The agents of a joint row, and what their spaces mean as numbers: observations as flat vectors, actions as codes.

A critic sees an action as a *code* (B, C) of floats: a Box action flat and scaled to [-1, 1], a Discrete one one-hot,
a MultiDiscrete one as its one-hots side by side. An actor's network puts out logits (B, L) of the same width. The
replay buffer holds what RLlib's episodes hold: module actions, floats for Box and integers otherwise.

Actions sent to the environment are those of RLlib's convention: with `normalize_actions` (its default) the module
acts in [-1, 1] and a connector stretches that to the space's bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rlkit.algos.centralised.losses import gumbel, gumbel_softmax, smoothed
from rlkit.models.features import as_float, zeros
from rlkit.models.masks import legal_of
from rlkit.replay.columns import Column, pick
from rlkit.roster import fixed_policies, split_mask

ACCEPTED = "a bounded Box, Discrete or MultiDiscrete"


class ObservationVector:
    """Observations of one space as vectors (..., O), and their action mask if they carry one.

    Args:
        space: what the module observes; Box of any shape, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple.
        action_space: of the same agent, to recognise an action mask.

    Raises:
        ValueError: a part of the space has no fixed shape.
    """

    def __init__(self, space: gym.Space, action_space: gym.Space | None):
        self.space, self.key, _ = split_mask(space, action_space)
        self.column = Column.of("observations", self.space)
        example = zeros(self.space)
        self.shapes = [tuple(pick(example, leaf.path).shape) for leaf in self.column.leaves]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.size = sum(self.sizes)

    def split(self, observations: Any) -> tuple[Any, torch.Tensor | None]:
        """Return observations without their action mask, and what it allows, (..., L) bool, or None."""
        if self.key is None:
            return observations, None
        return observations[self.key], legal_of(observations)

    def __call__(self, observations: Any) -> torch.Tensor:
        """Return (..., O) for observations without a mask."""
        floats, parts = as_float(observations, self.space), []
        for leaf, shape in zip(self.column.leaves, self.shapes, strict=True):
            value, rank = pick(floats, leaf.path), len(shape)
            parts.append(value.flatten(-rank) if rank > 1 else value if rank else value.unsqueeze(-1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def restore(self, vector: torch.Tensor) -> Any:
        """Return vectors (B, O) as float observations in the shape of the space."""
        pieces = torch.split(vector, self.sizes, dim=-1)
        lead = vector.shape[:-1]
        return self.column.nest([p.reshape(*lead, *s) for p, s in zip(pieces, self.shapes, strict=True)])


class Normalizer(nn.Module):
    """Running mean and variance of vectors (..., O): they become (x - mean) / std, clipped at ±10.

    The statistics are part of the module's weights, so that runners, evaluation and exports have them.
    """

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    def see(self, x: torch.Tensor) -> None:
        """Add rows (B, O) to the statistics (Chan et al. 1979).

        Sums are taken in float64: a float32 difference of squares loses a spread that is small beside the mean.
        """
        x = x.double()
        moments = torch.cat([x.new_tensor([len(x)]), x.sum(dim=0), x.square().sum(dim=0)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(moments)  # several learners see one batch together
        rows = moments[0]
        if not rows:
            return
        mean, squares = (moments[1:] / rows).chunk(2)
        variance = (squares - mean.square()).clamp(min=0.0)
        total = self.count + rows
        shift = mean - self.mean
        spread = self.variance * self.count + variance * rows + shift.square() * self.count * rows / total
        self.mean.add_(shift * rows / total)
        self.variance.copy_(spread / total)
        self.count.copy_(total)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x - self.mean) / (self.variance + 1e-6).sqrt()).clamp(-10.0, 10.0)


class BoxActions:
    """tanh-squashed actions of a bounded Box.

    Args:
        space: of the module's actions.
        normalized: module actions lie in [-1, 1] and are stretched by RLlib; else the module stretches them itself.

    Attributes:
        size: width of codes and logits.
        key: equal for spaces whose batches can be computed together.
    """

    discrete = False
    choices: tuple[int, ...] = ()

    def __init__(self, space: gym.spaces.Box, normalized: bool):
        self.shape = tuple(space.shape)
        self.size = math.prod(self.shape)
        self.key = ("box", self.size)
        low, high = (np.asarray(side, np.float32).reshape(-1) for side in (space.low, space.high))
        self.middle = torch.from_numpy((low + high) / 2)
        self.radius = torch.from_numpy(np.maximum((high - low) / 2, 1e-6))
        self.normalized = normalized

    def encode(self, actions: torch.Tensor, leading: int) -> torch.Tensor:
        """Return the codes of replayed actions; `leading` dimensions of them are rows."""
        flat = actions.reshape(*actions.shape[:leading], self.size)
        if self.normalized:
            return flat
        return (flat - self.middle.to(flat.device)) / self.radius.to(flat.device)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the module actions of codes (B, C)."""
        if not self.normalized:
            codes = self.middle.to(codes.device) + codes * self.radius.to(codes.device)
        return codes.reshape(*codes.shape[:-1], *self.shape)

    def greedy(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the best module actions for logits (B, L)."""
        return self.decode(torch.tanh(logits))

    def noisy(self, logits: torch.Tensor, stddev: float) -> torch.Tensor:
        """Return module actions with N(0, stddev²) added, in units of the half range, and clipped."""
        code = torch.tanh(logits)
        if stddev > 0:
            code = (code + stddev * torch.randn_like(code)).clamp_(-1.0, 1.0)
        return self.decode(code)

    def target(self, logits: torch.Tensor, noise: float, clip: float) -> torch.Tensor:
        """Return codes of the target policy's actions, smoothed by noise."""
        code = torch.tanh(logits)
        return smoothed(code, torch.randn_like(code), noise, clip) if noise > 0 else code

    def relaxed(self, logits: torch.Tensor, temperature: float, hard: bool) -> torch.Tensor:
        """Return codes with a gradient to the logits."""
        return torch.tanh(logits)


class DiscreteActions:
    """Choices among n; several of them for MultiDiscrete. One-hot codes. Methods as of `BoxActions`.

    Args:
        choices: n of each choice.
        single: the action is one integer, not an array of them.
    """

    discrete = True

    def __init__(self, choices: Sequence[int], single: bool):
        self.choices, self.single = tuple(int(n) for n in choices), single
        self.size = sum(self.choices)
        self.key = ("discrete", self.choices)

    def parts(self, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Split (B, L) by choice."""
        return (logits,) if len(self.choices) == 1 else torch.split(logits, self.choices, dim=-1)

    def encode(self, actions: torch.Tensor, leading: int) -> torch.Tensor:
        index = actions.long().reshape(*actions.shape[:leading], len(self.choices))
        codes = torch.zeros(*index.shape[:-1], self.size, device=index.device)
        offsets = torch.tensor([0, *np.cumsum(self.choices)[:-1]], device=index.device)
        return codes.scatter_(-1, index + offsets, 1.0)

    def greedy(self, logits: torch.Tensor) -> torch.Tensor:
        best = [part.argmax(dim=-1) for part in self.parts(logits)]
        return best[0] if self.single else torch.stack(best, dim=-1)

    def target(self, logits: torch.Tensor, noise: float, clip: float) -> torch.Tensor:
        """Return one-hot codes of sampled actions, as in the authors' code."""
        noisy = logits + gumbel(logits)
        codes = [torch.zeros_like(p).scatter_(-1, p.argmax(-1, keepdim=True), 1.0) for p in self.parts(noisy)]
        return codes[0] if len(codes) == 1 else torch.cat(codes, dim=-1)

    def relaxed(self, logits: torch.Tensor, temperature: float, hard: bool) -> torch.Tensor:
        pairs = zip(self.parts(logits), self.parts(gumbel(logits)), strict=True)
        codes = [gumbel_softmax(part, noise, temperature, hard) for part, noise in pairs]
        return codes[0] if len(codes) == 1 else torch.cat(codes, dim=-1)


Actions = BoxActions | DiscreteActions


def action_kind(space: gym.Space, normalized: bool) -> Actions:
    """Return what the actions of a space mean.

    Raises:
        ValueError: an actor cannot serve it.
    """
    if isinstance(space, gym.spaces.Box):
        if not np.issubdtype(space.dtype, np.floating):
            raise ValueError(
                f"got {space}, whose actions are whole numbers; expected a Box of floats, Discrete or MultiDiscrete"
            )
        if not space.is_bounded():
            raise ValueError(
                f"MADDPG squashes actions to their bounds; got the unbounded {space}, expected {ACCEPTED}; bound it"
            )
        return BoxActions(space, normalized)
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        start = np.asarray(getattr(space, "start", 0))
        if np.any(start != 0):
            raise ValueError(
                f"got {space}, whose actions start at {start.tolist()}; RLlib's policies choose from 0 up"
            )
        if isinstance(space, gym.spaces.Discrete):
            return DiscreteActions([int(space.n)], single=True)
        if len(space.nvec.shape) != 1:
            raise ValueError(
                f"got {space} with choices of shape {space.nvec.shape}, expected one row of choices"
            )
        return DiscreteActions(space.nvec.tolist(), single=False)
    raise ValueError(
        f"MADDPG has no actor for {space}, expected {ACCEPTED}; wrap the environment so that its agents act in one"
    )


@dataclass(frozen=True)
class Joint:
    """The agents of a joint row in sorted order, the module that plays each, and what a module sees and does.

    Attributes:
        agents: N agent ids.
        module_of: agent -> module.
        spaces: module -> (observation space, action space), behind the connectors.
        normalized: whether module actions are in [-1, 1] (RLlib's `normalize_actions`).
    """

    agents: tuple[str, ...]
    module_of: Mapping[str, str]
    spaces: Mapping[str, tuple[gym.Space, gym.Space]]
    normalized: bool = True

    @classmethod
    def of(
        cls,
        agents: Sequence[Any],
        mapping: Callable[..., str],
        spaces: Mapping[str, tuple[gym.Space, gym.Space]],
        normalized: bool,
    ) -> Joint:
        """Ask the mapping for every agent.

        Raises:
            ValueError: an agent whose module does not exist or depends on the episode, or whose spaces MADDPG
                cannot serve.
        """
        module_of = fixed_policies(agents, mapping, spaces)
        used = sorted(set(module_of.values()))
        joint = cls(tuple(module_of), module_of, {m: spaces[m] for m in used}, normalized)
        for agent in joint.agents:
            for what, build in (("acts", joint._kind), ("observes", joint._vector)):
                try:
                    build(module_of[agent])
                except ValueError as error:
                    raise ValueError(f"agent {agent!r}, what it {what}: {error}") from error
        return joint

    def _vector(self, module: str) -> ObservationVector:
        return ObservationVector(*self.spaces[module])

    def _kind(self, module: str) -> Actions:
        return action_kind(self.spaces[module][1], self.normalized)

    @cached_property
    def vectors(self) -> dict[str, ObservationVector]:
        """Agent -> how its observations become a vector."""
        made = {module: self._vector(module) for module in self.spaces}
        return {agent: made[self.module_of[agent]] for agent in self.agents}

    @cached_property
    def kinds(self) -> dict[str, Actions]:
        """Agent -> what its actions mean."""
        made = {module: self._kind(module) for module in self.spaces}
        return {agent: made[self.module_of[agent]] for agent in self.agents}

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that play somebody, sorted."""
        return tuple(self.spaces)

    def players(self, module: str) -> tuple[str, ...]:
        """The agents a module plays."""
        return tuple(agent for agent in self.agents if self.module_of[agent] == module)
