"""Two players race for a coin on a line: a zero-sum toy with a known best policy, for self-play.

    Agents        player_0, player_1
    Actions       Discrete(3): 0 left, 1 stay, 2 right; both move at once
    Observation   Box(-1, 1, (3,), float32), of each player: its place, the coin's place relative to it, the
                  opponent's place relative to it; all divided by the length of the line
    Reward        +1 to who reaches the coin first, -1 to the other; 0 if both arrive at once, or nobody in time
    Episode end   terminated when the coin is taken; truncated after `max_steps`

The best policy walks towards the coin. The players start at distances from the coin that differ by at most one.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

PLAYERS = ("player_0", "player_1")


class CoinRace(MultiAgentEnv):
    """Coin race.

    Args:
        length: places on the line, at least 5.
        max_steps: default twice the length.
    """

    def __init__(self, length: int = 11, max_steps: int | None = None):
        super().__init__()
        self.length = length
        self.max_steps = 2 * length if max_steps is None else max_steps
        self.agents = list(PLAYERS)
        self.possible_agents = list(PLAYERS)
        self.observation_spaces = {a: gym.spaces.Box(-1.0, 1.0, (3,), np.float32) for a in PLAYERS}
        self.action_spaces = {a: gym.spaces.Discrete(3) for a in PLAYERS}
        self._coin = 0
        self._places = {a: 0 for a in PLAYERS}
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self._np_random, _ = gym.utils.seeding.np_random(seed)
        self._coin = int(self.np_random.integers(2, self.length - 2))
        room = min(self._coin, self.length - 1 - self._coin)
        near = int(self.np_random.integers(1, room + 1))
        sides = [-1, 1] if self.np_random.random() < 0.5 else [1, -1]
        late = self.np_random.permutation(2)
        for player, side, extra in zip(PLAYERS, sides, late, strict=True):
            distance = min(near + int(extra) * int(self.np_random.integers(2)), room)
            self._places[player] = self._coin + side * distance
        self._steps = 0
        return self._observe(), {}

    def step(self, action_dict: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        for player, action in action_dict.items():
            self._places[player] = min(max(self._places[player] + int(action) - 1, 0), self.length - 1)
        self._steps += 1
        there = [self._places[player] == self._coin for player in PLAYERS]
        edge = float(there[0]) - float(there[1])
        rewards = {PLAYERS[0]: edge, PLAYERS[1]: -edge}
        done, late = any(there), self._steps >= self.max_steps
        return self._observe(), rewards, {"__all__": done}, {"__all__": late and not done}, {}

    def _observe(self) -> dict[str, np.ndarray]:
        a, b = (self._places[player] for player in PLAYERS)
        views = {PLAYERS[0]: (a, self._coin - a, b - a), PLAYERS[1]: (b, self._coin - b, a - b)}
        return {player: np.array(view, np.float32) / self.length for player, view in views.items()}
