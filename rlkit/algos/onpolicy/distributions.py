"""RLlib's two commonest action distributions with fewer operations, and the same numbers.

A minibatch of 64 rows spends more time on building `torch.distributions` objects than on their arithmetic. Other
distributions, and those of a module's own, stay RLlib's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian
from torch import Tensor

LOG_2_PI = math.log(2 * math.pi)


class Categorical:
    """One of K actions: logits (..., K), actions (...)."""

    def __init__(self, logits: Tensor):
        self.log_probs = torch.log_softmax(logits, -1)

    @functools.cached_property
    def probs(self) -> Tensor:
        return self.log_probs.exp()

    def logp(self, actions: Tensor) -> Tensor:
        return self.log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        # a masked action's logit may be -3.4e38, and 0 x inf is NaN
        return -(self.probs * self.log_probs.clamp(min=torch.finfo(self.log_probs.dtype).min)).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        terms = self.probs * (self.log_probs - other.log_probs)
        return torch.where(self.probs == 0, 0.0, terms).sum(-1)


class Gaussian:
    """Independent normal numbers: inputs (..., 2 A) are means and log standard deviations, actions (..., A)."""

    def __init__(self, inputs: Tensor):
        self.mean, self.log_std = inputs.chunk(2, -1)

    def logp(self, actions: Tensor) -> Tensor:
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * (z * z + LOG_2_PI) - self.log_std).sum(-1)

    def entropy(self) -> Tensor:
        return (0.5 * (1 + LOG_2_PI) + self.log_std).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        scale = torch.exp(-other.log_std)
        ratio = (torch.exp(self.log_std) * scale) ** 2
        shift = ((self.mean - other.mean) * scale) ** 2
        return (0.5 * (ratio + shift - 1) + other.log_std - self.log_std).sum(-1)


def distribution(kind: Any) -> Callable[[Tensor], Any]:
    """Return what makes a distribution from a module's ACTION_DIST_INPUTS, for a class of RLlib's."""
    if kind is TorchCategorical:
        return Categorical
    return Gaussian if kind is TorchDiagGaussian else kind.from_logits
