"""A grid with one reward: the task plain exploration does not solve, and a curriculum does.

    Actions       Discrete(4): 0 up, 1 right, 2 down, 3 left; a step against the border or a wall stays in place.
    Observation   Box(0, 1, float32), by `view`: `lines`, (4 size,): one-hot row and column of the agent, then of
                  the goal; `cells`, (2 size²,): one-hot cell of the agent, then of the goal.
    Reward        1 on reaching the goal, else 0.
    Episode end   terminated at the goal; truncated after `max_steps`; with `deadly`, terminated by a step that is
                  against the border or a wall.
    Info          {"success": bool} in every step.

Layouts: `open` has no walls; in `snake` walls leave one corridor that winds through the whole grid, so that the way
from corner to corner takes about size² / 2 steps and no straight drift finds it (size is odd):

    A#...#.
    .#.#.#.
    ...#..G

The task (`distance`, `goal`) can be given in each way a curriculum knows: as attributes, by `set_task`, by
`reset(options=…)`, by the constructor. It holds from the next reset on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
Cell = tuple[int, int]


class GridWorld(gym.Env):
    """Sparse-reward grid.

    Args:
        size: rows and columns.
        goal: (row, column); default the lower right corner.
        distance: length of the shortest way from the start to the goal; the start is drawn among the cells at this
            distance. None: the start is `start`, fixed.
        start: (row, column); default the upper left corner.
        layout: see the module's docstring.
        deadly: a step against the border or a wall ends the episode. A way of n steps in the snake then needs n right
            actions in a row, about 2^-n for a random walk.
        view: see Observation. Lines are shared between cells, so that what is learnt in one carries over to others.
        walls: further cells that cannot be entered. A goal inside a wall cannot be reached.
        max_steps: default `2 * size`, or `size²` in the snake.

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
        layout: Literal["open", "snake"] = "open",
        walls: Sequence[Sequence[int]] = (),
        deadly: bool = False,
        view: Literal["lines", "cells"] = "lines",
        max_steps: int | None = None,
        render_mode: str | None = None,
    ):
        self.size = size
        self.goal: Sequence[int] = (size - 1, size - 1) if goal is None else goal
        self.distance = distance
        self.start: Sequence[int] = start
        self.walls = {(int(r), int(c)) for r, c in walls} | (snake(size) if layout == "snake" else set())
        self.deadly = deadly
        self.max_steps = max_steps or (2 * size if layout == "open" else size * size)
        self.render_mode = render_mode
        self.view = view
        inputs = 4 * size if view == "lines" else 2 * size * size
        self.observation_space = gym.spaces.Box(0.0, 1.0, (inputs,), np.float32)
        self.action_space = gym.spaces.Discrete(4)
        self._agent: Cell = (0, 0)
        self._target: Cell = (0, 0)
        self._steps = 0
        self._ways: dict[Cell, dict[Cell, int]] = {}
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
        goal = (int(self.goal[0]), int(self.goal[1]))
        if not (0 <= goal[0] < self.size and 0 <= goal[1] < self.size):
            raise ValueError(f"goal {goal} is outside the {self.size} x {self.size} grid")
        if self.distance is None:
            return [(int(self.start[0]), int(self.start[1]))]
        cells = [cell for cell, steps in self.ways(goal).items() if steps == self.distance]
        if not cells:
            raise ValueError(f"no cell is {self.distance} steps from goal {goal} in a grid of {self.size}")
        return cells

    def ways(self, goal: Cell) -> dict[Cell, int]:
        """Return the length of the shortest way to a goal, for every cell that has one."""
        if goal not in self._ways:
            lengths, border = {goal: 0}, [goal]
            while border:
                cell = border.pop(0)
                for down, right in MOVES:
                    near = (cell[0] + down, cell[1] + right)
                    if self._free(near) and near not in lengths:
                        lengths[near] = lengths[cell] + 1
                        border.append(near)
            self._ways[goal] = lengths
        return self._ways[goal]

    def _free(self, cell: Cell) -> bool:
        return 0 <= cell[0] < self.size and 0 <= cell[1] < self.size and cell not in self.walls

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
        free = self._free(cell)
        if free:
            self._agent = cell
        self._steps += 1
        success = self._agent == self._target
        over = success or (self.deadly and not free)
        return self._observe(), float(success), over, self._steps >= self.max_steps, {"success": success}

    def _observe(self) -> np.ndarray:
        size, observation = self.size, np.zeros(self.observation_space.shape, np.float32)
        if self.view == "lines":
            for i, index in enumerate((*self._agent, *self._target)):
                observation[i * size + index] = 1.0
        else:
            for i, (row, column) in enumerate((self._agent, self._target)):
                observation[i * size * size + row * size + column] = 1.0
        return observation

    def render(self) -> str:
        marks = {**dict.fromkeys(self.walls, "#"), self._target: "G", self._agent: "A"}
        cells = range(self.size)
        return "\n".join("".join(marks.get((r, c), ".") for c in cells) for r in cells)


def snake(size: int) -> set[Cell]:
    """Return the walls of the winding corridor: every second column, open at the bottom and at the top in turn."""
    if size % 2 == 0:
        raise ValueError(f"layout snake needs an odd size; got {size}")
    gap = {column: size - 1 if column % 4 == 1 else 0 for column in range(1, size, 2)}
    return {(row, column) for column, free in gap.items() for row in range(size) if row != free}
