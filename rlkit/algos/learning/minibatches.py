"""Small pieces of the learners: columns as tensors, a stand-in for metrics, gradients of several learners."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import TD_ERROR_KEY


class Gate:
    """Stands in for a learner's metrics while RLlib's loss runs: keeps the TD errors, passes on only what is wanted."""

    def __init__(self, metrics: Any):
        self.metrics = metrics
        self.is_open = False
        self.td_errors: dict[str, torch.Tensor] = {}

    def log_value(self, key: Any, value: Any, **kwargs: Any) -> None:
        if isinstance(key, tuple) and key[-1] == TD_ERROR_KEY:
            self.td_errors[key[0]] = value.detach()
        elif self.is_open:
            self.metrics.log_value(key, value, **kwargs)

    def log_dict(self, value_dict: Any, **kwargs: Any) -> None:
        if self.is_open:
            self.metrics.log_dict(value_dict, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.metrics, name)


def finite(value: torch.Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def tensors(value: Any, device: Any) -> Any:
    """Turn nested numpy arrays into tensors on `device`, without a copy on the CPU."""
    if isinstance(value, Mapping):
        return {k: tensors(v, device) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(tensors(v, device) for v in value)
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    with warnings.catch_warnings():
        # arrays from Ray's object store are read-only, and are only read here
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(value).to(device, non_blocking=True)


def row(value: Any, k: int) -> Any:
    if isinstance(value, dict):
        return {key: row(v, k) for key, v in value.items()}
    return tuple(row(v, k) for v in value) if isinstance(value, tuple) else value[k]


def first_leaf(value: Any) -> Any:
    while isinstance(value, Mapping | tuple):
        value = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
    return value


def steps_of(columns: Mapping[str, Any]) -> int:
    """Return the steps of a minibatch: those of the loss mask where there is one, else its rows."""
    mask = columns.get(Columns.LOSS_MASK)
    return len(first_leaf(columns)) if mask is None else int(mask.sum())


def length(columns: Mapping[str, Any]) -> int:
    return len(first_leaf(columns)) if columns else 0


def map_arrays(value: Any, function: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Apply a function to every array of a nested value."""
    if isinstance(value, Mapping):
        return {k: map_arrays(v, function) for k, v in value.items()}
    return tuple(map_arrays(v, function) for v in value) if isinstance(value, tuple) else function(value)


def arrays_of(value: Any) -> Iterator[np.ndarray]:
    """Iterate over the arrays of a nested value."""
    if isinstance(value, Mapping | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from arrays_of(part)
    else:
        yield value


def shard(array: np.ndarray, *, i: int, count: int) -> np.ndarray:
    """Return the i-th of `count` equal parts of the rows of (K, B, ...)."""
    size = array.shape[1] // count
    return np.ascontiguousarray(array[:, i * size : (i + 1) * size])


def averaged(gradients: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Average gradients over the learners of a run, where there are several (torch.distributed)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return gradients
    learners = torch.distributed.get_world_size()
    if learners == 1:
        return gradients
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    parts = (flat / learners).split([g.numel() for g in gradients])
    return tuple(part.view_as(g) for part, g in zip(parts, gradients, strict=True))
