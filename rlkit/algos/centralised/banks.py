"""Banks: networks of several agents computed together.

A bank of n networks maps inputs (n, B, D), or one common input (B, D), to outputs (n, B, out). `StackedBank` holds the
parameters of n equal multilayer perceptrons as stacked tensors (n, out, in): one batched matrix product per layer
instead of n small ones, and one optimiser step. The networks' own parameters become views into the stack, so that
whatever reads or loads a module's state sees the same numbers. `LoopBank` serves any networks, one after the other.

Both compute the same numbers up to rounding (tests/test_maddpg_stack.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class Bank:
    """n networks.

    Attributes:
        params: the tensors an optimiser steps.
    """

    params: list[torch.Tensor]
    size: int

    def __call__(self, x: torch.Tensor, common: bool = False) -> torch.Tensor:
        """Return (n, B, out) for inputs (n, B, D), or for a `common` input (B, D)."""
        raise NotImplementedError

    def replacing(self, x: torch.Tensor, new: Sequence[torch.Tensor], where: Sequence[slice]) -> torch.Tensor:
        """Return (m, B, out) of the first m networks, with a part of the common input replaced for each.

        Args:
            x: (B, D).
            new: what to put into x for each network, m tensors (B, C).
            where: at which columns of x, m slices of length C.
        """
        raise NotImplementedError

    def of_member(self, gradients: Sequence[torch.Tensor], i: int) -> list[torch.Tensor]:
        """Return, of the gradients of `params`, those of network i (views)."""
        raise NotImplementedError


class LoopBank(Bank):
    """Any networks, one after the other."""

    def __init__(self, nets: Sequence[nn.Module]):
        self.nets = list(nets)
        self.size = len(self.nets)
        self.lists = [list(net.parameters()) for net in self.nets]
        self.params = [p for params in self.lists for p in params]

    def __call__(self, x: torch.Tensor, common: bool = False) -> torch.Tensor:
        return torch.stack([net(x if common else x[i]) for i, net in enumerate(self.nets)])

    def replacing(self, x: torch.Tensor, new: Sequence[torch.Tensor], where: Sequence[slice]) -> torch.Tensor:
        outputs = []
        for net, part, at in zip(self.nets, new, where, strict=False):
            outputs.append(net(torch.cat([x[..., : at.start], part, x[..., at.stop :]], dim=-1)))
        return torch.stack(outputs)

    def of_member(self, gradients: Sequence[torch.Tensor], i: int) -> list[torch.Tensor]:
        start = sum(map(len, self.lists[:i]))
        return list(gradients[start : start + len(self.lists[i])])


class StackedBank(Bank):
    """Equal multilayer perceptrons with stacked parameters.

    Args:
        nets: networks whose `layers()` are linear layers and activations, of equal shapes.
    """

    def __init__(self, nets: Sequence[Any]):
        self.size = len(nets)
        rows = [net.layers() for net in nets]
        self.layers: list[tuple[torch.Tensor, torch.Tensor] | nn.Module] = []
        self.params = []
        for column in zip(*rows, strict=True):
            if not isinstance(column[0], nn.Linear):
                self.layers.append(column[0])
                continue
            weight = _stack([layer.weight for layer in column])
            bias = _stack([layer.bias for layer in column])
            self.layers.append((weight, bias))
            self.params += [weight, bias]

    def __call__(self, x: torch.Tensor, common: bool = False) -> torch.Tensor:
        first = self.layers[0]
        assert isinstance(first, tuple)
        weight, bias = first
        if common:
            hidden = _common(x, weight, bias)
        else:
            hidden = torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
        return self._behind(hidden, self.size)

    def replacing(self, x: torch.Tensor, new: Sequence[torch.Tensor], where: Sequence[slice]) -> torch.Tensor:
        """The first layer is linear: W x + W[:, part] (new - old), without m copies of x."""
        first, count = self.layers[0], len(where)
        assert isinstance(first, tuple)
        weight, bias = first[0][:count], first[1][:count]
        change = _padded([part - x[:, at] for part, at in zip(new, where, strict=True)])
        columns = _padded([weight[i, :, at] for i, at in enumerate(where)])
        hidden = torch.baddbmm(_common(x, weight, bias), change, columns.mT)
        return self._behind(hidden, count)

    def _behind(self, hidden: torch.Tensor, count: int) -> torch.Tensor:
        """Everything behind the first linear layer."""
        for layer in self.layers[1:]:
            if isinstance(layer, tuple):
                hidden = torch.baddbmm(layer[1][:count].unsqueeze(1), hidden, layer[0][:count].mT)
            elif isinstance(layer, nn.ReLU):
                hidden = torch.relu_(hidden)
            else:
                hidden = layer(hidden)
        return hidden

    def of_member(self, gradients: Sequence[torch.Tensor], i: int) -> list[torch.Tensor]:
        return [gradient[i] for gradient in gradients]


def _common(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One input (B, D) for all networks (n, out, D), to (n, B, out)."""
    return torch.baddbmm(bias.unsqueeze(1), x.expand(len(weight), *x.shape), weight.mT)


def _padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack (B, C) tensors; zeros fill up to the widest."""
    width = max(part.shape[-1] for part in parts)
    if any(part.shape[-1] < width for part in parts):
        parts = [nn.functional.pad(part, (0, width - part.shape[-1])) for part in parts]
    return torch.stack(list(parts))


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


def clip_gradients(
    bank: Bank, gradients: Sequence[torch.Tensor], clip: float | None, by: str
) -> torch.Tensor:
    """Clip in place as RLlib's words say; return the norm of each network's gradient before, (n,).

    Args:
        bank: whose `params` the gradients belong to.
        gradients: of `bank.params`.
        clip: threshold, or None.
        by: `norm` clips each variable of each network by its own norm ([C] clip_by_norm), `global_norm` each
            network's gradient as a whole, `value` each entry.
    """
    members = [bank.of_member(gradients, i) for i in range(bank.size)]
    flat = [g for member in members for g in member]
    norms = torch.stack(torch._foreach_norm(flat)).view(bank.size, -1)
    totals = norms.square().sum(dim=1).sqrt()
    if not clip:
        return totals
    if by == "value":
        torch._foreach_clamp_min_(flat, -clip)
        torch._foreach_clamp_max_(flat, clip)
        return totals
    given = norms if by == "norm" else totals[:, None].expand_as(norms)
    scale = (clip / (given + 1e-6)).clamp(max=1.0).reshape(-1)
    torch._foreach_mul_(flat, list(scale.unbind()))
    return totals
