"""The step of a fused `torch.optim.Adam` without what surrounds it, and gradients before it: norms and clipping.

For networks as small as reinforcement learning's, `Adam.step` spends more time on its profiler range, hooks and on
collecting the same lists again than on the arithmetic. `AdamStep` collects them once and calls
`torch.optim.adam.adam`, the same arithmetic on the same state: checkpoints, learning rates and schedules work as
with `optimizer.step()`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.adam import adam

_ADAM_STEP: Any = inspect.unwrap(torch.optim.Adam.step)


@dataclass
class _Lists:
    group: dict[str, Any]
    params: list[torch.Tensor]
    exp_avgs: list[torch.Tensor]
    exp_avg_sqs: list[torch.Tensor]
    steps: list[torch.Tensor]


class AdamStep:
    """Call it in the place of `optimizer.step()`.

    What it cannot do the same way it leaves to the optimizer: other classes than Adam, Adam that is not fused, amsgrad,
    maximize, hooks, parameters without a gradient, and the first step, which makes the state.

    Args:
        optimizer: any torch optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self._lists: list[_Lists] | None = None

    def __call__(self) -> None:
        lists = self._lists
        if lists is None or self._stale(lists):
            self._whole_step()
            self._lists = self._collect()
            return
        gradients = [[p.grad for p in found.params] for found in lists]
        if any(g is None for found in gradients for g in found):
            self._whole_step()
            return
        with torch.no_grad():
            for found, grads in zip(lists, gradients, strict=True):
                beta1, beta2 = found.group["betas"]
                adam(
                    found.params, grads, found.exp_avgs, found.exp_avg_sqs, [], found.steps, fused=True,
                    foreach=False, amsgrad=False, beta1=beta1, beta2=beta2, lr=found.group["lr"],
                    weight_decay=found.group["weight_decay"], eps=found.group["eps"], maximize=False,
                )  # fmt: skip

    def _whole_step(self) -> None:
        """The optimizer's own step; Adam's without the wrapper that imports torch's compiler (a second of CPU)."""
        optimizer = self.optimizer
        plain = type(optimizer) is torch.optim.Adam and not optimizer.defaults["differentiable"]
        if not plain or self._hooked() or "step" in vars(optimizer):  # a scheduler's step counts the calls
            optimizer.step()
            return
        with torch.no_grad():
            _ADAM_STEP(optimizer)

    def _stale(self, lists: list[_Lists]) -> bool:
        """Whether a restored state or other parameters replaced those collected, or a hook was added."""
        groups, state = self.optimizer.param_groups, self.optimizer.state
        return (
            self._hooked()
            or len(groups) != len(lists)
            or any(
                group is not found.group
                or len(group["params"]) != len(found.params)
                or state[found.params[0]].get("exp_avg") is not found.exp_avgs[0]
                for group, found in zip(groups, lists, strict=True)
            )
        )

    def _hooked(self) -> bool:
        return bool(self.optimizer._optimizer_step_pre_hooks or self.optimizer._optimizer_step_post_hooks)

    def _collect(self) -> list[_Lists] | None:
        optimizer = self.optimizer
        if type(optimizer) is not torch.optim.Adam or self._hooked():
            return None
        lists = []
        for group in optimizer.param_groups:
            params, state = list(group["params"]), optimizer.state
            plain = group["fused"] and not (
                group["amsgrad"] or group["maximize"] or group["decoupled_weight_decay"]
            )
            if not plain or not params or any("exp_avg" not in state[p] for p in params):
                return None
            lists.append(
                _Lists(
                    group, params, [state[p]["exp_avg"] for p in params],
                    [state[p]["exp_avg_sq"] for p in params], [state[p]["step"] for p in params],
                )
            )  # fmt: skip
        return lists


def total_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Global 2-norm of gradients of one device and dtype, (): `torch.nn.utils.get_total_norm` without its sorting."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def clip_each(gradients: Sequence[Sequence[torch.Tensor]], clip: float | None, by: str) -> torch.Tensor:
    """Clip the gradients of n networks in place, as RLlib's words say; return the norm of each before, (n,).

    Args:
        gradients: of each network, equally many.
        clip: threshold, or None.
        by: `norm` clips each variable of each network by its own norm, `global_norm` each network's gradient as a
            whole, `value` each entry.
    """
    flat = [g for network in gradients for g in network]
    norms = torch.stack(torch._foreach_norm(flat)).view(len(gradients), -1)
    totals = norms.square().sum(dim=1).sqrt()
    if clip and by == "value":
        torch._foreach_clamp_min_(flat, -clip)
        torch._foreach_clamp_max_(flat, clip)
    elif clip:
        given = norms if by == "norm" else totals[:, None].expand_as(norms)
        scale = (clip / (given + 1e-6)).clamp(max=1.0).reshape(-1)
        torch._foreach_mul_(flat, list(scale.unbind()))
    return totals
