"""Stop a run from inside: on a plateau, or when its time is up. Both end it regularly, with a checkpoint."""

from __future__ import annotations

import math
from typing import Any

from rlkit.callbacks.base import Callback, State
from rlkit.metrics import measured


class StopOnPlateau(Callback):
    """Ends the run when `metric` has not improved for `patience` of its measurements.

    An evaluation is measured once, although RLlib repeats its values in the results after it.

    It sets `done` in the result: Tune stops the trial; a loop of your own reads `result["done"]`.

    Args:
        metric: a tidy name (`episode_return`, `eval/episode_return`, …) or a path in RLlib's result.
        patience: measurements without improvement that are allowed.
        min_delta: what counts as an improvement.
        mode: `max` or `min`.
        min_iterations: never stop before.
    """

    def __init__(
        self,
        metric: str = "episode_return",
        patience: int = 20,
        min_delta: float = 0.0,
        mode: str = "max",
        min_iterations: int = 0,
    ):
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        if min_delta < 0:
            raise ValueError(f"min_delta cannot be negative, got {min_delta}")
        self.metric, self.patience, self.min_delta = metric, patience, min_delta
        self.mode, self.min_iterations = mode, min_iterations
        self.best: float | None = None
        self.waited = 0

    def on_train_result(
        self, *, result: dict, algorithm: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        value = measured(result, self.metric)
        if not math.isfinite(value):
            return
        gain = 0.0 if self.best is None else (value - self.best) * (1 if self.mode == "max" else -1)
        if self.best is None or gain > self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        result["plateau"] = {"best": self.best, "waited": self.waited}
        if self.waited >= self.patience and result["training_iteration"] >= self.min_iterations:
            result["done"] = True

    def get_state(self) -> State:
        return {"best": self.best, "waited": self.waited}

    def set_state(self, state: State) -> None:
        self.best, self.waited = state["best"], state["waited"]


class TimeLimit(Callback):
    """Ends the run after `seconds` of training, those before a resume included."""

    def __init__(self, seconds: float):
        if not (seconds > 0 and math.isfinite(seconds)):
            raise ValueError(f"seconds must be a positive number, got {seconds}")
        self.seconds = seconds
        self.spent = 0.0  # RLlib's own total begins at 0 where Tune does not restore it

    def on_train_result(
        self, *, result: dict, algorithm: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        self.spent = max(self.spent + result["time_this_iter_s"], result["time_total_s"])
        if self.spent >= self.seconds:
            result["done"] = True

    def get_state(self) -> State:
        return {"spent": self.spent}

    def set_state(self, state: State) -> None:
        self.spent = state["spent"]
