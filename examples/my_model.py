"""A model of your own in a recipe.

    rlkit train configs/custom_model.yaml --import examples/my_model.py
    rlkit evaluate runs/custom_model --import examples/my_model.py

`build` gets the observation space and the options of the recipe's `model` section, and returns a torch module that maps
observations (B, *shape) to features (B, F). Heads, target networks and losses stay those of the algorithm, so that the
same file works for DQN, PPO and SAC.
"""

from __future__ import annotations

import gymnasium as gym
import torch
from torch import nn

import rlkit


class FourierFeatures(nn.Module):
    """Learned frequencies, then one dense layer: sin and cos of B x, with B trained (Tancik et al., 2020)."""

    def __init__(self, inputs: int, frequencies: int, features: int, scale: float):
        super().__init__()
        self.frequencies = nn.Linear(inputs, frequencies)
        nn.init.normal_(self.frequencies.weight, std=scale)
        self.dense = nn.Sequential(nn.Linear(2 * frequencies, features), nn.ReLU())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:  # (B, inputs) -> (B, features)
        phase = self.frequencies(observations)
        return self.dense(torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1))


def build(
    observation_space: gym.Space, *, frequencies: int = 64, features: int = 128, scale: float = 0.5
) -> nn.Module:
    """Fourier features for vector observations."""
    return FourierFeatures(observation_space.shape[0], frequencies, features, scale)


rlkit.register_model("fourier", build)
