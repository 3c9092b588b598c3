"""What a module chooses and what the environment gets, as torch modules that can be traced.

The greedy choice is that of `acting.Chooser`. A sampled choice takes its randomness as an input, `noise`, so that a
graph has none of its own:

    Categorical            argmax(logits - log(-log(u))), u uniform in (0, 1), (B, n)
    several choices        the same for each, u (B, sum of n)
    Gaussian               mean + std · z, z standard normal, (B, k)
    squashed Gaussian      tanh of it
    DQN, epsilon-greedy    where u_0 < epsilon an allowed action by u_1 … u_n, else the best; u (B, 1 + n)
    MADDPG, Box            tanh(logits) + noise of the schedule · z, clipped; z (B, k)

Legend: B rows, n actions, k numbers of one action.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import DefaultDQNRLModule
from ray.rllib.algorithms.dqn.dqn_learner import QF_PREDS
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
    TorchSquashedGaussian,
)
from ray.rllib.utils.numpy import MAX_LOG_NN_OUTPUT, MIN_LOG_NN_OUTPUT
from torch import nn

from rlkit.algos.centralised.module import MADDPGModule
from rlkit.algos.centralised.spaces import BoxActions
from rlkit.algos.sampling import acting
from rlkit.algos.sampling.actions import ActionMap
from rlkit.algos.sampling.graph import Tensor
from rlkit.errors import UsageError

UNIFORM, NORMAL = "uniform", "normal"
LOG_STD = (float(MIN_LOG_NN_OUTPUT), float(MAX_LOG_NN_OUTPUT))  # where RLlib's squashed Gaussian clips it


class Choosing(nn.Module):
    """A module and the choice among what it puts out.

    Args:
        module: an RLModule.
        sample: from noise, else greedy.
        env_steps: for exploration schedules.

    Attributes:
        output_name: what the numbers behind the choice are called: `q_values` or `action_dist_inputs`.
        noise: (name of the distribution, its width), or None.

    Raises:
        UsageError: a distribution whose samples are not known here.
    """

    def __init__(self, module: Any, sample: bool, env_steps: int):
        super().__init__()
        self.module, self.sample = module, sample
        self.is_q = isinstance(module, DefaultDQNRLModule)
        self.is_actor = isinstance(module, MADDPGModule)
        self.output_name = "q_values" if self.is_q else "action_dist_inputs"
        self.noise: tuple[str, int] | None = None
        self.level = 0.0
        if sample:
            self._prepare(env_steps)

    def _prepare(self, env_steps: int) -> None:
        module, space = self.module, self.module.action_space
        if self.is_q:
            module.epsilon_schedule.update(env_steps)
            self.level = float(module.epsilon_schedule.get_current_value())
            self.noise = UNIFORM, 1 + int(space.n)
        elif self.is_actor and isinstance(module.kind, BoxActions):
            self.level, self.noise = float(module.noise(env_steps)), (NORMAL, module.kind.size)
        else:
            self.distribution = module.get_exploration_action_dist_cls()
            if _is(self.distribution, TorchCategorical):
                self.noise = UNIFORM, int(space.n)
            elif _is(self.distribution, TorchMultiCategorical):
                self.noise = UNIFORM, int(np.sum(space.nvec))
            elif _is(self.distribution, TorchDiagGaussian, TorchSquashedGaussian):
                self.noise = NORMAL, int(np.prod(space.shape))
            else:
                raise UsageError(
                    f"sampled actions of {space} ({_name(self.distribution)}) have no export; export the greedy ones"
                )

    def forward(
        self, batch: dict[str, Any], noise: torch.Tensor | None
    ) -> tuple[Any, torch.Tensor | None, Any]:
        """Return module actions nested (B, ...), what they were chosen by (B, D), and the module's next state."""
        if self.is_q:
            out = self.module.compute_q_values(batch)
            numbers = out[QF_PREDS]
        elif self.is_actor:
            out = self.module._forward(batch)
            numbers = out[Columns.ACTION_DIST_INPUTS]
        else:
            out = acting.act(self.module, batch, explore=False)
            numbers = out.get(Columns.ACTION_DIST_INPUTS)
        stateful = Columns.STATE_OUT in out
        if stateful and numbers is not None:
            numbers = numbers.squeeze(1)
        actions = self._greedy(out, numbers, stateful) if noise is None else self._sampled(numbers, noise)
        return actions, numbers, out.get(Columns.STATE_OUT, {})

    def _greedy(self, out: dict[str, Any], numbers: torch.Tensor | None, stateful: bool) -> Any:
        if self.is_q and numbers is not None:
            return numbers.argmax(dim=-1)
        if self.is_actor:
            return self.module.kind.greedy(numbers)
        if Columns.ACTIONS in out:
            chosen = out[Columns.ACTIONS]
            return acting.map_tensors(lambda a: a.squeeze(1), chosen) if stateful else chosen
        return acting.Chooser(self.module, False)({Columns.ACTION_DIST_INPUTS: numbers}).actions

    def _sampled(self, numbers: Any, noise: torch.Tensor) -> Any:
        if self.is_q:
            keys = _gumbel(noise[:, 1:])
            anything = torch.where(numbers == float("-inf"), -1e30, keys).argmax(dim=-1)
            return torch.where(noise[:, 0] < self.level, anything, numbers.argmax(dim=-1))
        if self.is_actor and isinstance(self.module.kind, BoxActions):
            return self.module.kind.decode((torch.tanh(numbers) + self.level * noise).clamp(-1.0, 1.0))
        if _is(self.distribution, TorchCategorical):
            return (numbers + _gumbel(noise)).argmax(dim=-1)
        if _is(self.distribution, TorchMultiCategorical):
            sizes = [int(n) for n in self.module.action_space.nvec]
            parts = torch.split(numbers + _gumbel(noise), sizes, dim=-1)
            return torch.stack([part.argmax(dim=-1) for part in parts], dim=-1)
        mean, log_std = numbers.chunk(2, dim=-1)
        if _is(self.distribution, TorchDiagGaussian):
            return mean + log_std.exp() * noise
        return torch.tanh(mean + log_std.clamp(*LOG_STD).exp() * noise)


def _gumbel(uniform: torch.Tensor) -> torch.Tensor:
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 6e-8)))


def _is(distribution: Any, *classes: type) -> bool:
    """Whether a distribution class is one of these, or a partial of one (`get_partial_dist_cls`)."""
    return isinstance(distribution, type) and issubclass(distribution, classes)


def _name(distribution: Any) -> str:
    return getattr(distribution, "__name__", type(distribution).__name__)


class ForEnv(nn.Module):
    """`ActionMap` on tensors: module actions (B, ...) become the environment's, nested like its space."""

    def __init__(self, actions: ActionMap):
        super().__init__()
        self.part = _part(actions.part, actions.space)

    def forward(self, chosen: Any) -> Any:
        return self.part(chosen)


def _part(part: Any, space: gym.Space) -> nn.Module:
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        return _Nested(part, space)
    if isinstance(space, gym.spaces.Box):
        return _Box(part, space)
    return _Whole(part, space)


class _Whole(nn.Module):
    def __init__(self, part: Any, space: gym.Space):
        super().__init__()
        if not part.known:
            raise UsageError(
                f"actions of {space} have no export; expected Discrete, MultiDiscrete, MultiBinary or Box"
            )
        self.tensor = Tensor.of(space)
        self.register_buffer("start", None if part.start is None else torch.as_tensor(np.asarray(part.start)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = values.reshape(values.shape[0], *self.tensor.shape)
        if self.start is not None:
            values = values + self.start
        return values.to(self.tensor.torch_dtype)


class _Box(nn.Module):
    def __init__(self, part: Any, space: gym.Space):
        super().__init__()
        self.tensor, self.part = Tensor.of(space), part
        for name in ("low", "high", "width", "middle", "scaled"):
            self.register_buffer(name, torch.as_tensor(np.array(getattr(part, name))))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        part = self.part
        values = values.reshape(values.shape[0], *self.tensor.shape)
        if part.whole and not values.is_floating_point():
            if part.normalize and np.isfinite(part.low).all():
                values = self.low + values
        elif part.all:
            values = self.low + (values + 1.0) * self.width / 2.0
        elif part.some:
            values = torch.where(self.scaled, self.middle + (values + 1.0) * self.width / 2.0, values)
        if part.whole:
            values = torch.round(values)
        if part.fit:
            values = torch.maximum(
                torch.minimum(values, self.high.to(values.dtype)), self.low.to(values.dtype)
            )
        return values.to(self.tensor.torch_dtype)


class _Nested(nn.Module):
    def __init__(self, part: Any, space: Any):
        super().__init__()
        self.named = isinstance(space, gym.spaces.Dict)
        self.keys: list[Any] = list(space.spaces) if self.named else list(range(len(space.spaces)))
        self.parts = nn.ModuleList(_part(part.parts[key], space[key]) for key in self.keys)

    def forward(self, values: Any) -> Any:
        made = [part(values[key]) for key, part in zip(self.keys, self.parts, strict=True)]
        return dict(zip(self.keys, made, strict=True)) if self.named else tuple(made)
