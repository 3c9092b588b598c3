"""When a lesson is over: a measure, a threshold, and how many episodes must agree."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from rlkit.curriculum.base import Clock, Outcome, State
from rlkit.errors import did_you_mean
from rlkit.metrics import find

EPISODE_MEASURES = ("return", "success", "length")
CLOCK_MEASURES = ("steps", "progress")
MEASURES = EPISODE_MEASURES + CLOCK_MEASURES
# RLlib keeps these over a window of episodes that spans lessons; `return` and `length` count this lesson's alone.
WINDOWED = ("episode_return", "episode_length", "return/", "env_runners/")


@dataclass(frozen=True)
class Condition:
    """`measure` of this lesson reaches `threshold`.

    Attributes:
        measure: "return" (team sum, or of one policy), "success" (rate), "length" (env steps per episode),
            "steps" (env steps since the lesson began), "progress" (share of the run's `total_steps`), or a metric:
            a tidy name such as "eval/episode_return", or a path in RLlib's result with "/".
        threshold: reached when measure >= threshold, or <= with `direction: below`.
        min_episodes: episodes of this lesson that must have ended; default 20, and 0 for steps, progress, metrics.
        smoothing: the measure is the mean over this many latest episodes (iterations for a metric); default
            `min_episodes` (1 for a metric).
        of: the policy (module) whose return counts.
    """

    measure: str
    threshold: float
    min_episodes: int = -1
    smoothing: int = -1
    of: str | None = None
    direction: Literal["above", "below"] = "above"

    def __post_init__(self) -> None:
        check_measure(self.measure)
        if self.of is not None and self.measure != "return":
            raise ValueError(f"`of: {self.of}` needs measure: return; got measure: {self.measure}")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold: got {self.threshold}, expected a finite number")
        if self.measure in ("success", "progress") and not 0 <= self.threshold <= 1:
            raise ValueError(
                f"threshold: got {self.threshold}, expected a share in [0, 1] for {self.measure}"
            )
        if self.min_episodes == -1:
            object.__setattr__(self, "min_episodes", 20 if self.per_episode else 0)
        if self.smoothing == -1:
            object.__setattr__(self, "smoothing", max(1, self.min_episodes) if self.per_episode else 1)
        if self.min_episodes < 0 or self.smoothing < 1:
            raise ValueError("expected min_episodes >= 0 and smoothing >= 1")

    @property
    def per_episode(self) -> bool:
        return self.measure in EPISODE_MEASURES

    def holds(self, value: float) -> bool:
        return value >= self.threshold if self.direction == "above" else value <= self.threshold


def check_measure(measure: str) -> None:
    """Raise a ValueError for a measure that does not exist, or that would mix lessons."""
    if measure in MEASURES:
        return
    if measure.startswith(WINDOWED):
        raise ValueError(
            f"measure {measure!r} is a window over episodes of earlier lessons too; "
            "use measure: return, success or length, which count this lesson alone"
        )
    if "/" not in measure:
        raise ValueError(
            f"unknown measure {measure!r}{did_you_mean(measure, MEASURES)}; known: {', '.join(MEASURES)}, "
            "or the path of a metric with '/'"
        )


class Meter:
    """A condition on its way: the window of one lesson visit. Starts empty with every lesson."""

    def __init__(self, condition: Condition, since: int = 0):
        self.condition = condition
        self.since = since  # env steps when the lesson began
        self.window: deque[float] = deque(maxlen=condition.smoothing)
        self.episodes = 0
        self.best = -math.inf if condition.direction == "above" else math.inf
        self.at_best = 0

    def update(self, outcome: Outcome) -> None:
        """Count an episode of this lesson."""
        self.episodes += 1
        value = self._of(outcome)
        if value is None:
            return
        self.window.append(value)
        if value == self.best:
            self.at_best += 1
        elif self.condition.direction == ("above" if value > self.best else "below"):
            self.best, self.at_best = value, 1

    def _of(self, outcome: Outcome) -> float | None:
        c = self.condition
        if c.measure == "return":
            return outcome.episode_return if c.of is None else outcome.returns.get(c.of)
        if c.measure == "success":
            return outcome.success
        return float(outcome.length) if c.measure == "length" else None

    def tick(self, clock: Clock) -> None:
        """Take this iteration's value of a metric."""
        if not self.condition.per_episode and self.condition.measure not in CLOCK_MEASURES:
            value = metric(clock, self.condition.measure)
            if value is not None:
                self.window.append(value)

    def value(self, clock: Clock) -> float | None:
        """Return the smoothed measure, or None before there is one."""
        if self.condition.measure == "steps":
            return float(clock.env_steps - self.since)
        if self.condition.measure == "progress":
            return clock.progress
        return sum(self.window) / len(self.window) if self.window else None

    def reached(self, clock: Clock) -> bool:
        """Does the condition hold, on enough episodes and a full window?"""
        value = self.value(clock)
        full = self.condition.measure in CLOCK_MEASURES or len(self.window) == self.window.maxlen
        enough = full and self.episodes >= self.condition.min_episodes
        return value is not None and enough and self.condition.holds(value)

    def out_of_reach(self) -> str | None:
        """Say from the data why no episode can reach the threshold, or None while there is no sign of that.

        A mean reaches what no single episode reached only by luck: after 100 episodes (five windows at least), a
        best value short of the threshold that a quarter of all episodes share is a ceiling of the environment;
        after 1,000 a best value short of the threshold is worth saying in any case.
        """
        c = self.condition
        if not c.per_episode or self.episodes < max(100, 5 * c.smoothing):
            return None
        if not math.isfinite(self.best):
            what = f"policy {c.of!r}" if c.of else "the environment"
            return f"{what} reported no {c.measure} in {self.episodes} episodes"
        if c.holds(self.best):
            return None
        sign = ">=" if c.direction == "above" else "<="
        goal = f"{c.measure} {sign} {c.threshold:g}"
        facts = f"it waits for {goal}, and the best of {self.episodes} episodes was {self.best:g}"
        if self.at_best >= self.episodes / 4:
            return f"{facts}, reached {self.at_best} times: no episode seems able to do better"
        return facts if self.episodes >= 1000 else None

    @property
    def state(self) -> State:
        return {
            "of": self._what(),
            "since": self.since,
            "window": list(self.window),
            "episodes": self.episodes,
            "best": self.best,
            "at_best": self.at_best,
        }

    @state.setter
    def state(self, state: State) -> None:
        self.since = state["since"]
        if state.get("of", self._what()) != self._what():  # the recipe measures something else now
            return
        self.episodes = state["episodes"]
        self.best, self.at_best = state["best"], state["at_best"]
        self.window = deque(state["window"], maxlen=self.condition.smoothing)

    def _what(self) -> list[str | None]:
        """What is measured: numbers of another measure say nothing of it."""
        return [self.condition.measure, self.condition.of, self.condition.direction]


def metric(clock: Clock, name: str) -> float | None:
    """Return a metric of this iteration, or None where it is absent, not a number, or a repeated evaluation."""
    repeated = name.startswith(("eval/", "evaluation/")) and not clock.evaluated
    return None if repeated else find(clock.result, name)
