"""Weights and gradients as histograms in TensorBoard."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlkit import rllib
from rlkit.callbacks.base import Callback


class Histograms(Callback):
    """Every `every` iterations, writes each parameter's weights and last gradient to TensorBoard.

    Event files go to `histograms` in the algorithm's log folder (a trial's folder in a recipe's run).

    Args:
        every: iterations between two histograms.
        weights, gradients: which of the two.
        bins: number of bins.
    """

    def __init__(self, every: int = 10, weights: bool = True, gradients: bool = True, bins: int = 64):
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        if bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}")
        self.every, self.weights, self.gradients, self.bins = every, weights, gradients, bins
        self._writer: Any = None

    def on_train_result(
        self, *, result: dict, algorithm: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        if result["training_iteration"] % self.every or algorithm.learner_group is None:
            return
        collected = algorithm.learner_group.foreach_learner(parameters_of)
        values: dict[str, tuple[np.ndarray, np.ndarray | None]] = next(r.get() for r in collected)
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(rllib.log_folder(algorithm, None, "histograms")), flush_secs=30)
        step = int(result.get("num_env_steps_sampled_lifetime") or result["training_iteration"])
        for name, (weight, gradient) in values.items():
            if self.weights and np.isfinite(weight).all():
                self._writer.add_histogram(f"weights/{name}", weight, step, bins=self.bins)
            if self.gradients and gradient is not None and np.isfinite(gradient).all():
                self._writer.add_histogram(f"gradients/{name}", gradient, step, bins=self.bins)
        self._writer.flush()


def parameters_of(learner: Any) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Return {module/parameter: (weights, gradient of the last update or None)}, flattened copies."""
    out = {}
    for module_id in learner.module.keys():  # noqa: SIM118 - RLlib's MultiRLModule is no dict
        for name, parameter in learner.module[module_id].named_parameters():
            out[f"{module_id}/{name}"] = (
                _flat(parameter),
                None if parameter.grad is None else _flat(parameter.grad),
            )
    return out


def _flat(tensor: Any) -> np.ndarray:
    flat: np.ndarray = tensor.detach().cpu().numpy().reshape(-1).copy()
    return flat
