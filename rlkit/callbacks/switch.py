"""Callbacks that leave evaluation alone also where RLlib evaluates with the training runner."""

from __future__ import annotations

from typing import Any

from rlkit.callbacks.base import Callback


class OffInEvaluation(Callback):
    """Is off in the training runners during an evaluation for which there are no runners of its own.

    A subclass with `on_evaluate_start` or `on_evaluate_end` calls that of this class too.
    """

    _on = True

    def on_evaluate_start(self, *, algorithm: Any, **kwargs: Any) -> None:
        """Driver: RLlib evaluates with the training runner, whose config does not say so."""
        if algorithm.eval_env_runner_group is None:
            self.call_runners("switch", False)

    def on_evaluate_end(self, *, algorithm: Any, **kwargs: Any) -> None:
        """Driver: back to training."""
        if algorithm.eval_env_runner_group is None:
            self.call_runners("switch", True)

    def switch(self, on: bool) -> None:
        """Runner: work, or leave everything as it is."""
        self._on = on
