"""Small team games with a known optimum, as RLlib environments, for the tests of MADDPG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

LENGTH = 5


class Game(MultiAgentEnv):
    """Agents see a new number each in every step, and are paid by `pay`; cut after LENGTH steps.

    Args:
        seed: of the numbers; None: from `reset`.
    """

    agents_: ClassVar[Mapping[str, tuple[gym.Space, gym.Space]]] = {}

    def __init__(self, config: Mapping[str, Any] | None = None):
        super().__init__()
        self.agents = self.possible_agents = list(self.agents_)
        self.observation_spaces = {a: spaces[0] for a, spaces in self.agents_.items()}
        self.action_spaces = {a: spaces[1] for a, spaces in self.agents_.items()}
        self.rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.time = 0
        self.seen = self.draw()
        return self.seen, {}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        rewards = self.pay(action_dict)
        self.time += 1
        self.seen = self.draw()
        return self.seen, rewards, {"__all__": False}, {"__all__": self.time >= LENGTH}, {}

    def draw(self) -> dict[str, Any]:
        raise NotImplementedError

    def pay(self, actions: Mapping[str, Any]) -> dict[str, float]:
        raise NotImplementedError


NUMBER = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


class Sum(Game):
    """Two agents with one number each earn -(a_0 + a_1 - c_0 - c_1)². The best team earns 0 with a_i = c_i.

    Random play earns about -1.1 per step and agent; a team that ignores its numbers at best -0.43.
    """

    agents_: ClassVar = {"a_0": (NUMBER, gym.spaces.Box(-1.0, 1.0, (1,), np.float32)),
               "a_1": (NUMBER, gym.spaces.Box(-1.0, 1.0, (1,), np.float32))}  # fmt: skip

    def draw(self) -> dict[str, Any]:
        return {a: self.rng.uniform(-0.8, 0.8, 1).astype(np.float32) for a in self.agents_}

    def pay(self, actions: Mapping[str, Any]) -> dict[str, float]:
        miss = sum(float(actions[a][0] - self.seen[a][0]) for a in self.agents_)
        return dict.fromkeys(self.agents_, -(miss**2))


CARD = gym.spaces.Discrete(3)


class Match(Game):
    """Two agents with a card of three earn 1 if both play their own card: random play 1/9, the best team 1."""

    agents_: ClassVar = {"a_0": (CARD, CARD), "a_1": (CARD, CARD)}

    def draw(self) -> dict[str, Any]:
        return {a: int(self.rng.integers(3)) for a in self.agents_}

    def pay(self, actions: Mapping[str, Any]) -> dict[str, float]:
        return dict.fromkeys(self.agents_, float(all(actions[a] == self.seen[a] for a in self.agents_)))


class Mixed(Game):
    """Three agents with all kinds of spaces; everybody earns what was right.

    `box` answers a picture of shape (2, 2) with its mean, `masked` may only play its card, `multi` plays two cards
    that a Dict shows.
    """

    agents_: ClassVar = {
        "box": (gym.spaces.Box(-1.0, 1.0, (2, 2), np.float32), gym.spaces.Box(0.0, 2.0, (1, 2), np.float32)),
        "masked": (
            gym.spaces.Dict(observation=CARD, action_mask=gym.spaces.Box(0, 1, (3,), np.int8)),
            CARD,
        ),
        "multi": (gym.spaces.Dict(x=CARD, y=gym.spaces.MultiDiscrete([2, 3])), gym.spaces.MultiDiscrete([3, 2])),
    }  # fmt: skip

    def draw(self) -> dict[str, Any]:
        card = int(self.rng.integers(3))
        return {
            "box": np.full((2, 2), self.rng.uniform(-0.8, 0.8), np.float32),
            "masked": {"observation": card, "action_mask": np.eye(3, dtype=np.int8)[card]},
            "multi": {"x": int(self.rng.integers(3)), "y": np.array([self.rng.integers(2), 0])},
        }

    def pay(self, actions: Mapping[str, Any]) -> dict[str, float]:
        assert actions["masked"] == self.seen["masked"]["observation"], "a forbidden action was played"
        assert actions["box"].shape == (1, 2)
        assert (actions["box"] >= 0).all()
        miss = float(np.abs(actions["box"] - 1.0 - self.seen["box"].mean()).mean())
        seen = self.seen["multi"]
        right = [actions["multi"][0] == seen["x"], actions["multi"][1] == seen["y"][0]]
        return dict.fromkeys(self.agents_, float(np.mean(right)) - miss)


class Leaving(Game):
    """Two agents; `a_1` terminates after two steps, and `a_0` is cut after five. Every step is worth 1."""

    agents_: ClassVar = {"a_0": (NUMBER, NUMBER), "a_1": (NUMBER, NUMBER)}

    def draw(self) -> dict[str, Any]:
        return {
            a: np.full(1, 0.1 * (self.time if hasattr(self, "time") else 0), np.float32) for a in self.agents_
        }

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        self.time += 1
        seen = self.draw()
        rewards = dict.fromkeys(action_dict, 1.0)
        terminated = {"__all__": False}
        if "a_1" not in action_dict:
            del seen["a_1"]
        elif self.time == 2:
            terminated["a_1"] = True
        return seen, rewards, terminated, {"__all__": self.time >= LENGTH}, {}


class Alone(gym.Env):
    """One agent earns -(a - c)²; the best earns 0."""

    observation_space = NUMBER
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, config: Mapping[str, Any] | None = None):
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        self.seen = self.np_random.uniform(-0.8, 0.8, 1).astype(np.float32)
        return self.seen, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = -(float(action[0] - self.seen[0]) ** 2)
        self.time += 1
        self.seen = self.np_random.uniform(-0.8, 0.8, 1).astype(np.float32)
        return self.seen, reward, False, self.time >= LENGTH, {}


class Echo(Sum):
    """Two agents earn -(a - c)², averaged, for playing the number c they saw one step ago. The best team earns 0.

    A team without memory earns about -0.43 (two independent numbers of variance 0.21, and nothing to know).
    """

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.before = None
        return super().reset(seed=seed)

    def pay(self, actions: Mapping[str, Any]) -> dict[str, float]:
        before, self.before = self.before, self.seen
        if before is None:
            return dict.fromkeys(self.agents_, 0.0)
        return dict.fromkeys(
            self.agents_, -float(np.mean([(actions[a][0] - before[a][0]) ** 2 for a in self.agents_]))
        )
