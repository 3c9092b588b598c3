"""The learned bonuses: random network distillation and the intrinsic curiosity module."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from gymnasium.spaces import utils
from torch import nn

from rlkit.callbacks.merge_agents import flat_rows
from rlkit.exploration.bonus import Bonus, BonusState


class RunningMoments:
    """Mean and variance of rows seen so far (Welford, in batches)."""

    def __init__(self, size: int):
        self.count, self.mean, self.var = 1e-4, np.zeros(size), np.ones(size)

    def update(self, rows: np.ndarray) -> None:
        """Take in (N, size)."""
        n, mean, var = len(rows), rows.mean(0), rows.var(0)
        total, delta = self.count + n, mean - self.mean
        self.var = (self.var * self.count + var * n + delta**2 * self.count * n / total) / total
        self.mean = self.mean + delta * n / total
        self.count = total

    def get_state(self) -> BonusState:
        return {"count": self.count, "mean": self.mean, "var": self.var}

    def set_state(self, state: BonusState) -> None:
        self.count, self.mean, self.var = state["count"], state["mean"].copy(), state["var"].copy()


class LearnedBonus(Bonus):
    """A bonus from networks trained with Adam, on observations normalised to clip((o - mean) / std, ±5)."""

    def __init__(self, space: gym.Space):
        self.space = space
        self.moments = RunningMoments(utils.flatdim(space))
        self.nets: nn.ModuleDict
        self.optimizer: torch.optim.Adam

    def rows(self, observations: Any, learn: bool = False) -> torch.Tensor:
        """Return (N, size) float32, normalised."""
        if isinstance(observations, np.ndarray) and observations[0].size == self.moments.mean.size:
            flat = observations.reshape(len(observations), -1).astype(np.float64)  # flat already
        else:
            size = len(tree.flatten(observations)[0])
            flat = flat_rows(self.space, observations, np.ones(size, bool)).astype(np.float64)
        if learn:
            self.moments.update(flat)
        scaled = (flat - self.moments.mean) / np.sqrt(self.moments.var + 1e-8)
        return torch.as_tensor(np.clip(scaled, -5.0, 5.0), dtype=torch.float32)

    def step(self, loss: torch.Tensor) -> None:
        """One Adam step."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def get_state(self) -> BonusState:
        return {
            "nets": {name: value.numpy().copy() for name, value in self.nets.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),  # its tensors are the live ones
            "moments": self.moments.get_state(),
        }

    def set_state(self, state: BonusState) -> None:
        self.nets.load_state_dict({name: torch.as_tensor(value) for name, value in state["nets"].items()})
        self.optimizer.load_state_dict(state["optimizer"])
        self.moments.set_state(state["moments"])

    def send(self) -> BonusState:
        return {name: value.numpy().copy() for name, value in self.nets.state_dict().items()}

    def receive(self, own: BonusState, others: Sequence[BonusState]) -> None:
        everyone = [own, *others] if own else list(others)
        if everyone:
            mean = {name: np.mean([nets[name] for nets in everyone], axis=0) for name in everyone[0]}
            self.nets.load_state_dict({name: torch.as_tensor(value) for name, value in mean.items()})


class RandomNetworkDistillation(LearnedBonus):
    """See `rlkit.exploration.intrinsic.RND`."""

    def __init__(self, space: gym.Space, embed_dim: int, lr: float, hiddens: Sequence[int], seed: int):
        super().__init__(space)
        size = utils.flatdim(space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            target, predictor = relu_layers(size, hiddens, embed_dim), relu_layers(size, hiddens, embed_dim)
        self.nets = nn.ModuleDict({"target": target, "predictor": predictor})
        target.requires_grad_(False)
        self.optimizer = torch.optim.Adam(predictor.parameters(), lr=lr)
        self.errors = RunningMoments(1)

    def __call__(self, observations: Any, actions: Any, next_observations: Any) -> np.ndarray:
        rows = self.rows(next_observations, learn=True)
        error = (self.nets["predictor"](rows) - self.nets["target"](rows)).pow(2).mean(1)
        self.step(error.mean())
        values: np.ndarray = error.detach().numpy().astype(np.float64)
        self.errors.update(values[:, None])
        return values / np.sqrt(self.errors.var[0] + 1e-8)

    def get_state(self) -> BonusState:
        return {**super().get_state(), "errors": self.errors.get_state()}

    def set_state(self, state: BonusState) -> None:
        super().set_state(state)
        self.errors.set_state(state["errors"])


class CuriosityModel(LearnedBonus):
    """See `rlkit.exploration.intrinsic.Curiosity`; `hiddens` are those of its features, inverse and forward nets."""

    def __init__(
        self,
        space: gym.Space,
        action_space: gym.Space,
        beta: float,
        feature_dim: int,
        lr: float,
        hiddens: tuple[Sequence[int], Sequence[int], Sequence[int]],
        seed: int,
    ):
        super().__init__(space)
        self.action_space, self.beta = action_space, beta
        size, actions = utils.flatdim(space), utils.flatdim(action_space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            features = relu_layers(size, hiddens[0], feature_dim)
            inverse = relu_layers(2 * feature_dim, hiddens[1], actions)
            dynamics = relu_layers(feature_dim + actions, hiddens[2], feature_dim)
        self.nets = nn.ModuleDict({"features": features, "inverse": inverse, "dynamics": dynamics})
        self.optimizer = torch.optim.Adam(self.nets.parameters(), lr=lr)

    def __call__(self, observations: Any, actions: Any, next_observations: Any) -> np.ndarray:
        before = self.nets["features"](self.rows(observations, learn=True))
        after = self.nets["features"](self.rows(next_observations))
        taken = torch.as_tensor(flat_rows(self.action_space, actions, np.ones(len(before), bool)))
        # the forward model trains the features too, as in the paper's joint loss
        predicted = self.nets["dynamics"](torch.cat([before, taken], 1))
        error = 0.5 * (predicted - after).pow(2).sum(1)
        loss = self.beta * error.mean() + (1.0 - self.beta) * self._inverse_loss(before, after, taken)
        self.step(loss)
        bonus: np.ndarray = error.detach().numpy().astype(np.float64)
        return bonus

    def _inverse_loss(self, before: torch.Tensor, after: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
        guess = self.nets["inverse"](torch.cat([before, after], 1))
        if isinstance(self.action_space, gym.spaces.Box):
            return nn.functional.mse_loss(guess, taken)
        sizes = (
            [int(self.action_space.n)]
            if isinstance(self.action_space, gym.spaces.Discrete)
            else [int(n) for n in np.ravel(self.action_space.nvec)]
        )
        parts = zip(guess.split(sizes, 1), taken.split(sizes, 1), strict=True)
        return torch.stack([nn.functional.cross_entropy(g, a) for g, a in parts]).sum()


def relu_layers(inputs: int, hiddens: Sequence[int], outputs: int) -> nn.Sequential:
    """ReLU layers of the given sizes."""
    layers: list[nn.Module] = []
    for size in hiddens:
        layers += [nn.Linear(inputs, size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
