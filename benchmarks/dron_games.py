"""Playing against opponents with their features and without RLlib: shared by the DRON benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rlkit.algos.opponents.history import FeatureOptions, OpponentHistory
from rlkit.algos.opponents.inputs import Placebo
from rlkit.envs.matrix_game import MatrixGames, Round
from rlkit.envs.soccer_games import Moves, SoccerGames
from rlkit.envs.soccer_rules import SoccerRules
from rlkit.envs.soccer_styles import Opponents


class Player:
    """The learner in N games: `observation` has the columns state, opponent and history that DRON's module reads."""

    def __init__(self, games: SoccerGames | MatrixGames, options: FeatureOptions, shuffle: bool = False):
        self.games, self.options = games, options
        self.rows = np.arange(games.count)
        states = games.observation
        self.history = OpponentHistory(options, 1, games.action_count, states.shape[1])
        self.history.reset(self.rows)
        self.history.observe(self.rows, states)
        self.placebo = Placebo() if shuffle else None
        if self.placebo is not None:
            self.placebo.begin(self.rows)
        self._seen = np.ones((games.count, 1), bool)
        self.observation = self._observe()

    @property
    def flat(self) -> np.ndarray:
        """The observation as one vector per game, (N, S + F)."""
        return np.concatenate(
            [part.reshape(self.games.count, -1) for part in self.observation.values()], axis=1
        )

    def _observe(self) -> dict[str, np.ndarray]:
        columns = {"state": self.games.observation}
        if self.history.size:
            columns["opponent"] = self.history.features(self.rows)
        if self.options.window:
            columns["history"] = self.history.windows(self.rows)
        if self.placebo is not None:
            self.placebo.exchange(self.rows, columns)
        return columns

    def step(self, actions: np.ndarray) -> Moves | Round:
        """Play one move in every game and observe; `restart` the games that are done before the next one."""
        move = self.games.step(actions)
        if self.options.features or self.options.window:
            onehot = np.eye(self.games.action_count, dtype=np.float32)[move.opponent_action][:, None]
            events: dict[str, Any] = {}
            if isinstance(move, Moves):
                events = {"moves": move.moves[:, None].astype(np.float32), "lost": move.ball_lost}
            self.history.update(self.rows, onehot, self._seen, **events)
            self.history.observe(self.rows, self.games.observation)
        self.observation = self._observe()
        return move

    def restart(self, ended: np.ndarray) -> None:
        """Start new games."""
        if len(ended):
            self.games.reset(ended)
            self.history.reset(ended)
            if self.placebo is not None:
                self.placebo.begin(ended)
            self.history.observe(ended, self.games.observation[ended])
            self.observation = self._observe()


def evaluate(
    act: Callable[[Player], np.ndarray],
    options: FeatureOptions,
    games: int,
    *,
    opponents: Opponents,
    rules: SoccerRules | None = None,
    seed: int = 0,
    batch: int = 250,
    shuffle: bool = False,
    **switching: Any,
) -> dict[str, dict[str, float]]:
    """Play complete greedy games; return score, win, draw, loss, length per style and for `all`.

    `batch` games run side by side, each plays the same number one after the other, so short games are not favoured.
    """
    table = SoccerGames(batch, rules, opponents, seed=seed, **switching)
    player = Player(table, options, shuffle)
    left = np.full(batch, games // batch) + (np.arange(batch) < games % batch)
    rows: list[np.ndarray] = []
    while (left > 0).any():
        move = player.step(act(player))
        ended = np.flatnonzero(move.done)
        counted = ended[left[ended] > 0]
        rows.append(np.stack([table.style[counted], move.reward[counted], table.clock[counted]], axis=1))
        left[counted] -= 1
        player.restart(ended)
    data = np.concatenate(rows)
    groups = {"all": data} | {name: data[data[:, 0] == i] for i, name in enumerate(table.names)}
    return {
        name: {
            "score": float(g[:, 1].mean()), "win": float((g[:, 1] > 0).mean()), "draw": float((g[:, 1] == 0).mean()),
            "loss": float((g[:, 1] < 0).mean()), "length": float(g[:, 2].mean()), "games": len(g),
        }
        for name, g in groups.items()
    }  # fmt: skip
