"""`repeat_previous`: answer with the symbol that was shown `delay` steps ago.

    observation   Discrete(symbols), drawn anew in every step
    action        Discrete(symbols)
    reward        1 / (length - delay) if the action is the symbol of `delay` steps ago, else 0; 0 in the first
                  `delay` steps
    end           terminated after `length` steps

The best return is exactly 1. Symbols are independent, so a policy without memory expects 1 / symbols, whatever it does.
After POPGym's RepeatPrevious (Morad et al., arXiv 2303.01859), which takes 1 / length away for a wrong answer.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rlkit.errors import EnvError


class RepeatPrevious(gym.Env):
    """A test of memory with a known optimum; see the module docstring.

    Args:
        delay: steps between a symbol and its answer.
        symbols: how many there are.
        length: steps of an episode.
    """

    def __init__(self, delay: int = 2, symbols: int = 4, length: int = 32):
        if not 0 <= delay < length or symbols < 2:
            raise EnvError(
                f"repeat_previous: got delay {delay}, symbols {symbols}, length {length}; expected 0 <= delay < length "
                "and at least 2 symbols"
            )
        self.delay, self.symbols, self.length = delay, symbols, length
        self.observation_space = gym.spaces.Discrete(symbols)
        self.action_space = gym.spaces.Discrete(symbols)
        self.max_episode_steps = length
        self._shown: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self._shown = [int(self.np_random.integers(self.symbols))]
        return self._shown[-1], {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        now = len(self._shown) - 1
        asked = now >= self.delay
        right = asked and int(action) == self._shown[now - self.delay]
        self._shown.append(int(self.np_random.integers(self.symbols)))
        return self._shown[-1], right / (self.length - self.delay), now + 1 == self.length, False, {}
