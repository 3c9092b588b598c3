"""A grid with one reward: the task plain exploration does not solve, and a curriculum does.

    Actions       Discrete(4): 0 up, 1 right, 2 down, 3 left; a step against the border or a wall stays in place.
    Observation   Box(0, 1, (4 size,), float32): one-hot row and column of the agent, then of the goal.
    Reward        1 on reaching the goal, else 0.
    Episode end   terminated at the goal; truncated after `max_steps`.
    Info          {"success": bool} in every step.

The task (`distance`, `goal`) can be given in each way a curriculum knows: as attributes, by `set_task`, by
`reset(options=…)`, by the constructor. It holds from the next reset on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
Cell = tuple[int, int]


class GridWorld(gym.Env):
    """Sparse-reward grid.

    Args:
        size: rows and columns.
        goal: (row, column); default the lower right corner.
        distance: steps from the start to the goal; the start is drawn among the cells at this distance. None: the
            start is `start`, fixed.
        start: (row, column); default the upper left corner.
        walls: cells that cannot be entered. A goal inside a wall cannot be reached.
        max_steps: default `2 * size`, which is little more than the way from corner to corner.

    Raises:
        ValueError: a goal outside the grid, or a distance at which there is no cell.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        size: int = 9,
        goal: Sequence[int] | None = None,
        distance: int | None = None,
        start: Sequence[int] = (0, 0),
        walls: Sequence[Sequence[int]] = (),
        max_steps: int | None = None,
        render_mode: str | None = None,
    ):
        self.size = size
        self.goal: Sequence[int] = (size - 1, size - 1) if goal is None else goal
        self.distance = distance
        self.start: Sequence[int] = start
        self.walls = {(int(r), int(c)) for r, c in walls}
        self.max_steps = 2 * size if max_steps is None else max_steps
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0.0, 1.0, (4 * size,), np.float32)
        self.action_space = gym.spaces.Discrete(4)
        self._agent: Cell = (0, 0)
        self._target: Cell = (0, 0)
        self._steps = 0
        self._starts()

    def set_task(self, task: Mapping[str, Any]) -> None:
        """Set `distance` and `goal`, whichever the task holds.

        Raises:
            ValueError: an unknown key, or a task without a start.
        """
        strangers = set(task) - {"distance", "goal"}
        if strangers:
            raise ValueError(f"unknown task keys {sorted(strangers)}; known: distance, goal")
        for key, value in task.items():
            setattr(self, key, value)
        self._starts()

    def _starts(self) -> list[Cell]:
        row, column = (int(x) for x in self.goal)
        if not (0 <= row < self.size and 0 <= column < self.size):
            raise ValueError(f"goal {(row, column)} is outside the {self.size} x {self.size} grid")
        if self.distance is None:
            return [(int(self.start[0]), int(self.start[1]))]
        cells = [
            (r, c)
            for r in range(self.size)
            for c in range(self.size)
            if abs(r - row) + abs(c - column) == self.distance and (r, c) not in self.walls
        ]
        if not cells:
            raise ValueError(
                f"no free cell is {self.distance} steps from goal {(row, column)} in a grid of {self.size}"
            )
        return cells

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if options:
            self.set_task(options)
        starts = self._starts()
        self._target = (int(self.goal[0]), int(self.goal[1]))
        self._agent = starts[int(self.np_random.integers(len(starts)))]
        self._steps = 0
        return self._observe(), {"success": False}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        down, right = MOVES[int(action)]
        cell = (self._agent[0] + down, self._agent[1] + right)
        if 0 <= cell[0] < self.size and 0 <= cell[1] < self.size and cell not in self.walls:
            self._agent = cell
        self._steps += 1
        success = self._agent == self._target
        return self._observe(), float(success), success, self._steps >= self.max_steps, {"success": success}

    def _observe(self) -> np.ndarray:
        observation = np.zeros(4 * self.size, np.float32)
        for i, index in enumerate((*self._agent, *self._target)):
            observation[i * self.size + index] = 1.0
        return observation

    def render(self) -> str:
        def symbol(cell: Cell) -> str:
            return (
                "A"
                if cell == self._agent
                else "G"
                if cell == self._target
                else "#"
                if cell in self.walls
                else "."
            )

        return "\n".join("".join(symbol((r, c)) for c in range(self.size)) for r in range(self.size))
