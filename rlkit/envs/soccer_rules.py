"""The soccer game of He et al. (ICML 2016): its rules. Tables of it: `soccer_tables`; its rule agents: `soccer_styles`.

Two players on a grid of `width` x `height` cells, x = 1..width, y = 1..height. A attacks the goal at x =
width, B the goal at x = 1; both goals span `goal_rows`. A cannot enter x = 1 nor B x = width: walls stop a
move. Both move at once (up, down, left, right, noop). Where they would meet in one cell, both stay where they
were and the ball changes hands (with `steal_probability`); passing through each other is allowed. The carrier
in its goal cell scores: +1 for A, -1 for B, and the game ends. After `horizon` moves it is a draw, 0.

Rules and rule agents follow the authors' code (github.com/hhexiy/opponent, soccer_framework.lua).
"""

from __future__ import annotations

from dataclasses import dataclass

ACTIONS = ("up", "down", "left", "right", "noop")
UP, DOWN, LEFT, RIGHT, NOOP = range(5)


@dataclass(frozen=True)
class SoccerRules:
    """What can be varied about the game.

    Args:
        width, height: cells of the field.
        goal_rows: first and last row of both goals; the two middle rows by default.
        horizon: moves until a draw.
        steal_probability: chance that the ball changes hands when the players would meet.

    Raises:
        ValueError: a field on which the game cannot be played.
    """

    width: int = 9
    height: int = 6
    goal_rows: tuple[int, int] | None = None
    horizon: int = 100
    steal_probability: float = 1.0

    def __post_init__(self) -> None:
        rows = self.goal_rows or (max(self.height // 2, 1), min(self.height // 2 + 1, self.height))
        object.__setattr__(self, "goal_rows", tuple(int(row) for row in rows))
        if self.width < 4 or self.height < 2:
            raise ValueError(f"got a field of {self.width} x {self.height} cells, expected at least 4 x 2")
        if len(rows) != 2 or not 1 <= rows[0] <= rows[1] <= self.height:
            raise ValueError(f"got goal_rows {list(rows)}, expected [first, last] within 1..{self.height}")
        if self.horizon < 1:
            raise ValueError(f"got horizon {self.horizon}, expected at least 1 move")
        if not 0.0 <= self.steal_probability <= 1.0:
            raise ValueError(f"got steal_probability {self.steal_probability}, expected a number in [0, 1]")
