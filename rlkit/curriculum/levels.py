"""Curricula that choose among levels: tasks in a list, or tasks met in a space and remembered.

Every class here gives each known level a weight; `sample` draws by weight, and with probability `explore` uniformly
(over the list, or a new task from the space).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rlkit.curriculum.base import Curriculum, Outcome, State
from rlkit.curriculum.samplers import Task, corners_by_name, draw, is_random, name_of, named, parse_task

if TYPE_CHECKING:
    from numpy.random import Generator

LevelKey = tuple[tuple[str, Any], ...]
TaskList = Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]


@dataclass
class Level:
    """A task and what is known of it; `notes` belong to the curriculum."""

    name: str
    task: Task
    plays: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


class LevelCurriculum(Curriculum):
    """Weighted choice among levels.

    Args:
        tasks: the levels, a list or {name: task}; or
        space: samplers to draw new levels from; the `levels` of highest weight are kept.
        explore: share of episodes drawn uniformly (from the list, or anew from the space).

    Raises:
        ValueError: both or neither of `tasks` and `space`; a sampler among `tasks`.
    """

    def __init__(
        self,
        tasks: TaskList | None = None,
        space: Mapping[str, Any] | None = None,
        levels: int = 256,
        explore: float = 0.1,
    ):
        if (tasks is None) == (space is None):
            raise ValueError("give one of `tasks` (a list) and `space` (samplers)")
        self.space = parse_task(space) if space is not None else None
        self.capacity = levels
        self.explore = explore
        self.levels: list[Level] = []
        self._index: dict[LevelKey, int] = {}
        self._weights: np.ndarray | None = None
        given = tasks if isinstance(tasks, Mapping) else named(tasks or ())
        if tasks is not None and not given:
            raise ValueError("tasks: the list is empty; a curriculum needs at least one task")
        for name, task in given.items():
            parsed = parse_task(task)
            if is_random(parsed):
                raise ValueError(f"tasks: {name!r} holds a sampler; list each task, or use `space`")
            self._add(Level(str(name), parsed))

    @abstractmethod
    def weights(self) -> np.ndarray:
        """Return a weight >= 0 for each level; all zero means uniform. Shape (len(levels),)."""

    @abstractmethod
    def learn(self, level: Level, outcome: Outcome) -> None:
        """Update a level's notes."""

    def _add(self, level: Level) -> None:
        self._index[_key(level.task)] = len(self.levels)
        self.levels.append(level)

    def probabilities(self) -> np.ndarray:
        """Return the chance of each known level when the choice is by weight. Shape (len(levels),)."""
        if self._weights is None:
            weights = np.maximum(np.nan_to_num(self.weights()), 0.0)
            total = weights.sum()
            self._weights = (
                weights / total if total > 0 else np.full(len(weights), 1.0 / max(1, len(weights)))
            )
        return self._weights

    def sample(self, rng: Generator) -> Task:
        explore = not self.levels or rng.random() < self.explore
        if explore and self.space is not None:
            return draw(self.space, rng)
        if explore:
            return dict(self.levels[int(rng.integers(len(self.levels)))].task)
        cumulative = np.cumsum(self.probabilities())
        choice = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
        return dict(self.levels[min(choice, len(self.levels) - 1)].task)

    def update(self, task: Task, outcome: Outcome) -> None:
        """Learn from an episode; a task met for the first time becomes a level, in place of the least wanted."""
        index = self._index.get(_key(task))
        if index is None:
            if self.space is None:
                return
            self._add(Level(name_of(task), dict(task)))
            index = len(self.levels) - 1
        level = self.levels[index]
        level.plays += 1
        self.learn(level, outcome)
        self._weights = None
        if self.space is not None and len(self.levels) > self.capacity:
            self._drop(int(np.argmin(self.weights())))

    def _drop(self, index: int) -> None:
        del self.levels[index]
        self._index = {_key(level.task): i for i, level in enumerate(self.levels)}

    def final(self, rng: Generator) -> Task:
        """Uniform over all tasks: what training should be good at."""
        if self.space is not None:
            return draw(self.space, rng)
        return dict(self.levels[int(rng.integers(len(self.levels)))].task)

    def each(self) -> dict[str, Task]:
        if self.space is not None:
            return corners_by_name(self.space)
        return {level.name: level.task for level in self.levels}

    def label(self, task: Task) -> str | None:
        if self.space is not None:
            return None
        index = self._index.get(_key(task))
        return None if index is None else self.levels[index].name

    def metrics(self) -> dict[str, Any]:
        """Return `probability/<level>` for a list; `levels` and `entropy` (nats) of the choice in any case."""
        p = self.probabilities()
        entropy = float(-(p[p > 0] * np.log(p[p > 0])).sum())
        values: dict[str, Any] = {"levels": len(self.levels), "entropy": entropy}
        if self.space is None:
            values["probability"] = {level.name: float(x) for level, x in zip(self.levels, p, strict=True)}
        return values

    @property
    def state(self) -> State:
        return {"levels": [[x.name, dict(x.task), x.plays, dict(x.notes)] for x in self.levels]}

    @state.setter
    def state(self, state: State) -> None:
        """Take up saved levels. Of a list, only tasks that are still in it; new ones start without notes."""
        if self.space is not None:
            self.levels = []
        known = {_key(level.task): level for level in self.levels}
        for name, task, plays, notes in state["levels"]:
            level = known.get(_key(task))
            if level is not None:
                level.plays, level.notes = plays, dict(notes)
            elif self.space is not None:
                self.levels.append(Level(name, dict(task), plays, dict(notes)))
        self._index = {_key(level.task): i for i, level in enumerate(self.levels)}
        self._weights = None


class LearningProgress(LevelCurriculum):
    """Play what is being learnt or forgotten: weight = |fast - slow| average of the outcome.

    Absolute learning progress (Baranes & Oudeyer 2013, doi:10.1016/j.robot.2012.05.008) as the distance of two
    exponential averages of the success rate, each reweighted so that the first successes count most (Kanitscheider
    et al. 2021, arXiv:2106.14876, with its θ of 0.1; deviation: tasks are drawn in proportion, not by a sigmoid of
    the rank). A task that is mastered or hopeless has no progress: it is played for `explore`, and when nothing
    else progresses either. Where the environment tells no success, the return takes its place, without the reweighting.

    Args:
        tasks: as in `LevelCurriculum`.
        fast, slow: coefficients of the averages, per episode of the task.
    """

    needs = frozenset({"success"})

    def __init__(
        self,
        tasks: TaskList,
        explore: float = 0.2,
        fast: float = 0.2,
        slow: float = 0.03,
    ):
        super().__init__(tasks=tasks, explore=explore)
        self.fast, self.slow = fast, slow

    @property
    def _rates(self) -> bool:
        return all(x.notes.get("rate", True) for x in self.levels)

    def learn(self, level: Level, outcome: Outcome) -> None:
        value = outcome.episode_return if outcome.success is None else outcome.success
        level.notes["rate"] = outcome.success is not None
        for name, rate in (("fast", self.fast), ("slow", self.slow)):
            # The first episodes average plainly, so that the first of all is not remembered for 1 / rate episodes.
            rate = max(rate, 1.0 / level.plays)
            old = level.notes.get(name, value)
            level.notes[name] = old + rate * (value - old)

    def weights(self) -> np.ndarray:
        fast = np.array([x.notes.get("fast", 0.0) for x in self.levels])
        slow = np.array([x.notes.get("slow", 0.0) for x in self.levels])
        if self._rates:
            fast, slow = _magnify(fast), _magnify(slow)
        progress = np.abs(fast - slow)
        # A floor, or the last traces of progress on mastered tasks would be all there is to choose by.
        return progress + 0.01 * (1.0 if self._rates else float(np.abs(fast).max(initial=0.0)))


class Learnability(LevelCurriculum):
    """Play what succeeds sometimes: weight = p (1 - p), or closeness of p to a target rate.

    Sampling for learnability (Rutherford et al. 2024, arXiv:2408.15099). p is the success rate of the level's last
    `window` episodes with one success and one failure added, so that an unknown level counts as p = 1/2.

    Args:
        tasks, space, levels, explore: as in `LevelCurriculum`.
        target: success rate to stay near; None weighs by p (1 - p).
    """

    needs = frozenset({"success"})

    def __init__(
        self,
        tasks: TaskList | None = None,
        space: Mapping[str, Any] | None = None,
        levels: int = 256,
        explore: float = 0.1,
        target: float | None = None,
        window: int = 20,
    ):
        super().__init__(tasks=tasks, space=space, levels=levels, explore=explore)
        self.target, self.window = target, window

    def learn(self, level: Level, outcome: Outcome) -> None:
        if outcome.success is not None:
            level.notes["last"] = [*level.notes.get("last", []), outcome.success][-self.window :]

    def rates(self) -> np.ndarray:
        """Return each level's success rate, shrunk towards 1/2. Shape (len(levels),)."""
        last = [level.notes.get("last", []) for level in self.levels]
        return np.array([(sum(x) + 1) / (len(x) + 2) for x in last])

    def weights(self) -> np.ndarray:
        p = self.rates()
        if self.target is None:
            # An endless row of failures has p = 1 / (window + 2), the least p (1 - p) there is: it counts as none.
            least = (1 / (self.window + 2)) * (1 - 1 / (self.window + 2))
            return p * (1 - p) - least
        return np.exp(-0.5 * ((p - self.target) / 0.1) ** 2)


def _magnify(p: np.ndarray, theta: float = 0.1) -> np.ndarray:
    """Stretch success rates near 0: θ becomes 1/2, 0 and 1 stay."""
    return (1 - theta) * p / (p + theta * (1 - 2 * p))


def _key(task: Mapping[str, Any]) -> LevelKey:
    return tuple(sorted((k, _frozen(v)) for k, v in task.items()))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
