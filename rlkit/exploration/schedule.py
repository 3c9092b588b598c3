"""Values that change with the number of environment steps: piecewise linear, constant outside their points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Points = Sequence[Sequence[float]]


class Schedule:
    """`[[step, value], …]`, linear between the points, constant before the first and after the last.

    Steps are environment steps over all runners. The schedule itself has no state: what has to survive a
    restart is the step count, which RLlib keeps.

    Raises:
        ValueError: no points, steps that do not ascend, or a value that is not finite.
    """

    def __init__(self, points: Points | float):
        pairs = (
            [(0.0, float(points))]
            if isinstance(points, int | float)
            else [(float(t), float(v)) for t, v in points]
        )
        if not pairs:
            raise ValueError("a schedule needs at least one [step, value] point")
        if any(b[0] < a[0] for a, b in itertools.pairwise(pairs)):
            raise ValueError(f"the steps of a schedule have to ascend, got {[t for t, _ in pairs]}")
        if not all(math.isfinite(v) for pair in pairs for v in pair):
            raise ValueError(f"a schedule needs finite numbers, got {pairs}")
        self.points = pairs

    def __call__(self, step: float) -> float:
        """Return the value at `step`."""
        previous = self.points[0]
        for point in self.points:
            if step < point[0]:
                width = point[0] - previous[0]
                share = (step - previous[0]) / width if width > 0 else 1.0
                return previous[1] + max(share, 0.0) * (point[1] - previous[1])
            previous = point
        return previous[1]

    def rllib(self) -> list[list[float]] | float:
        """The same schedule in the form RLlib's own `Scheduler` takes: a number, or points that begin at step 0."""
        if len(self.points) == 1:
            return self.points[0][1]
        points = [[int(t), v] for t, v in self.points]
        return points if points[0][0] == 0 else [[0, points[0][1]], *points]


def anneal(initial: float, final: float, timesteps: float, warmup: float = 0) -> Schedule:
    """`initial` for `warmup` steps, then linear to `final` within `timesteps` further steps."""
    if timesteps < 0 or warmup < 0:
        raise ValueError(f"steps cannot be negative: got {timesteps=}, {warmup=}")
    if timesteps == 0 and warmup == 0:
        return Schedule(final)
    points = [[0, initial], [warmup, initial], [warmup + timesteps, final]]
    return Schedule(points if warmup > 0 else points[1:])
