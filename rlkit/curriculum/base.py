"""What a curriculum is: it gives tasks, learns from how they went, and can be saved.

A curriculum lives twice. The driver's copy decides: it gets `update` for every finished episode and `advance` once
per iteration. Each env runner's copy only calls `sample`; the driver pushes its `state` to it. So everything that
`sample` reads must be part of `state`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlkit.curriculum.samplers import Task

if TYPE_CHECKING:
    from numpy.random import Generator

State = dict[str, Any]
TASK = "curriculum_task"  # key of an episode's task in its `custom_data`


@dataclass(slots=True)
class Outcome:
    """How one episode went.

    Attributes:
        episode_return: undiscounted, summed over the agents.
        length: env steps.
        success: 1.0 or 0.0, a share between them for several agents, or None where the environment does not tell.
        returns: undiscounted return per policy (module), summed over its agents; filled only when asked for.
        score: what the learner says about the episode (value loss or TD error); filled only when asked for.
    """

    episode_return: float
    length: int
    success: float | None = None
    returns: dict[str, float] = field(default_factory=dict)
    score: float | None = None


@dataclass(slots=True)
class EpisodeReport:
    """An outcome on its way from a runner to the driver, with the marks that say what it may count for."""

    life: int  # increases with every restore; an older one belongs to a history that was rolled back
    stage: int  # the curriculum's stage when the task was drawn
    order: tuple[int, int, int, int]  # worker, its birth, sub-environment, number: fixed for the driver
    task: Task
    outcome: Outcome
    name: str | None = None  # of the task, in an evaluation of each


@dataclass(frozen=True)
class Clock:
    """Where training stands at the end of an iteration."""

    env_steps: int
    total_steps: int | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    evaluated: bool = False  # an evaluation took place in this iteration: its metrics are fresh

    @property
    def progress(self) -> float:
        """Share of `total_steps` done, in [0, 1].

        Raises:
            ValueError: `total_steps` is not known.
        """
        if not self.total_steps:
            raise ValueError("progress needs total_steps: the env steps of the whole run")
        return min(1.0, self.env_steps / self.total_steps)


class Curriculum(ABC):
    """Base of every curriculum.

    Attributes:
        stage: counts the changes after which earlier episodes say nothing any more (a new lesson). Outcomes of an
            earlier stage never reach `update`.
        needs: parts of an `Outcome` that cost something: "returns", "success", "score".
    """

    stage: int = 0
    needs: frozenset[str] = frozenset()

    @abstractmethod
    def sample(self, rng: Generator) -> Task:
        """Draw the task of the next episode. Called on the runners."""

    @abstractmethod
    def update(self, task: Task, outcome: Outcome) -> None:
        """Learn from one finished episode of the present stage. Called on the driver, in a fixed order."""

    @property
    @abstractmethod
    def state(self) -> State:
        """Everything that changes, as plain values: what is saved, restored and pushed to the runners."""

    @state.setter
    @abstractmethod
    def state(self, state: State) -> None: ...

    def runner_state(self) -> State:
        """Return the part of `state` that `sample` needs, where the rest is large; the setter of `state` takes it."""
        return self.state

    def evaluated_reward(self, rewards: Mapping[Any, float], task: Task) -> float:
        """Return what counts of a step's rewards in an evaluation of `task`: the sum over the agents."""
        return float(sum(rewards.values()))

    def evaluated_return(self, outcome: Outcome, task: Task) -> float:
        """Return the same of a whole episode."""
        return outcome.episode_return

    def environment_task(self, task: Task) -> Task:
        """Return what of a task goes to the environment; an empty dict: nothing of it."""
        return task

    def advance(self, clock: Clock) -> None:  # noqa: B027  (a hook that most curricula leave empty)
        """Decide at the end of an iteration, after its outcomes. Called on the driver."""

    def on_algorithm(self, algorithm: Any) -> None:  # noqa: B027
        """Touch the algorithm after `advance`, and once after it was built or restored (self-play: its policies)."""

    def final(self, rng: Generator) -> Task:
        """Draw a task of the kind that training aims at."""
        return self.sample(rng)

    def each(self) -> dict[str, Task]:
        """Return the tasks (their values may be samplers) that an evaluation plays in turn, by name."""
        return {}

    def label(self, task: Task) -> str | None:
        """Name the task in the metrics, or None where there are too many to name."""
        return None

    def metrics(self) -> dict[str, Any]:
        """Return what goes to `curriculum/…` in the result, beside the returns and the tasks."""
        return {}

    def candidates(self) -> dict[str, list[Task]]:
        """Return tasks that the environment must accept, by the name used in the error message."""
        from rlkit.curriculum.samplers import corner_tasks

        return {name: corner_tasks(task) for name, task in self.each().items()}
