"""Spaces of Gymnasium as JSON and back: Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple. Imports no ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.errors import CheckpointError, UsageError

Spaces = gym.spaces
LARGEST = 1 << 26  # numbers in one observation or action
DEPTH = 16
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")


def to_json(space: gym.Space) -> dict[str, Any]:
    """Return a space as plain data.

    Raises:
        UsageError: a kind that is not listed above, or a dtype that `from_json` does not take.
    """
    if isinstance(space, Spaces.Dict):
        # a list, since JSON readers may sort the keys of an object, and the order counts
        return {"type": "Dict", "spaces": [[str(key), to_json(part)] for key, part in space.spaces.items()]}
    if isinstance(space, Spaces.Tuple):
        return {"type": "Tuple", "spaces": [to_json(part) for part in space.spaces]}
    if isinstance(space, Spaces.Box):
        if np.dtype(space.dtype).name not in DTYPES:
            raise UsageError(f"{space} cannot be exported; expected one of {', '.join(DTYPES)}")
        bounds = {"low": _numbers(space.low), "high": _numbers(space.high)}
        return {"type": "Box", **bounds, "shape": list(space.shape), "dtype": np.dtype(space.dtype).name}
    if isinstance(space, Spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, Spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": np.asarray(space.start).tolist(),
        }
    if isinstance(space, Spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    raise UsageError(
        f"{space} cannot be exported; expected Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them"
    )


def from_json(data: Any, where: str, depth: int = 0) -> gym.Space:
    """Return the space of plain data.

    Args:
        data: from `to_json`, or from a stranger.
        where: what messages call it.

    Raises:
        CheckpointError: data of another form; says what was got.
    """
    kind = data.get("type") if isinstance(data, Mapping) else None
    if depth > DEPTH:
        raise CheckpointError(f"{where}: spaces lie in each other deeper than {DEPTH} times")
    try:
        if kind == "Dict":
            parts = [(str(key), from_json(part, f"{where}.{key}", depth + 1)) for key, part in data["spaces"]]
            return Spaces.Dict(parts)  # pairs: Gymnasium sorts a dict, and the order counts
        if kind == "Tuple":
            items = enumerate(data["spaces"])
            return Spaces.Tuple([from_json(part, f"{where}.{i}", depth + 1) for i, part in items])
        if kind == "Box":
            shape, dtype = _shape(data["shape"]), np.dtype(_dtype(data["dtype"]))
            low, high = (np.broadcast_to(np.asarray(data[s], dtype), shape).copy() for s in ("low", "high"))
            return Spaces.Box(low, high, shape, dtype.type)
        if kind == "Discrete":
            return Spaces.Discrete(_count(data["n"]), start=int(data["start"]))
        if kind == "MultiDiscrete":
            nvec = np.asarray(data["nvec"], np.int64)
            _count(int(nvec.sum()))
            return Spaces.MultiDiscrete(nvec, start=np.asarray(data["start"], np.int64))
        if kind == "MultiBinary":
            shape = _shape(data["shape"])
            return Spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError) as error:
        raise CheckpointError(f"{where}: not a {kind} space ({type(error).__name__}: {error})") from error
    raise CheckpointError(f"{where}: got {str(data)[:80]!r}, expected a space with a type that rlkit knows")


def _numbers(bounds: np.ndarray) -> Any:
    """Return bounds as nested lists, or one number where all are equal; infinities as words, which JSON lacks."""
    if bounds.size and (bounds == bounds.flat[0]).all():
        bounds = bounds.flat[0:1].reshape(())
    return bounds.tolist() if np.isfinite(bounds).all() else _words(bounds.tolist())


def _words(value: Any) -> Any:
    if isinstance(value, list):
        return [_words(item) for item in value]
    return value if np.isfinite(value) else str(value)


def _shape(given: Any) -> tuple[int, ...]:
    shape = tuple(_count(side) for side in given)
    if int(np.prod(shape, dtype=np.float64)) > LARGEST:
        raise ValueError(f"the shape {shape} has more than {LARGEST} numbers")
    return shape


def _count(given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= LARGEST:
        raise ValueError(f"got {given!r}, expected a whole number from 1 to {LARGEST}")
    return given


def _dtype(given: Any) -> str:
    if given not in DTYPES:
        raise ValueError(f"got dtype {given!r}, expected one of {', '.join(DTYPES)}")
    return given
