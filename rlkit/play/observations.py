"""One observation or a batch of them? Told by the space, for arrays, dicts and tuples alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.errors import UsageError


def as_rows(obs: Any, space: gym.Space) -> tuple[list[Any], bool]:
    """Return observations row by row, in the types of the space, and whether a batch was given.

    Raises:
        UsageError: the shape is neither that of the space nor (rows, that shape); says got and expected.
    """
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        if isinstance(obs, list) and not _is_item(obs, space):
            rows = [as_rows(item, space) for item in obs]
            return [row[0] for row, _ in rows], True
        return _nested(obs, space)
    try:
        given = np.asarray(obs)
        with np.errstate(invalid="ignore"):
            array = given.astype(space.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"got {obs!r}, expected an observation of {space}") from error
    if given.dtype.kind == "f" and np.isnan(given).any():
        raise UsageError(f"got an observation with {np.isnan(given).sum()} NaN, expected numbers of {space}")
    if array.dtype.kind in "iub" and (changed := array != given).any():
        raise UsageError(
            f"got an observation with {given[changed].ravel()[0]}, expected whole numbers of {array.dtype}, of {space}"
        )
    shape = space.shape or ()
    if array.shape == shape:
        return [array if shape else array[()]], False
    if array.shape[1:] == shape and array.ndim == len(shape) + 1 and len(array):
        return list(array), True
    raise UsageError(
        f"got an observation of shape {array.shape}, expected {shape} for one or (rows, "
        f"{', '.join(map(str, shape))}) for a batch of {space}"
    )


def _is_item(obs: Any, space: gym.Space) -> bool:
    return (
        isinstance(space, gym.spaces.Tuple)
        and len(obs) == len(space.spaces)
        and not isinstance(obs[0], tuple)
    )


def _nested(obs: Any, space: gym.spaces.Dict | gym.spaces.Tuple) -> tuple[list[Any], bool]:
    named = isinstance(space, gym.spaces.Dict)
    spaces = dict(space.spaces) if named else dict(enumerate(space.spaces))
    given = obs if isinstance(obs, Mapping) else dict(enumerate(obs)) if isinstance(obs, list | tuple) else {}
    if set(given) != set(spaces):
        got = sorted(given) if named and given else type(obs).__name__
        raise UsageError(f"got an observation with {got}, expected {sorted(spaces)} of {space}")
    parts = {key: as_rows(given[key], spaces[key]) for key in spaces}
    counts = {len(rows) for rows, _ in parts.values()}
    if len({batched for _, batched in parts.values()}) != 1 or len(counts) != 1:
        raise UsageError(f"the parts of an observation disagree about the number of rows: {sorted(counts)}")
    rows = [{key: parts[key][0][i] for key in spaces} for i in range(counts.pop())]
    return [row if named else tuple(row.values()) for row in rows], next(iter(parts.values()))[1]
