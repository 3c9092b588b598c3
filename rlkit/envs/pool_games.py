"""What games against a pool of opponents share as environments: one game, or many side by side as arrays.

`games` plays them: it has `rng`, `names` of the pool, `style` (N,) of each game's opponent, `observation`, and
`reset(which=None)`. Its `step(actions)` returns `reward` (N,), `done` (N,) and `opponent_action` (N,).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

OPPONENT_ACTION, OPPONENT_TYPE = "opponent_action", "opponent_type"


class PoolGameEnv(gym.Env):
    """One game at a time. `reset(options={"opponent": name})` chooses the opponent of that game."""

    games: Any

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.games.rng = self.np_random
        self.games.reset()
        if options and "opponent" in options:
            names = self.games.names
            if options["opponent"] not in names:
                raise ValueError(
                    f"got options.opponent {options['opponent']!r}, expected one of {list(names)}"
                )
            self.games.style[:] = names.index(options["opponent"])
        return self.games.observation[0], {OPPONENT_TYPE: int(self.games.style[0])}


class PoolVectorEnv(gym.vector.VectorEnv):
    """N games stepped as arrays, with autoreset in the next step."""

    games: Any

    def __init__(self, num_envs: int, observation_space: gym.Space, action_space: gym.Space):
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        self.games.rng = self.np_random
        self.games.reset()
        self._ended[:] = False
        return self.games.observation, self.types()

    def play(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """Step all games, and begin those anew that had ended.

        Returns:
            The move, rewards (N,) float64, `done` (N,), and `played` (N,): False for games that only began.
        """
        played = ~self._ended
        move = self.games.step(np.asarray(actions))
        reward, done = move.reward.astype(np.float64), move.done & played
        if not played.all():
            self.games.reset(np.flatnonzero(~played))
            reward[~played] = 0.0
        self._ended = done
        return move, reward, done, played

    def types(self) -> dict[str, np.ndarray]:
        """Return the infos that name each game's opponent."""
        return {OPPONENT_TYPE: self.games.style.copy(), f"_{OPPONENT_TYPE}": np.ones(self.num_envs, bool)}
