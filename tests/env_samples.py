"""Small environments with a scripted course, and a way back from the adapter to PettingZoo's API, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


class Scripted(ParallelEnv):
    """A parallel environment whose agents live as told: `lives` maps an agent to (first step, last step, how it ends).

    Step 0 is the reset. Observations hold (step, agent's number) / 100; each step is worth the agent's number.
    """

    metadata = {"name": "scripted", "render_modes": []}  # noqa: RUF012
    render_mode = None

    def __init__(self, lives: Mapping[str, tuple[int, int, str]], info_masks: bool = False):
        self.lives = dict(lives)
        self.possible_agents = list(lives)
        self.info_masks = info_masks
        self.actions: list[dict] = []
        self.task = 0

    def observation_space(self, agent: str) -> gym.Space:
        return BOX

    def action_space(self, agent: str) -> gym.Space:
        return _ACTIONS

    def set_task(self, task: int) -> None:
        self.task = task

    def _number(self, agent: str) -> int:
        return self.possible_agents.index(agent) + 1

    def _observation(self, agent: str) -> np.ndarray:
        return np.array([self.time / 100, self._number(agent) / 100], np.float32)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.array([1, 0, 1])} if self.info_masks else {}

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.time = 0
        self.agents = [agent for agent, (first, _, _) in self.lives.items() if first == 0]
        return {a: self._observation(a) for a in self.agents}, {a: self._info() for a in self.agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.actions.append(actions)
        self.time += 1
        here = [a for a, (first, last, _) in self.lives.items() if first <= self.time <= last]
        ends = {a: self.lives[a][2] if self.lives[a][1] == self.time else "" for a in here}
        self.agents = [a for a in here if not ends[a]]
        return (
            {a: self._observation(a) for a in here},
            {a: float(self._number(a)) for a in here},
            {a: ends[a] == "terminated" for a in here},
            {a: ends[a] == "truncated" for a in here},
            {a: self._info() for a in here},
        )


_ACTIONS = gym.spaces.Discrete(3)


class BackToParallel(ParallelEnv):
    """An adapted environment under PettingZoo's parallel API again, so that PettingZoo's own test can be run on it."""

    def __init__(self, env: Any):
        self.env = env
        self.metadata, self.render_mode = env.metadata, env.render_mode
        self.possible_agents = list(env.possible_agents)

    def observation_space(self, agent: str) -> gym.Space:
        return self.env.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space:
        return self.env.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        observations, infos = self.env.reset(seed=seed, options=options)
        self.agents = list(self.env.agents)
        return observations, infos

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        self.agents = list(self.env.agents)
        cut = truncated.pop("__all__")
        terminated.pop("__all__")
        truncated = {a: flag or (cut and not terminated[a]) for a, flag in truncated.items()}
        return observations, rewards, terminated, truncated, infos

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()
