"""Models registered by tests, at module level so that checkpoints can refer to them."""

from __future__ import annotations

import gymnasium as gym
import torch
from torch import nn


class Tiny(nn.Module):
    """One layer named `own`, so that a test can find it inside RLlib's modules."""

    def __init__(self, inputs: int, features: int):
        super().__init__()
        self.own = nn.Linear(inputs, features)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.own(observations))


def tiny(observation_space: gym.Space, *, features: int = 8) -> nn.Module:
    """A model of one layer."""
    inputs = (
        int(observation_space.n)
        if isinstance(observation_space, gym.spaces.Discrete)
        else observation_space.shape[0]
    )
    return Tiny(inputs, features)


def counting(observation_space: gym.Space, *, features: int = 8) -> nn.Module:
    """A model that counts its batches in a whole number."""
    return nn.Sequential(nn.Linear(observation_space.shape[0], features), nn.BatchNorm1d(features), nn.ReLU())


class Memory(nn.Module):
    """A GRU: recurrent by its `initial_state`."""

    def __init__(self, inputs: int, features: int):
        super().__init__()
        self.own = nn.GRU(inputs, features, batch_first=True)
        self.features = features

    def initial_state(self) -> dict[str, torch.Tensor]:
        return {"h": torch.zeros(self.features)}

    def forward(self, observations: torch.Tensor, state: dict) -> tuple[torch.Tensor, dict]:
        features, last = self.own(observations, state["h"].unsqueeze(0).contiguous())
        return features, {"h": last.squeeze(0)}


def memory(observation_space: gym.Space, *, features: int = 8) -> nn.Module:
    """A recurrent model."""
    return Memory(observation_space.shape[0], features)


class Faulty(nn.Module):
    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault
        if fault == "no_parameters":
            self.layers = [nn.Linear(4, 8)]  # a plain list hides them from torch
        else:
            self.layer = nn.Linear(4, 8)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        features = self.layers[0](observations) if self.fault == "no_parameters" else self.layer(observations)
        if self.fault == "three_dimensions":
            return features.unsqueeze(1)
        if self.fault == "integers":
            return features.long()
        if self.fault == "batch_of_one":
            return features.squeeze()
        if self.fault == "a_dict":
            return {"features": features}  # type: ignore[return-value]
        return features


def faulty(observation_space: gym.Space, *, fault: str) -> nn.Module:
    """A model with something wrong."""
    if fault == "raises":
        return observation_space.no_such_attribute
    if fault == "no_module":
        return 3  # type: ignore[return-value]
    return Faulty(fault)
