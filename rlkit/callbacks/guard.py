"""NaN and inf end the run at once and are named.

RLlib 2.60 turns NaN gradients into 0 and inf into 3.4e38, after which Adam's second moment is inf and nothing is
learned any more.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import tree

from rlkit import rllib
from rlkit.callbacks.base import Callback, CallbackError
from rlkit.callbacks.episode_data import as_arrays, singles


class NumericsGuard(Callback):
    """Checks for NaN and inf; the run ends in that iteration, before a weight is changed.

    Args:
        observations, rewards: in every sample, names the episode, agent and step.
        loss: of every minibatch, names the module.
        gradients: of every update, names the module and the parameter.
    """

    def __init__(
        self, observations: bool = True, rewards: bool = True, loss: bool = True, gradients: bool = True
    ):
        self.observations, self.rewards = observations, rewards
        self.loss, self.gradients = loss, gradients

    def on_algorithm_init(self, *, algorithm: Any, metrics_logger: Any = None, **kwargs: Any) -> None:
        if algorithm.learner_group is not None and (self.loss or self.gradients):
            algorithm.learner_group.foreach_learner(
                functools.partial(
                    rllib.watch_learner,
                    on_loss=check_loss if self.loss else None,
                    on_gradients=check_gradients if self.gradients else None,
                )
            )

    def on_sample_end(
        self, *, env_runner: Any, metrics_logger: Any, samples: list[Any], **kwargs: Any
    ) -> None:
        for episode in samples:
            for single in singles(episode):
                checks = [("observation", single.observations)] if self.observations else []
                checks += [("reward", single.rewards)] if self.rewards else []
                for name, buffer in checks:
                    step = first_bad(as_arrays(buffer))
                    if step is not None:
                        agent = "" if single.agent_id is None else f", agent {single.agent_id!r}"
                        raise CallbackError(
                            f"callback NumericsGuard: the environment returned a {name} that is not finite "
                            f"(episode {episode.id_}{agent}, step {single.t_started + step})"
                        )


def check_loss(module_id: str, loss: torch.Tensor) -> None:
    """Raise if a module's loss is NaN or inf."""
    if not torch.isfinite(loss).all():
        value = float(loss.detach().mean())
        raise CallbackError(f"callback NumericsGuard: the loss of module {module_id!r} is {value}")


def check_gradients(learner: Any, gradients: dict[Any, torch.Tensor | None]) -> None:
    """Raise if a gradient is NaN or inf. One norm over all of them; names are looked up only on failure."""
    present = [g for g in gradients.values() if g is not None]
    if not present or torch.isfinite(torch.nn.utils.get_total_norm(present)):
        return
    for module_id in learner.module.keys():  # noqa: SIM118 - RLlib's MultiRLModule is no dict
        for name, parameter in learner.module[module_id].named_parameters():
            gradient = gradients.get(learner.get_param_ref(parameter))
            if gradient is not None and not torch.isfinite(gradient).all():
                bad = int((~torch.isfinite(gradient)).sum())
                raise CallbackError(
                    f"callback NumericsGuard: the gradient of module {module_id!r}, parameter {name!r}, "
                    f"has {bad} of {gradient.numel()} entries that are NaN or inf"
                )


def first_bad(values: Any) -> int | None:
    """Return the index of the first row of nested arrays that holds NaN or inf."""
    for leaf in tree.flatten(values):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            return int(np.argwhere(~np.isfinite(leaf))[0][0])
    return None
