"""Absolute learning progress over a continuous space, with a Gaussian mixture as the map of it.

ALP-GMM (Portelas et al. 2019, arXiv:1910.07224; reference code flowersteam/teachDeepRL). Each episode's progress is
|return - return of the nearest earlier task|. Every `refit` episodes a mixture over (task, progress) is fitted to the
last `history` episodes, its size chosen by AIC; a task is drawn from a Gaussian chosen by its mean progress, or with
probability `explore` uniformly. Tasks are scaled to [0, 1] per value, returns to [0, 1] over the history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rlkit.curriculum.base import Curriculum, Outcome, State
from rlkit.curriculum.gmm import best_of
from rlkit.curriculum.samplers import Task, Uniform, box_of, corners_by_name

if TYPE_CHECKING:
    from numpy.random import Generator

REMEMBERED = 20_000  # tasks searched for the nearest one; the reference keeps all of them


class ALPGMM(Curriculum):
    """ALP-GMM.

    Args:
        space: {task value: {uniform: [lo, hi]}}.
        explore: share of uniform tasks; the paper's 0.2.
        history: episodes a fit looks at; the paper's 250.
        refit: episodes between fits, and uniform ones before the first of `history` (the paper refits at 250).
        components: the largest mixture tried; the paper's 10.
    """

    def __init__(
        self,
        space: Mapping[str, Any],
        explore: float = 0.2,
        history: int = 250,
        refit: int = 25,
        components: int = 10,
    ):
        self.box = box_of(space)
        self.explore, self.history, self.refit, self.components = explore, history, refit, components
        self._memory = np.zeros((REMEMBERED, len(self.box) + 1))  # scaled task, return; a ring
        self._seen = 0
        self._progress: deque[list[float]] = deque(maxlen=history)  # scaled task, absolute progress
        self._since_fit = 0
        self._fits = 0
        self._mixture: dict[str, list[Any]] | None = None

    def sample(self, rng: Generator) -> Task:
        if self._mixture is None or rng.random() < self.explore:
            return self._task(rng.random(len(self.box)))
        chances = np.asarray(self._mixture["chances"])
        k = int(rng.choice(len(chances), p=chances))
        x = rng.multivariate_normal(
            self._mixture["means"][k], self._mixture["covariances"][k], method="cholesky"
        )
        return self._task(np.clip(x, 0.0, 1.0))

    def _task(self, x: np.ndarray) -> Task:
        return {
            key: float(lo + (hi - lo) * v) for (key, (lo, hi)), v in zip(self.box.items(), x, strict=True)
        }

    def update(self, task: Task, outcome: Outcome) -> None:
        """Note an episode's progress; fit anew when it is time."""
        x = [(task[key] - lo) / ((hi - lo) or 1.0) for key, (lo, hi) in self.box.items()]
        known = self._memory[: min(self._seen, REMEMBERED)]
        if len(known):
            nearest = int(((known[:, :-1] - x) ** 2).sum(1).argmin())
            self._progress.append([*x, abs(outcome.episode_return - known[nearest, -1])])
        else:
            self._progress.append([*x, 0.0])
        self._memory[self._seen % REMEMBERED] = [*x, outcome.episode_return]
        self._seen += 1
        self._since_fit += 1
        if len(self._progress) == self.history and self._since_fit >= self.refit:
            self._fit()

    def _fit(self) -> None:
        self._since_fit = 0
        self._fits += 1
        points = np.asarray(self._progress)
        points[:, -1] /= points[:, -1].max() or 1.0
        mixture = best_of(points, range(2, self.components + 1), np.random.default_rng([0, self._fits]))
        wanted = np.maximum(mixture.means[:, -1], 1e-12)
        self._mixture = {
            "chances": (wanted / wanted.sum()).tolist(),
            "means": mixture.means[:, :-1].tolist(),
            "covariances": mixture.covariances[:, :-1, :-1].tolist(),
        }

    def final(self, rng: Generator) -> Task:
        return self._task(rng.random(len(self.box)))

    def each(self) -> dict[str, Task]:
        return corners_by_name({key: Uniform(lo, hi) for key, (lo, hi) in self.box.items()})

    def metrics(self) -> dict[str, Any]:
        """Return `fits`, and `components` of the present mixture."""
        return {"fits": self._fits, "components": len(self._mixture["chances"]) if self._mixture else 0}

    @property
    def state(self) -> State:
        return {
            "mixture": self._mixture,
            "memory": self._memory[: min(self._seen, REMEMBERED)].copy(),
            "seen": self._seen,
            "progress": [list(row) for row in self._progress],
            "since_fit": self._since_fit,
            "fits": self._fits,
        }

    @state.setter
    def state(self, state: State) -> None:
        self._mixture = state["mixture"]
        if "memory" in state:  # absent on the runners
            self._memory[: len(state["memory"])] = state["memory"]
            self._seen = state["seen"]
            self._progress = deque(state["progress"], maxlen=self.history)
            self._since_fit, self._fits = state["since_fit"], state["fits"]

    def runner_state(self) -> State:
        """Only the mixture: the memory may hold 20,000 tasks."""
        return {"mixture": self._mixture}
