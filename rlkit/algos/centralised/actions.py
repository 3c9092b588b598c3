"""What a policy's numbers mean: Box, Discrete and MultiDiscrete actions as networks and critics see them.

An actor's network puts out logits (B, L). A critic sees an action as a *code* (B, C) of floats: a Box action flat and
scaled to [-1, 1], a Discrete one one-hot, a MultiDiscrete one as its one-hots side by side. The replay buffer holds
what RLlib's episodes hold: module actions, floats for Box and integers otherwise.

Actions sent to the environment are those of RLlib's convention: with `normalize_actions` (its default) the module
acts in [-1, 1] and a connector stretches that to the space's bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from rlkit.algos.centralised.losses import FORBIDDEN, gumbel, gumbel_softmax, smoothed

ACCEPTED = "a bounded Box, Discrete or MultiDiscrete"


class ActionKind:
    """Base class. `logits` L and `size` C are widths."""

    logits: int
    size: int
    discrete: bool

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for kinds whose batches can be computed together."""
        raise NotImplementedError

    def encode(self, actions: torch.Tensor, leading: int) -> torch.Tensor:
        """Return the codes of replayed actions; `leading` dimensions of them are rows."""
        raise NotImplementedError

    def greedy(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the best module actions for logits (B, L)."""
        raise NotImplementedError

    def target(self, logits: torch.Tensor, noise: float, clip: float) -> torch.Tensor:
        """Return codes of the target policy's actions: smoothed by noise (Box) or sampled, as in [C]."""
        raise NotImplementedError

    def relaxed(self, logits: torch.Tensor, temperature: float, hard: bool) -> torch.Tensor:
        """Return codes with a gradient to the logits."""
        raise NotImplementedError


class BoxActions(ActionKind):
    """tanh-squashed actions of a bounded Box.

    Args:
        space: of the module's actions.
        normalized: module actions lie in [-1, 1] and are stretched by RLlib; else the module stretches them itself.
    """

    discrete = False

    def __init__(self, space: gym.spaces.Box, normalized: bool):
        self.shape = tuple(space.shape)
        self.size = self.logits = int(np.prod(self.shape))
        low, high = (np.asarray(side, np.float32).reshape(-1) for side in (space.low, space.high))
        ones = np.ones_like(low)
        self.middle = torch.from_numpy(0 * ones if normalized else (low + high) / 2)
        self.radius = torch.from_numpy(ones if normalized else np.maximum((high - low) / 2, 1e-6))
        self.normalized = normalized

    @property
    def key(self) -> tuple[Any, ...]:
        return ("box", self.size)

    def encode(self, actions: torch.Tensor, leading: int) -> torch.Tensor:
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
        return self.decode(torch.tanh(logits))

    def noisy(self, logits: torch.Tensor, stddev: float) -> torch.Tensor:
        """Return module actions with N(0, stddev²) added, in units of the half range, and clipped."""
        code = torch.tanh(logits)
        if stddev > 0:
            code = (code + stddev * torch.randn_like(code)).clamp_(-1.0, 1.0)
        return self.decode(code)

    def target(self, logits: torch.Tensor, noise: float, clip: float) -> torch.Tensor:
        code = torch.tanh(logits)
        return smoothed(code, torch.randn_like(code), noise, clip) if noise > 0 else code

    def relaxed(self, logits: torch.Tensor, temperature: float, hard: bool) -> torch.Tensor:
        return torch.tanh(logits)


class DiscreteActions(ActionKind):
    """Choices among n; several of them for MultiDiscrete. One-hot codes.

    Args:
        choices: n of each choice.
        single: the action is one integer, not an array of them.
    """

    discrete = True

    def __init__(self, choices: Sequence[int], single: bool):
        self.choices, self.single = tuple(int(n) for n in choices), single
        self.size = self.logits = sum(self.choices)

    @property
    def key(self) -> tuple[Any, ...]:
        return ("discrete", self.choices)

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
        noisy = logits + gumbel(logits)
        codes = [torch.zeros_like(p).scatter_(-1, p.argmax(-1, keepdim=True), 1.0) for p in self.parts(noisy)]
        return codes[0] if len(codes) == 1 else torch.cat(codes, dim=-1)

    def relaxed(self, logits: torch.Tensor, temperature: float, hard: bool) -> torch.Tensor:
        noise = gumbel(logits)
        codes = [
            gumbel_softmax(p, e, temperature, hard)
            for p, e in zip(self.parts(logits), self.parts(noise), strict=True)
        ]
        return codes[0] if len(codes) == 1 else torch.cat(codes, dim=-1)


def action_kind(space: gym.Space, normalized: bool) -> ActionKind:
    """Return the kind of an action space.

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


def masked(logits: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Put forbidden actions (mask 0) out of reach, (B, n); a row without any allowed action stays as it is."""
    if mask is None:
        return logits
    allowed = mask > 0
    allowed = allowed | ~allowed.any(dim=-1, keepdim=True)
    return torch.where(allowed, logits, torch.full_like(logits, FORBIDDEN))
