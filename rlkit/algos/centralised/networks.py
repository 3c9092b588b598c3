"""Networks of MADDPG: every one maps a flat vector (..., D) to a vector (..., out).

Observations become vectors first (`ObservationVector`), and a critic's input is the vectors of observations and
actions side by side. A network that needs an observation in its own shape (convolutions, a registered model) cuts its
part out of the vector and reshapes it, so all callers deal with vectors alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rlkit.models.conv import cnn
from rlkit.models.dense import ACTIVATIONS, MLP, mlp, orthogonal_
from rlkit.models.features import ModelRef, as_float, measure, split_mask

HIDDENS = (64, 64)
# fields of RLlib's DefaultModelConfig that mean something here
FIELDS = ("fcnet_hiddens", "fcnet_activation", "use_lstm", "lstm_cell_size", "max_seq_len")
SETTINGS = ("use_lstm", "lstm_cell_size", "max_seq_len", "pi_gain", "vf_gain", "head_fcnet_hiddens")
MLP_TARGET, CNN_TARGET = "rlkit.models.dense:mlp", "rlkit.models.conv:cnn"


class ObservationVector:
    """Observations of one space as vectors (..., O), and their action mask if they carry one.

    Args:
        space: what the module observes; Box of any shape, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple.
        action_space: of the same agent, to recognise an action mask.
    """

    def __init__(self, space: gym.Space, action_space: gym.Space | None):
        self.full = space
        self.space, self.key, self.choices = split_mask(space, action_space)
        self.leaves = list(_leaves(self.space))
        self.size = sum(size for size, _ in self.leaves)

    def split(self, observations: Any) -> tuple[Any, torch.Tensor | None]:
        """Return observations without their action mask, and the mask (..., n) or None."""
        if self.key is None:
            return observations, None
        return observations[self.key], observations["action_mask"]

    def __call__(self, observations: Any) -> torch.Tensor:
        """Return (..., O) for observations without a mask."""
        parts = list(self._flat(self.space, as_float(observations, self.space)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _flat(self, space: gym.Space, value: Any) -> Any:
        if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
            items = space.spaces.items() if isinstance(space, gym.spaces.Dict) else enumerate(space.spaces)
            for key, part in items:
                yield from self._flat(part, value[key])
            return
        rank = len(_shape(space))
        yield value.flatten(-rank) if rank > 1 else value.unsqueeze(-1) if rank == 0 else value

    def restore(self, vector: torch.Tensor) -> Any:
        """Return vectors (B, O) as float observations in the shape of the space."""
        pieces = iter(torch.split(vector, [size for size, _ in self.leaves], dim=-1))

        def build(space: gym.Space) -> Any:
            if isinstance(space, gym.spaces.Dict):
                return {key: build(part) for key, part in space.spaces.items()}
            if isinstance(space, gym.spaces.Tuple):
                return tuple(build(part) for part in space.spaces)
            return next(pieces).reshape(*vector.shape[:-1], *_shape(space))

        return build(self.space)


def _shape(space: gym.Space) -> tuple[int, ...]:
    """Shape of one observation as floats."""
    if isinstance(space, gym.spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return (int(space.nvec.sum()),)
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        return tuple(space.shape)
    raise ValueError(
        f"MADDPG cannot take observations of {space}, expected Box, Discrete, MultiDiscrete, MultiBinary, or Dict and "
        "Tuple of these; wrap the environment"
    )


def _leaves(space: gym.Space) -> Any:
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else space.spaces
        for part in parts:
            yield from _leaves(part)
        return
    shape = _shape(space)
    yield int(np.prod(shape)), shape


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
        """Add rows (B, O) to the statistics (Chan et al. 1979)."""
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


class Net(nn.Module):
    """body (..., D) -> (..., F), then a linear head -> (..., out)."""

    def __init__(self, body: nn.Module, features: int, outputs: int, gain: float | None = None):
        super().__init__()
        self.body = body
        self.head = nn.Linear(features, outputs)
        if gain is not None:
            orthogonal_(self.head, gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lead = x.shape[:-1]
        return self.head(self.body(x.reshape(-1, x.shape[-1]))).reshape(*lead, -1)

    def layers(self) -> list[nn.Module] | None:
        """The linear layers and activations in a row, if that is all there is; else None."""
        body = self.body
        if type(body) is not MLP or body.scales:
            return None
        layers = [*body.layers, self.head]
        plain = (nn.Linear, *ACTIVATIONS.values())
        return layers if all(type(layer) in plain for layer in layers) else None


class Encoders(nn.Module):
    """One encoder per part of the input that has one; the rest is passed on: (B, D) -> (B, F).

    Args:
        parts: what the input holds in order: an `ObservationVector` with an encoder, or the width of a part without.
    """

    def __init__(self, parts: Sequence[tuple[ObservationVector, ModelRef] | int], hiddens: Sequence[int]):
        super().__init__()
        self.parts = list(parts)
        self.widths = [p if isinstance(p, int) else p[0].size for p in parts]
        self.encoders = nn.ModuleDict()
        width = 0
        for i, part in enumerate(self.parts):
            if isinstance(part, int):
                width += part
            else:
                vector, model = part
                self.encoders[str(i)] = model.build(vector.space)
                width += measure(model, vector.space)[0]
        self.trunk = MLP(width, hiddens, "relu", False, None)
        self.features = hiddens[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = []
        for i, (part, piece) in enumerate(zip(self.parts, torch.split(x, self.widths, dim=-1), strict=True)):
            out.append(piece if isinstance(part, int) else self.encoders[str(i)](part[0].restore(piece)))
        return self.trunk(torch.cat(out, dim=-1))


class RecurrentNet(nn.Module):
    """body, LSTM, linear head, over time: (B, T, D) -> (B, T, out); the state starts at zero unless it is given."""

    def __init__(self, body: nn.Module, features: int, cell: int, outputs: int):
        super().__init__()
        self.body, self.cell = body, cell
        self.lstm = nn.LSTM(features, cell, batch_first=True)
        self.head = nn.Linear(cell, outputs)

    def initial_state(self) -> dict[str, torch.Tensor]:
        return {"h": torch.zeros(self.cell), "c": torch.zeros(self.cell)}

    def run(self, x: torch.Tensor, state: Mapping[str, torch.Tensor] | None) -> tuple[torch.Tensor, Any]:
        """Return outputs (B, T, out) and the state after the last step, {h, c} of (B, cell)."""
        features = self.body(x.flatten(0, 1)).reshape(*x.shape[:2], -1)
        start = None if state is None else (state["h"][None].contiguous(), state["c"][None].contiguous())
        out, (h, c) = self.lstm(features, start)
        return self.head(out), {"h": h[0], "c": c[0]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x, None)[0]

    def layers(self) -> None:
        return None


def make_net(
    vectors: Sequence[ObservationVector], extra: int, outputs: int, model: Mapping[str, Any], gain: str
) -> Net | RecurrentNet:
    """Build a network for the vectors of some observations and `extra` further numbers.

    Args:
        vectors: the observations in the input, in their order.
        extra: numbers behind them (actions; which agent it is).
        outputs: numbers of the output.
        model: the module's `model_config`: rlkit's (`rlkit_model`, settings) or fields of DefaultModelConfig.
        gain: name of the setting with the gain of an orthogonal last layer, `pi_gain` or `vf_gain`.
    """
    body, features = _body(vectors, extra, model)
    if model.get("use_lstm"):
        return RecurrentNet(body, features, int(model.get("lstm_cell_size", 256)), outputs)
    return Net(body, features, outputs, model.get(gain))


def _body(
    vectors: Sequence[ObservationVector], extra: int, model: Mapping[str, Any]
) -> tuple[nn.Module, int]:
    size = sum(v.size for v in vectors) + extra
    given = model.get("rlkit_model")
    if given is not None and given["target"] == MLP_TARGET:
        options = {"hiddens": HIDDENS, **given["options"]}
        if len(vectors) == 1 and not extra:
            return mlp(vectors[0].space, **options), options["hiddens"][-1]
        if options.pop("scale", False):
            bounded = gym.spaces.Tuple([v.space for v in vectors])
            rest = gym.spaces.Box(-1.0, 1.0, (extra,))
            return mlp(gym.spaces.Tuple([*bounded.spaces, rest]), scale=True, **options), options["hiddens"][
                -1
            ]
        return mlp(gym.spaces.Box(-np.inf, np.inf, (size,)), **options), options["hiddens"][-1]
    hiddens = tuple(model.get("fcnet_hiddens") or HIDDENS)
    if given is None:
        image = ModelRef.of("cnn", cnn, {})
    else:
        hiddens = tuple(model.get("head_fcnet_hiddens") or HIDDENS)
        image = ModelRef(**given)
    parts: list[Any] = [
        (v, image) if _takes(v.space, given is None or given["target"] == CNN_TARGET) else v.size
        for v in vectors
    ]
    if all(isinstance(part, int) for part in parts):
        activation = str(model.get("fcnet_activation") or "relu").lower().replace("swish", "silu")
        return MLP(size, hiddens, activation, False, None), hiddens[-1]
    encoders = Encoders([*parts, extra] if extra else parts, hiddens)
    return encoders, encoders.features


def _takes(space: gym.Space, images_only: bool) -> bool:
    """Whether an observation gets an encoder: with convolutions, images alone; a registered model, everything."""
    return not images_only or (isinstance(space, gym.spaces.Box) and len(space.shape) == 3)
