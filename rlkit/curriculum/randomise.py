"""Task spaces: drawn from at random, moved with time, or widened as the agent masters their border."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from rlkit.curriculum.base import Clock, Curriculum, Outcome, State
from rlkit.curriculum.samplers import Task, Uniform, box_of, corners_by_name, draw, parse_task

if TYPE_CHECKING:
    from numpy.random import Generator


class DomainRandomisation(Curriculum):
    """Every episode draws its task from a fixed space (Tobin et al. 2017, arXiv:1703.06907).

    Args:
        space: {task value: sampler or literal}.
    """

    def __init__(self, space: Mapping[str, Any]):
        self.space = parse_task(space)

    def sample(self, rng: Generator) -> Task:
        return draw(self.space, rng)

    def update(self, task: Task, outcome: Outcome) -> None:
        """Nothing to learn."""

    def each(self) -> dict[str, Task]:
        """Return the corners of the space: what an evaluation of `each` plays."""
        return corners_by_name(self.space)

    @property
    def state(self) -> State:
        return {}

    @state.setter
    def state(self, state: State) -> None:
        pass


class Annealing(Curriculum):
    """Task values that move from `start` to `end` with the env steps of the run.

    Args:
        over: env steps from start to end; the end stays.
        shape: "linear", "cosine" (slow at both ends) or "exponential" (equal ratios in equal times; values > 0).
    """

    def __init__(
        self,
        start: Mapping[str, float],
        end: Mapping[str, float],
        over: int,
        shape: Literal["linear", "cosine", "exponential"] = "linear",
    ):
        self.start, self.end, self.over, self.shape = dict(start), dict(end), over, shape
        self.fraction = 0.0

    def at(self, fraction: float) -> Task:
        """Return the task at a fraction in [0, 1] of the way."""
        if self.shape == "cosine":
            fraction = (1 - math.cos(math.pi * fraction)) / 2
        if self.shape == "exponential":
            return {k: a * (self.end[k] / a) ** fraction for k, a in self.start.items()}
        return {k: a + (self.end[k] - a) * fraction for k, a in self.start.items()}

    def sample(self, rng: Generator) -> Task:
        return self.at(self.fraction)

    def update(self, task: Task, outcome: Outcome) -> None:
        """Time decides, not the outcome."""

    def advance(self, clock: Clock) -> None:
        self.fraction = min(1.0, clock.env_steps / self.over)

    def final(self, rng: Generator) -> Task:
        return dict(self.end)

    def each(self) -> dict[str, Task]:
        return {"start": dict(self.start), "end": dict(self.end)}

    def metrics(self) -> dict[str, Any]:
        """Return `fraction`: how far the values have moved, in [0, 1]."""
        return {"fraction": self.fraction}

    @property
    def state(self) -> State:
        return {"fraction": self.fraction}

    @state.setter
    def state(self, state: State) -> None:
        self.fraction = state["fraction"]


class ExpandingBox(Curriculum):
    """A box of tasks that grows where the agent masters its border, and shrinks where it fails.

    Automatic domain randomisation (OpenAI 2019, arXiv:1910.07113, algorithm 1): with probability `boundary` an
    episode is played with one value at one end of the box; the success rate over the last `window` such episodes
    moves that end outwards (>= `grow_at`) or inwards (<= `shrink_at`). Other episodes are uniform over the box.
    Deviation: an end never moves inwards past `start`.

    Args:
        start: the box at the beginning, {value: {uniform: [lo, hi]}}.
        space: the box it may grow to.
        step: how far an end moves, as a share of the space's width.
    """

    needs = frozenset({"success"})

    def __init__(
        self,
        start: Mapping[str, Any],
        space: Mapping[str, Any],
        step: float = 0.1,
        window: int = 20,
        grow_at: float = 0.8,
        shrink_at: float = 0.2,
        boundary: float = 0.5,
    ):
        self.inner = box_of(start)
        self.outer = box_of(space)
        self.step, self.window = step, window
        self.grow_at, self.shrink_at, self.boundary = grow_at, shrink_at, boundary
        self.box = {key: list(ends) for key, ends in self.inner.items()}
        self._at = {(key, end): deque[float](maxlen=window) for key in self.box for end in (0, 1)}

    def sample(self, rng: Generator) -> Task:
        task = {key: float(rng.uniform(lo, hi)) for key, (lo, hi) in self.box.items()}
        if rng.random() < self.boundary:
            key = list(self.box)[int(rng.integers(len(self.box)))]
            task[key] = self.box[key][int(rng.integers(2))]
        return task

    def update(self, task: Task, outcome: Outcome) -> None:
        """Count an episode at an end of the box, and move that end when its window is full."""
        for (key, end), results in self._at.items():
            if task[key] != self.box[key][end] or outcome.success is None:
                continue
            results.append(outcome.success)
            if len(results) == self.window:
                rate = sum(results) / self.window
                if rate >= self.grow_at:
                    self._move(key, end, outwards=True)
                elif rate <= self.shrink_at:
                    self._move(key, end, outwards=False)

    def _move(self, key: str, end: int, outwards: bool) -> None:
        lo, hi = self.outer[key]
        step = self.step * (hi - lo) * (1 if end == 1 else -1) * (1 if outwards else -1)
        value = self.box[key][end] + step
        limits = (lo, self.inner[key][0]) if end == 0 else (self.inner[key][1], hi)
        value = min(max(value, limits[0]), limits[1])
        if value != self.box[key][end]:
            self.box[key][end] = value
            self._at[key, end].clear()

    def final(self, rng: Generator) -> Task:
        return {key: float(rng.uniform(lo, hi)) for key, (lo, hi) in self.outer.items()}

    def each(self) -> dict[str, Task]:
        return corners_by_name({key: Uniform(lo, hi) for key, (lo, hi) in self.outer.items()})

    def metrics(self) -> dict[str, Any]:
        """Return `lo/<value>`, `hi/<value>`, and `volume`: the box's share of the space."""
        shares = [
            (b[1] - b[0]) / (self.outer[k][1] - self.outer[k][0])
            for k, b in self.box.items()
            if self.outer[k][1] > self.outer[k][0]
        ]
        return {
            "lo": {key: ends[0] for key, ends in self.box.items()},
            "hi": {key: ends[1] for key, ends in self.box.items()},
            "volume": math.prod(shares),
        }

    @property
    def state(self) -> State:
        return {
            "box": {key: list(ends) for key, ends in self.box.items()},
            "at": [[key, end, list(results)] for (key, end), results in self._at.items()],
        }

    @state.setter
    def state(self, state: State) -> None:
        self.box = {key: list(ends) for key, ends in state["box"].items()}
        self._at = {(key, end): deque(results, maxlen=self.window) for key, end, results in state["at"]}
