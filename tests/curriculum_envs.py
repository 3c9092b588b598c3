"""Environments that show which task they play: the first observation of an episode is its level."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv


class Probe(gym.Env):
    """Observation: the level it was reset with. Episodes last `length` steps and pay 1 per step."""

    broken = 0  # how often `breaks_at` has struck in this process

    def __init__(self, config: Any = None, **kwargs: Any):
        options = {**(config or {}), **kwargs}
        self.level = float(options.get("level", 0.0))
        self.length = int(options.get("length", 3))
        self.breaks_at = options.get("breaks_at")
        self.observation_space = gym.spaces.Box(-1e6, 1e6, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.resets = 0
        self._steps = 0

    def set_task(self, task: Any) -> None:
        level = task["level"] if isinstance(task, dict) else task
        if level < 0:
            raise ValueError("level must be >= 0")
        self.level = float(level)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if options:
            self.set_task(options)
        self.resets += 1
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self._steps += 1
        if self.resets == self.breaks_at and self._steps == 2 and not Probe.broken:
            Probe.broken += 1
            raise RuntimeError("broken")
        done = self._steps >= self.length
        return self._observe(), 1.0, done, False, {"success": bool(self.level % 2)} if done else {}

    def _observe(self) -> np.ndarray:
        return np.array([self.level], np.float32)


class MultiProbe(MultiAgentEnv):
    """Two agents that see the level; `a` earns 1 per step, `b` 2."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.inner = Probe(config)
        self.agents = self.possible_agents = ["a", "b"]
        self.observation_spaces = {x: self.inner.observation_space for x in self.agents}
        self.action_spaces = {x: self.inner.action_space for x in self.agents}
        self.level = self.inner.level

    def set_task(self, task: Any) -> None:
        self.level = task["level"]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if options:
            self.set_task(options)
        self.inner.level = self.level
        obs, _ = self.inner.reset(seed=seed)
        return {x: obs for x in self.agents}, {}

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        obs, reward, done, _, info = self.inner.step(0)
        rewards = {"a": reward, "b": 2 * reward}
        return (
            {x: obs for x in self.agents},
            rewards,
            {"__all__": done},
            {"__all__": False},
            {x: info for x in self.agents},
        )
