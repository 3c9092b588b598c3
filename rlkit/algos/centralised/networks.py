"""Networks of MADDPG, and banks: several networks computed as one.

Every network maps a flat vector (..., D) to a vector (..., out). Observations become vectors first
(`ObservationVector`), and a critic's input is the vectors of observations and actions side by side. A network that
needs an observation in its own shape (convolutions, a registered model) cuts its part out of the vector and reshapes
it, so all callers deal with vectors alone.

A bank of n networks maps inputs (n, B, D), or one common input (B, D), to outputs (n, B, out). `LoopBank` serves any
networks, one after the other. `StackedBank` holds the parameters of equal multilayer perceptrons as stacked tensors
(n, out, in): one batched matrix product per layer instead of n small ones, and one optimiser step. The networks' own
parameters become views into the stack, so that whatever reads or loads a module's state sees the same numbers. Both
compute the same up to rounding (tests/test_maddpg_stack.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rlkit.algos.centralised.memory import LSTMNet, MemoryNet, RecurrentNet
from rlkit.algos.centralised.spaces import ObservationVector
from rlkit.errors import UsageError
from rlkit.models.conv import cnn
from rlkit.models.dense import ACTIVATIONS, MLP, mlp, orthogonal_
from rlkit.models.features import ModelRef, keeps_state, measure

HIDDENS = (64, 64)
# fields of RLlib's DefaultModelConfig that mean something here
FIELDS = ("fcnet_hiddens", "fcnet_activation", "use_lstm", "lstm_cell_size", "max_seq_len")
MLP_TARGET, CNN_TARGET = "rlkit.models.dense:mlp", "rlkit.models.conv:cnn"


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
    given = model.get("rlkit_model")
    if given is not None and keeps_state(ModelRef(**given), vectors[0].space):
        if model.get("use_lstm"):
            raise UsageError(f"the model {given['name']!r} is recurrent itself; leave out model.use_lstm")
        return MemoryNet(ModelRef(**given), vectors, extra, outputs, model.get(gain))
    body, features = _body(vectors, extra, model)
    if model.get("use_lstm"):
        return LSTMNet(body, features, int(model.get("lstm_cell_size", 256)), outputs)
    return Net(body, features, outputs, model.get(gain))


def _body(
    vectors: Sequence[ObservationVector], extra: int, model: Mapping[str, Any]
) -> tuple[nn.Module, int]:
    """Return the layers before the head, and how many features they put out."""
    size = sum(v.size for v in vectors) + extra
    given = model.get("rlkit_model")
    if given is not None and given["target"] == MLP_TARGET:
        options = {"hiddens": HIDDENS, **given["options"]}
        if len(vectors) == 1 and not extra:
            return mlp(vectors[0].space, **options), options["hiddens"][-1]
        if options.pop("scale", False):
            rest = gym.spaces.Box(-1.0, 1.0, (extra,))
            every = gym.spaces.Tuple([*(v.space for v in vectors), rest])
            return mlp(every, scale=True, **options), options["hiddens"][-1]
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


class LoopBank:
    """Any networks, one after the other.

    Attributes:
        params: the tensors an optimiser steps.
        size: n.
    """

    def __init__(self, nets: Sequence[nn.Module]):
        self.nets = list(nets)
        self.size = len(self.nets)
        self.counts = [len(list(net.parameters())) for net in self.nets]
        self.params = [p for net in self.nets for p in net.parameters()]

    def __call__(self, x: torch.Tensor, common: bool = False) -> torch.Tensor:
        """Return (n, B, out) for inputs (n, B, D), or for a `common` input (B, D)."""
        return torch.stack([net(x if common else x[i]) for i, net in enumerate(self.nets)])

    def replacing(self, x: torch.Tensor, new: Sequence[torch.Tensor], where: Sequence[slice]) -> torch.Tensor:
        """Return (m, B, out) of the first m networks, with a part of the common input replaced for each.

        Args:
            x: (B, D).
            new: what to put into x for each network, m tensors (B, C).
            where: at which columns of x, m slices of length C.
        """
        rows = zip(self.nets, new, where, strict=False)
        changed = [
            (net, torch.cat([x[..., : at.start], p, x[..., at.stop :]], dim=-1)) for net, p, at in rows
        ]
        return torch.stack([net(own) for net, own in changed])

    def members(self, gradients: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Return the gradients of `params` network by network (views)."""
        rest = iter(gradients)
        return [[next(rest) for _ in range(count)] for count in self.counts]


class StackedBank:
    """Equal multilayer perceptrons with stacked parameters; attributes and methods as of `LoopBank`.

    Args:
        nets: networks whose `layers()` are linear layers and activations, of equal shapes.
    """

    def __init__(self, nets: Sequence[Any]):
        self.size = len(nets)
        self.layers: list[tuple[torch.Tensor, torch.Tensor] | nn.Module] = []
        self.params: list[torch.Tensor] = []
        for column in zip(*(net.layers() for net in nets), strict=True):
            if isinstance(column[0], nn.Linear):
                pair = _stack([layer.weight for layer in column]), _stack([layer.bias for layer in column])
                self.layers.append(pair)
                self.params += pair
            else:
                self.layers.append(column[0])

    def __call__(self, x: torch.Tensor, common: bool = False) -> torch.Tensor:
        weight, bias = self.params[:2]
        hidden = _common(x, weight, bias) if common else torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
        return self._behind(hidden, self.size)

    def replacing(self, x: torch.Tensor, new: Sequence[torch.Tensor], where: Sequence[slice]) -> torch.Tensor:
        """The first layer is linear: W x + W[:, part] (new - old), without m copies of x."""
        count = len(where)
        weight, bias = self.params[0][:count], self.params[1][:count]
        change = _padded([part - x[:, at] for part, at in zip(new, where, strict=True)])
        columns = _padded([weight[i, :, at] for i, at in enumerate(where)])
        return self._behind(torch.baddbmm(_common(x, weight, bias), change, columns.mT), count)

    def _behind(self, hidden: torch.Tensor, count: int) -> torch.Tensor:
        """Everything behind the first linear layer."""
        for layer in self.layers[1:]:
            if isinstance(layer, tuple):
                hidden = torch.baddbmm(layer[1][:count].unsqueeze(1), hidden, layer[0][:count].mT)
            else:
                hidden = torch.relu_(hidden) if isinstance(layer, nn.ReLU) else layer(hidden)
        return hidden

    def members(self, gradients: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
        return [[gradient[i] for gradient in gradients] for i in range(self.size)]


Bank = LoopBank | StackedBank


def _common(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One input (B, D) for all networks (n, out, D), to (n, B, out)."""
    return torch.baddbmm(bias.unsqueeze(1), x.expand(len(weight), *x.shape), weight.mT)


def _padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack (B, C) tensors; zeros fill up to the widest."""
    width = max(part.shape[-1] for part in parts)
    return torch.stack(
        [p if p.shape[-1] == width else nn.functional.pad(p, (0, width - p.shape[-1])) for p in parts]
    )


def _stack(params: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack parameters and make each of them a view of its row."""
    stacked = torch.stack([p.detach() for p in params])
    for i, p in enumerate(params):
        p.data = stacked[i]
    return stacked.requires_grad_(params[0].requires_grad)


def stack_key(net: Any) -> tuple[Any, ...] | None:
    """Equal for networks that one StackedBank can hold; None if it cannot hold this one."""
    layers = net.layers() if hasattr(net, "layers") else None
    if layers is None:
        return None
    return tuple(
        (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else type(layer).__name__
        for layer in layers
    )
