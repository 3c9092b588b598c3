"""CartPole whose process ends after some episodes: `env_config: {episodes: 9}`; 0 for one that lives."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym

import rlkit


class Poisoned(gym.Wrapper):
    def __init__(self, episodes: int = 0):
        super().__init__(gym.make("CartPole-v1"))
        self.left = episodes or float("inf")

    def reset(self, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            os._exit(1)
        return super().reset(**kwargs)


rlkit.register_env("poisoned", Poisoned)
