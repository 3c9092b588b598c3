"""Many games of soccer at once, as arrays: the engine behind every environment in `rlkit.envs.soccer`.

One core steps 64 games at more than a million moves per second (benchmarks/dron_exact.py prints the figure).

Legend: N games, S states (see `SoccerTables`), a action of A, b action of B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from rlkit.envs.soccer_rules import ACTIONS, SoccerRules
from rlkit.envs.soccer_styles import Opponents, Style, best_actions, check_switching, pool_of
from rlkit.envs.soccer_tables import tables


class Moves(NamedTuple):
    """What happened in one move of N games.

    Attributes:
        reward: (N,) float32, +1 / -1 where A / B scored.
        done: (N,) bool, scored or drawn.
        opponent_action: (N,) what B did.
        moves: (N, 5) int8, B's move as A saw it, see `SoccerTables.moves`.
        ball_lost: (N,) bool, the ball went from A to B.
    """

    reward: np.ndarray
    done: np.ndarray
    opponent_action: np.ndarray
    moves: np.ndarray
    ball_lost: np.ndarray


class SoccerGames:
    """N independent games of A against opponents from a pool.

    Args:
        count: N.
        rules: the game.
        opponents, styles: see `pool_of`. Each game draws its opponent's style at its start.
        switch_probability: chance per move that another style of the pool takes over.
        switch_at: moves at which another style of the pool takes over, for example (50,).
        seed: of starts, styles and the opponents' random ties.

    Attributes:
        state: (N,) index into `tables(rules)`.
        clock: (N,) moves played.
        style: (N,) index into `names`.

    Raises:
        ValueError: a wrong pool, or switching with a single style.
    """

    action_count = len(ACTIONS)

    def __init__(
        self,
        count: int,
        rules: SoccerRules | None = None,
        opponents: Opponents | None = None,
        *,
        styles: Mapping[str, Any] | None = None,
        switch_probability: float = 0.0,
        switch_at: Sequence[int] = (),
        seed: Any = None,
    ):
        self.rules = rules or SoccerRules()
        self.tables = tables(self.rules)
        pool = pool_of(opponents, styles)
        check_switching(pool, switch_probability, switch_at)
        self.names = pool.names
        self.weights = np.array(pool.weights)
        self.switch_probability, self.switch_at = switch_probability, tuple(switch_at)
        self._choices, self._ways = _choices(self.rules, pool.styles)
        # one that is all noise has five ways instead
        self._noise = np.array([style.noise % 1.0 for style in pool.styles])
        self.rng = np.random.default_rng(seed)
        self.count = count
        self.state = np.zeros(count, np.int64)
        self.clock = np.zeros(count, np.int64)
        self.style = np.zeros(count, np.int64)
        self.reset()

    def reset(self, which: np.ndarray | None = None) -> None:
        """Start new games, all of them or those in `which` (indices)."""
        which = np.arange(self.count) if which is None else which
        if len(which):
            self.state[which] = self.rng.choice(self.tables.starts, len(which))
            self.style[which] = self.rng.choice(len(self.names), len(which), p=self.weights)
            self.clock[which] = 0

    @property
    def observation(self) -> np.ndarray:
        """What A sees, (N, 15) float32."""
        return self.tables.observation[self.state]

    def opponent_actions(self) -> np.ndarray:
        """Draw B's actions, (N,)."""
        ways = self._ways[self.style, self.state]
        pick = (self.rng.random(self.count) * ways).astype(np.int64)
        actions = self._choices[self.style, self.state, pick]
        if self._noise.any():
            noisy = self.rng.random(self.count) < self._noise[self.style]
            actions = np.where(noisy, self.rng.integers(0, len(ACTIONS), self.count), actions)
        return actions

    def step(self, actions: np.ndarray, opponent_actions: np.ndarray | None = None) -> Moves:
        """Play one move. Games that are done stay as they are until `reset`.

        Args:
            actions: (N,) of A.
            opponent_actions: (N,) of B; drawn from its style by default.
        """
        table = self.tables
        b = self.opponent_actions() if opponent_actions is None else opponent_actions
        before = self.state
        after = table.after[before, actions, b].astype(np.int64)
        if self.rules.steal_probability < 1.0:
            kept = table.meet[before, actions, b] & (
                self.rng.random(self.count) >= self.rules.steal_probability
            )
            after = np.where(kept, before, after)
        self.state = after
        self.clock += 1
        if self.switch_at or self.switch_probability:
            self._switch()
        reward = table.reward[after]
        done = (reward != 0) | (self.clock >= self.rules.horizon)
        lost = (table.ball[before] == 1) & (table.ball[after] == 0)
        return Moves(reward, done, b, table.moves[before, b], lost)

    def _switch(self) -> None:
        due = np.isin(self.clock, self.switch_at)
        if self.switch_probability:
            due |= self.rng.random(self.count) < self.switch_probability
        for game in np.flatnonzero(due):
            others = self.weights.copy()
            others[self.style[game]] = 0.0
            self.style[game] = self.rng.choice(len(others), p=others / others.sum())


@lru_cache(maxsize=64)
def _choices(rules: SoccerRules, styles: tuple[Style, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return every style's actions, its best ones first, (styles, S, b), and how many are best: equally likely."""
    best = np.stack([best_actions(rules, style) for style in styles])
    return np.argsort(~best, axis=-1, kind="stable").astype(np.int8), best.sum(axis=-1)


def play(
    policy: np.ndarray,
    games: int,
    rules: SoccerRules | None = None,
    opponents: Opponents | None = None,
    seed: int = 0,
    batch: int = 1000,
) -> dict[str, dict[str, float]]:
    """Play `games` complete games and count, per style and for all (`"all"`): win, draw, loss, score, length, games.

    Args:
        policy: (S, a) probabilities of A.
        batch: games played side by side; each of them plays `games / batch` games one after the other.
    """
    batch = min(batch, games)
    table = SoccerGames(batch, rules, opponents, seed=seed)
    cumulative = policy.cumsum(axis=1)
    left = np.full(batch, games // batch) + (np.arange(batch) < games % batch)
    results: list[np.ndarray] = []
    while (left > 0).any():
        draw = table.rng.random((batch, 1)) * cumulative[table.state, -1:]
        action = (cumulative[table.state] < draw).sum(axis=1)
        move = table.step(np.minimum(action, len(ACTIONS) - 1))
        ended = np.flatnonzero(move.done)
        counted = ended[left[ended] > 0]
        results.append(np.stack([table.style[counted], move.reward[counted], table.clock[counted]], axis=1))
        left[counted] -= 1
        table.reset(ended)
    rows = np.concatenate(results)
    groups = {"all": rows} | {name: rows[rows[:, 0] == i] for i, name in enumerate(table.names)}
    return {name: _summary(group) for name, group in groups.items()}


def _summary(rows: np.ndarray) -> dict[str, float]:
    reward, length = rows[:, 1], rows[:, 2]
    return {
        "win": float((reward > 0).mean()),
        "draw": float((reward == 0).mean()),
        "loss": float((reward < 0).mean()),
        "score": float(reward.mean()),
        "length": float(length.mean()),
        "games": len(rows),
    }
