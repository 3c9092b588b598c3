"""Networks of MADDPG with a state, over time: (B, T, D) -> (B, T, out), for actors and critics alike.

Legend: B sequences, T steps, D width of an input.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rlkit.algos.centralised.spaces import ObservationVector
from rlkit.models.dense import orthogonal_
from rlkit.models.encoders import is_image
from rlkit.models.features import ModelRef, measure


class RecurrentNet(nn.Module):
    """A network over time, (B, T, D) -> (B, T, out); the state starts anew unless it is given."""

    def initial_state(self) -> dict[str, torch.Tensor]:
        """Return the state before the first step, without the batch."""
        raise NotImplementedError

    def run(self, x: torch.Tensor, state: Mapping[str, torch.Tensor] | None) -> tuple[torch.Tensor, Any]:
        """Return outputs (B, T, out) and the state after the last step, (B, ...)."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x, None)[0]

    def layers(self) -> None:
        return None


class LSTMNet(RecurrentNet):
    """body, LSTM, linear head: RLlib's `use_lstm`."""

    def __init__(self, body: nn.Module, features: int, cell: int, outputs: int):
        super().__init__()
        self.body, self.cell = body, cell
        self.lstm = nn.LSTM(features, cell, batch_first=True)
        self.head = nn.Linear(cell, outputs)

    def initial_state(self) -> dict[str, torch.Tensor]:
        return {"h": torch.zeros(self.cell), "c": torch.zeros(self.cell)}

    def run(self, x: torch.Tensor, state: Mapping[str, torch.Tensor] | None) -> tuple[torch.Tensor, Any]:
        features = self.body(x.flatten(0, 1)).reshape(*x.shape[:2], -1)
        start = None if state is None else (state["h"][None].contiguous(), state["c"][None].contiguous())
        out, (h, c) = self.lstm(features, start)
        return self.head(out), {"h": h[0], "c": c[0]}


class MemoryNet(RecurrentNet):
    """A registered model with a state, then a linear head.

    An actor's model sees the observation in its own shape. A critic's sees the vectors of observations and actions side
    by side, (B, T, D); where there are images or an `encoder` is given, a Tuple of the observations and the rest, each
    with an encoder: the given one for observations like the own, else `multi_input`'s.

    Args:
        model: of the recipe.
        vectors: the observations in the input, in their order.
        extra: numbers behind them.
        outputs: numbers of the output.
        gain: of an orthogonal head, or None.
    """

    def __init__(
        self,
        model: ModelRef,
        vectors: Sequence[ObservationVector],
        extra: int,
        outputs: int,
        gain: float | None,
    ):
        super().__init__()
        self.vectors = list(vectors)
        self.widths = [v.size for v in vectors] + ([extra] if extra else [])
        self.alone = len(self.widths) == 1
        encodes = "encoder" in inspect.signature(model.load()).parameters
        given, pictures = model.options.get("encoder"), any(is_image(v.space) for v in vectors)
        self.flat = not (encodes and (given or pictures))
        space: gym.Space = gym.spaces.Box(-np.inf, np.inf, (sum(self.widths),))
        if self.alone:
            space = vectors[0].space
        elif not self.flat:
            rest = [gym.spaces.Box(-np.inf, np.inf, (extra,))] if extra else []
            space = gym.spaces.Tuple([*(v.space for v in vectors), *rest])
            own = {str(i): given for i, v in enumerate(vectors) if given and v.space == vectors[0].space}
            encoder = {"name": "multi_input", "encoders": own}
            model = dataclasses.replace(model, options={**model.options, "encoder": encoder})
        features, _ = measure(model, space)
        self.memory = model.build(space)
        self.head = nn.Linear(features, outputs)
        if gain is not None:
            orthogonal_(self.head, gain)

    def initial_state(self) -> dict[str, torch.Tensor]:
        return dict(self.memory.initial_state())

    def run(self, x: torch.Tensor, state: Mapping[str, torch.Tensor] | None) -> tuple[torch.Tensor, Any]:
        if state is None:
            fresh = self.initial_state().items()
            state = {name: value.to(x.device).expand(len(x), *value.shape) for name, value in fresh}
        features, after = self.memory(self._restored(x), state)
        return self.head(features), after

    def _restored(self, x: torch.Tensor) -> Any:
        if self.alone:
            return self.vectors[0].restore(x)
        if self.flat:
            return x
        pieces = torch.split(x, self.widths, dim=-1)
        seen = [v.restore(piece) for v, piece in zip(self.vectors, pieces, strict=False)]
        return (*seen, *pieces[len(seen) :])
