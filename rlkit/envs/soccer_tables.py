"""The soccer game as tables: everything about a state is looked up, a game is an index into them.

Legend: S states, a action of A, b action of B.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from rlkit.envs.soccer_rules import ACTIONS, DOWN, LEFT, NOOP, RIGHT, UP, SoccerRules

DX = np.array([0, 0, -1, 1, 0])
DY = np.array([1, -1, 0, 0, 0])
MIRRORED = np.array([UP, DOWN, RIGHT, LEFT, NOOP])
STATE_FEATURES = (
    *("a_x", "a_y", "b_x", "b_y", "min_x", "max_x", "min_y", "max_y"),
    *("goal_a_x", "goal_a_y1", "goal_a_y2", "goal_b_x", "goal_b_y1", "goal_b_y2", "a_has_ball"),
)


class SoccerTables:
    """Everything about every state of a game under `rules`. Use `tables(rules)`, which builds each of them once.

    A state is `((cell of A) * cells + cell of B) * 2 + (A has the ball)`, a cell `(x - 1) * height + (y - 1)`;
    states in which a player stands where it cannot are never reached.

    Attributes:
        a_x, a_y, b_x, b_y, ball: (S,) positions, and 1 where A has the ball.
        after: (S, a, b) the next state; where the players would meet, the ball has changed hands.
        meet: (S, a, b) bool, whether they would meet.
        reward: (S,) +1 or -1 in the states that end the game, else 0.
        reachable: (S,) bool.
        starts: states a game can start in, all equally likely.
        observation: (S, 15) float32, the state seen by A, scaled to [0, 1]; names in `STATE_FEATURES`.
        mirror: (S,) the state with sides and players exchanged: `observation[mirror]` is what B sees.
        moves: (S, b, 5) int8, what A observes of B's action b: has the ball, towards me, towards my goal, towards its
            goal, stood.
    """

    def __init__(self, rules: SoccerRules):
        self.rules = rules
        width, height = rules.width, rules.height
        self.cells = cells = width * height
        self.size = cells * cells * 2
        states = np.arange(self.size)
        self.ball = (states % 2).astype(np.int8)
        a, b = states // 2 // cells, states // 2 % cells
        self.a_x, self.a_y = a // height + 1, a % height + 1
        self.b_x, self.b_y = b // height + 1, b % height + 1
        self.reachable = (self.a_x > 1) & (self.b_x < width)

        low, high = self._goal
        in_goal_rows_a = (self.a_y >= low) & (self.a_y <= high)
        in_goal_rows_b = (self.b_y >= low) & (self.b_y <= high)
        self.reward = np.zeros(self.size, np.float32)
        self.reward[(self.ball == 1) & (self.a_x == width) & in_goal_rows_a] = 1.0
        self.reward[(self.ball == 0) & (self.b_x == 1) & in_goal_rows_b] = -1.0
        self.over = self.reward != 0

        new_a, new_b = (
            self._moved(a, lowest_x=2, highest_x=width),
            self._moved(b, lowest_x=1, highest_x=width - 1),
        )
        self.meet = new_a[:, :, None] == new_b[:, None, :]
        apart = self.state(new_a[:, :, None], new_b[:, None, :], self.ball[:, None, None])
        self.after = np.where(self.meet, (states ^ 1)[:, None, None], apart).astype(np.int32)
        self.mirror = self.state(self._mirrored(b), self._mirrored(a), 1 - self.ball)
        self.moves = self._observed_moves(new_b)
        self.starts = self._starts()
        self.observation = self._observations()

    @property
    def _goal(self) -> tuple[int, int]:
        assert self.rules.goal_rows is not None
        return self.rules.goal_rows

    def state(self, a: np.ndarray, b: np.ndarray, ball: np.ndarray | int) -> np.ndarray:
        """Return the states with the players in cells `a` and `b`; `ball` is 1 where A has it."""
        return (a * self.cells + b) * 2 + ball

    def cell(self, x: int, y: int) -> int:
        """Return the index of a cell."""
        return (x - 1) * self.rules.height + (y - 1)

    def _moved(self, cell: np.ndarray, lowest_x: int, highest_x: int) -> np.ndarray:
        x, y = cell // self.rules.height + 1, cell % self.rules.height + 1
        new_x = np.clip(x[:, None] + DX, np.minimum(lowest_x, x)[:, None], np.maximum(highest_x, x)[:, None])
        new_y = np.clip(y[:, None] + DY, 1, self.rules.height)
        return (new_x - 1) * self.rules.height + (new_y - 1)

    def _mirrored(self, cell: np.ndarray) -> np.ndarray:
        height = self.rules.height
        return (self.rules.width - 1 - cell // height) * height + cell % height

    def _starts(self) -> np.ndarray:
        width = self.rules.width
        middle = (width + 1) // 2
        here = (
            (self.a_x >= 2)
            & (self.a_x <= middle)
            & (self.b_x >= width + 1 - middle)
            & (self.b_x <= width - 1)
        )
        return np.flatnonzero(here)

    def _observations(self) -> np.ndarray:
        width, height = self.rules.width, self.rules.height
        low, high = self._goal

        def across(x: np.ndarray | int) -> np.ndarray:
            return np.broadcast_to((np.asarray(x) - 1) / (width - 1), self.size)

        def along(y: np.ndarray | int) -> np.ndarray:
            return np.broadcast_to((np.asarray(y) - 1) / (height - 1), self.size)

        columns = [across(self.a_x), along(self.a_y), across(self.b_x), along(self.b_y)]
        columns += [across(1), across(width), along(1), along(height)]
        columns += [across(width), along(low), along(high), across(1), along(low), along(high), self.ball]
        return np.stack(columns, axis=1).astype(np.float32)

    def _observed_moves(self, new_b: np.ndarray) -> np.ndarray:
        """B's move as A sees it: +1 where the distance shrinks on either axis, else -1 where it grows."""
        width, height = self.rules.width, self.rules.height
        goal_y = sum(self._goal) / 2
        x, y = new_b // height + 1, new_b % height + 1

        def towards(to_x: np.ndarray | float, to_y: np.ndarray | float) -> np.ndarray:
            def change(new: np.ndarray, old: np.ndarray, to: np.ndarray | float) -> np.ndarray:
                to = np.broadcast_to(to, old.shape)
                return np.abs(new - to[:, None]) - np.abs(old - to)[:, None]

            dx, dy = change(x, self.b_x, to_x), change(y, self.b_y, to_y)
            return np.where((dx < 0) | (dy < 0), 1, np.where((dx > 0) | (dy > 0), -1, 0))

        stood = (x == self.b_x[:, None]) & (y == self.b_y[:, None])
        has_ball = np.broadcast_to((self.ball == 0)[:, None], stood.shape)
        me, mine, its = towards(self.a_x, self.a_y), towards(width, goal_y), towards(1, goal_y)
        return np.stack([has_ball, me, mine, its, stood], axis=-1).astype(np.int8)

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """The rule agent's four atoms for B, by name; each (S, b) with 1 on the actions it wants."""
        width = self.rules.width
        low, high = self._goal
        a_x, a_y, b_x, b_y = self.a_x, self.a_y, self.b_x, self.b_y
        names = ("advance", "avoid", "defend", "intercept")
        want = {name: np.zeros((self.size, len(ACTIONS)), np.int8) for name in names}

        want["advance"][:, LEFT] = b_x > 1
        want["advance"][:, UP] = b_y < low
        want["advance"][:, DOWN] = b_y > high

        want["avoid"][:, LEFT] = b_x <= a_x
        want["avoid"][:, RIGHT] = b_x >= a_x
        want["avoid"][:, DOWN] = b_y <= a_y
        want["avoid"][:, UP] = b_y >= a_y

        before_goal = b_x == width - 1
        above_low, below_high = b_y <= low, b_y >= high
        between = ~above_low & ~below_high & before_goal
        want["defend"][:, UP] = above_low | between
        want["defend"][:, DOWN] = (below_high & ~above_low) | between
        want["defend"][:, RIGHT] = ~before_goal

        adjacent = np.abs(a_x - b_x) + np.abs(a_y - b_y) == 1
        want["intercept"][:, NOOP] = adjacent
        want["intercept"][:, RIGHT] = ~adjacent & (b_x < a_x)
        want["intercept"][:, LEFT] = ~adjacent & (b_x > a_x)
        want["intercept"][:, UP] = ~adjacent & (b_y < a_y)
        want["intercept"][:, DOWN] = ~adjacent & (b_y > a_y)
        return want


@lru_cache(maxsize=16)
def tables(rules: SoccerRules) -> SoccerTables:
    """Return the tables of a game; built once per process (about 20 ms at 9 x 6)."""
    return SoccerTables(rules)
