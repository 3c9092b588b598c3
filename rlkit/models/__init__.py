"""Custom torch models for RLlib's algorithms: the contract, the wrapping, and the models that come with rlkit.

`register_model("mine", build)` makes `model: {name: mine, …}` work for PPO, APPO, IMPALA, DQN, SAC, TQC and
BC, single- and multi-agent. What `build` gets and returns is in `rlkit.models.features`; docs/models.md is
the manual.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlkit.models.conv import cnn
    from rlkit.models.dense import mlp
    from rlkit.models.features import ModelRef, as_float, measure
    from rlkit.models.spec import check_model, module_spec
    from rlkit.registry import register_model

__all__ = ["ModelRef", "as_float", "check_model", "cnn", "measure", "mlp", "module_spec", "register_model"]

_LAZY = {
    "ModelRef": "features",
    "as_float": "features",
    "measure": "features",
    "cnn": "conv",
    "mlp": "dense",
    "check_model": "spec",
    "module_spec": "spec",
}


def __getattr__(name: str) -> Any:
    if name == "register_model":
        return importlib.import_module("rlkit.registry").register_model
    if name in _LAZY:
        return getattr(importlib.import_module(f"rlkit.models.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'rlkit.models' has no attribute {name!r}")
