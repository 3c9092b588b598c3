"""The adapted KL coefficients of PPO and APPO in checkpoints, for RLlib's own learners too (RLlib 2.60 loses them)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from rlkit import state

NAME = "kl_coeff"


def attach_kl_coeffs(algorithm: Any) -> None:
    """Save and restore the KL coefficients of all modules with every checkpoint of `algorithm`.

    Nothing happens for an algorithm whose config has no `kl_coeff`, or if they are attached already.
    """
    group = algorithm.learner_group
    if group is None or NAME in state.components(algorithm):
        return
    if not hasattr(algorithm.config, "kl_coeff"):
        return

    def get() -> dict[str, Any]:
        return {"modules": next(iter(group.foreach_learner(_kl_coeffs))).get()}

    def put(saved: Mapping[str, Any]) -> None:
        group.foreach_learner(functools.partial(_set_kl_coeffs, coefficients=saved["modules"]))

    state.attach(algorithm, NAME, state.Values(get, put))


def _kl_coeffs(learner: Any) -> dict[str, float]:
    known = getattr(learner, "curr_kl_coeffs_per_module", None)
    if known is None:
        return {}
    return {module_id: float(known[module_id]) for module_id in learner.module.keys()}  # noqa: SIM118


def _set_kl_coeffs(learner: Any, *, coefficients: Mapping[str, float]) -> None:
    for module_id, value in coefficients.items():
        if module_id in learner.module:
            learner.curr_kl_coeffs_per_module[module_id].data.fill_(value)
