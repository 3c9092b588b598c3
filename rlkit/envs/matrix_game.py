"""`matrix_game`: a repeated game of two players against a strategy of the literature, drawn per episode from a pool.

    env_config: {game: prisoners_dilemma, opponents: [tit_for_tat, always_defect, random], rounds: 50}

Games, strategies and pools: `rlkit.envs.matrix_rules`; exact optima: `rlkit.envs.matrix_solver`. Actions: Discrete(2),
0 C and 1 D. Reward: the round's payoff. After `rounds` rounds the episode is truncated: the game itself has no end.

Observation: Box(0, 1, (5,), float32), one-hot: the first round; or what both did last, mine first: CC, CD, DC, DD. With
`observe: responses` eight numbers follow, (13,): how often the opponent answered each of CC, CD, DC, DD with C and with
D, as shares; two zeros where it has not been seen. They identify any strategy that looks one round back.

With `games_per_opponent: 3` an opponent stays for three episodes, each of which it plays from its start; the responses
are kept until the next opponent. A reset with a seed, or with a chosen opponent, begins with a new one.

`infos` have, of the round just played, `opponent_action`; and, for supervision alone, `opponent_type`, the index of the
strategy in the pool. With `switch_probability`, another strategy of the pool may take over after each round, from its
start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from rlkit.envs.matrix_rules import GAMES, faults, pool_of, strategy
from rlkit.envs.pool_games import OPPONENT_ACTION, OPPONENT_TYPE, PoolGameEnv, PoolVectorEnv

FIRST = 0  # of the observations; 1 + 2 a + b after both have played
SEEN = np.eye(5, dtype=np.float32)
Opponents = str | Sequence[str] | Mapping[str, float]


class Round(NamedTuple):
    """What happened in one round of N games: reward (N,) float32, done (N,) bool, opponent_action (N,)."""

    reward: np.ndarray
    done: np.ndarray
    opponent_action: np.ndarray


class MatrixGames:
    """N repeated games as arrays.

    Args:
        count: N.
        game, opponents, rounds, switch_probability, observe, games_per_opponent: see `matrix_game`.
        seed: of the strategies and their random actions.

    Attributes:
        state: (N,) index of the observation.
        clock: (N,) rounds played.
        style: (N,) index of the opponent's strategy into `names`.
        left: (N,) games that this opponent still plays, with the present one.

    Raises:
        ValueError: an argument that cannot be played, with the fix.
    """

    action_count = 2

    def __init__(
        self,
        count: int,
        game: str = "prisoners_dilemma",
        opponents: Opponents | None = None,
        *,
        rounds: int = 50,
        switch_probability: float = 0.0,
        observe: str = "last_round",
        games_per_opponent: int = 1,
        seed: Any = None,
    ):
        given = {
            "game": game, "opponents": opponents, "rounds": rounds, "switch_probability": switch_probability,
            "observe": observe, "games_per_opponent": games_per_opponent,
        }  # fmt: skip
        for path, message, fix in faults(given):
            raise ValueError(f"{'.'.join(map(str, path))}: {message}; fix: {fix}")
        pool = pool_of(opponents)
        self.names, self.weights = tuple(pool), np.array(list(pool.values()))
        self.count, self.rounds, self.switch_probability = count, rounds, switch_probability
        self.payoffs = np.asarray(GAMES[game], np.float32)
        automata = [strategy(name, game) for name in self.names]
        most = max(len(automaton.defects) for automaton in automata)
        self._defects = np.zeros((len(automata), most))
        self._after = np.zeros((len(automata), most, 2, 2), np.int64)
        for k, automaton in enumerate(automata):
            self._defects[k, : len(automaton.defects)] = automaton.defects
            self._after[k, : len(automaton.after)] = automaton.after
        self.rng = np.random.default_rng(seed)
        self.responses = observe == "responses"
        self.games_per_opponent = games_per_opponent
        self.state, self.clock, self.style, self._inner, self.left = (
            np.zeros(count, np.int64) for _ in range(5)
        )
        # how often C and D followed what both had done last; row 0 is the first round
        self._answers = np.zeros((count, 1 + 4, 2), np.float32)
        self.reset()

    def reset(self, which: np.ndarray | None = None) -> None:
        """Start new games, all of them or those in `which` (indices)."""
        which = np.arange(self.count) if which is None else which
        self.left[which] -= 1
        new = which[self.left[which] <= 0]
        if len(new):
            self.style[new] = self.rng.choice(len(self.names), len(new), p=self.weights)
            self.left[new], self._answers[new] = self.games_per_opponent, 0.0
        self.state[which], self.clock[which], self._inner[which] = FIRST, 0, 0

    @property
    def space(self) -> gym.spaces.Box:
        """The space of one game's observation."""
        return gym.spaces.Box(0.0, 1.0, (self.observation.shape[1],), np.float32)

    @property
    def observation(self) -> np.ndarray:
        """What the learner sees, (N, 5) or (N, 13) float32."""
        last = SEEN[self.state]
        if not self.responses:
            return last
        answers = self._answers[:, 1:]
        shares = answers / np.maximum(answers.sum(axis=2, keepdims=True), 1.0)
        return np.concatenate([last, shares.reshape(self.count, -1)], axis=1)

    def step(self, actions: np.ndarray) -> Round:
        """Play one round; `actions` (N,)."""
        defects = self._defects[self.style, self._inner]
        b = (self.rng.random(self.count) < defects).astype(np.int64)
        # a vector of games steps those that are over once more
        live = np.flatnonzero(self.clock < self.rounds)
        self._answers[live, self.state[live], b[live]] += 1.0
        self._inner = self._after[self.style, self._inner, actions, b]
        self.state = 1 + 2 * actions + b
        self.clock += 1
        if self.switch_probability:
            self._switch(np.flatnonzero(self.rng.random(self.count) < self.switch_probability))
        return Round(self.payoffs[actions, b], self.clock >= self.rounds, b)

    def _switch(self, games: np.ndarray) -> None:
        for game in games:
            others = self.weights.copy()
            others[self.style[game]] = 0.0
            self.style[game] = self.rng.choice(len(others), p=others / others.sum())
        self._inner[games] = 0


class MatrixGameEnv(PoolGameEnv):
    """One game at a time. `reset(options={"opponent": "grim"})` chooses the strategy of that episode."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, **options: Any):
        self.games = MatrixGames(1, **options, seed=self.np_random)
        self.games.left[:] = 0  # the first reset begins the first game
        self.observation_space, self.action_space = self.games.space, gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None or "opponent" in (options or {}):
            self.games.left[:] = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if action not in (0, 1):
            raise ValueError(f"got action {action!r}, expected 0 (C) or 1 (D)")
        played = self.games.step(np.array([int(action)]))
        info = {
            OPPONENT_ACTION: int(played.opponent_action[0]),
            OPPONENT_TYPE: int(self.games.style[0]),
        }
        return self.games.observation[0], float(played.reward[0]), False, bool(played.done[0]), info


class MatrixGameVectorEnv(PoolVectorEnv):
    """`num_envs` games stepped as arrays, with autoreset in the next step."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, **options: Any):
        games = MatrixGames(num_envs, **options)
        super().__init__(num_envs, games.space, gym.spaces.Discrete(2))
        self.games = games
        self.games.rng = self.np_random
        self.games.left[:] = 0

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self.games.left[:] = 0
        return super().reset(seed=seed, options=options)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        move, reward, done, played = self.play(actions)
        info = {OPPONENT_ACTION: move.opponent_action, f"_{OPPONENT_ACTION}": played, **self.types()}
        return self.games.observation, reward, np.zeros(self.num_envs, bool), done, info


def matrix_game(
    num_envs: int | None = None,
    game: str = "prisoners_dilemma",
    opponents: Any = None,
    *,
    rounds: int = 50,
    switch_probability: float = 0.0,
    observe: str = "last_round",
    games_per_opponent: int = 1,
) -> MatrixGameEnv | MatrixGameVectorEnv:
    """Make a repeated game, vectorised if `num_envs` is given (RLlib's vector entry point passes it).

    Args:
        num_envs: number of games played side by side.
        game: prisoners_dilemma, stag_hunt, chicken, coordination, matching_pennies.
        opponents: a pool or strategy by name, a list, or {strategy: weight}.
        rounds: rounds of an episode.
        switch_probability: chance per round that another strategy of the pool takes over.
        observe: `last_round`, or `responses` as well: what the opponent did after each of the four outcomes.
        games_per_opponent: episodes for which an opponent stays, and the responses with it.
    """
    options: dict[str, Any] = {
        "game": game, "opponents": opponents, "rounds": rounds, "switch_probability": switch_probability,
        "observe": observe, "games_per_opponent": games_per_opponent,
    }  # fmt: skip
    return MatrixGameEnv(**options) if num_envs is None else MatrixGameVectorEnv(num_envs, **options)
