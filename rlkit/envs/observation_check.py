"""Is a value an observation of a space? A cheap test for every step, and a close look that says what is wrong.

`predicate` may say no to a value that is fine (an overflow in the finiteness test, a rounding error at a
bound, a castable dtype); it never says yes to one that is not. `explain` has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import gymnasium as gym
import numpy as np

Mismatch = tuple[str, str, str, str]  # field, got, expected, fix
# Elements up to which a Python loop over the bounds is faster than numpy (4 elements: 0.9 against 3.2 µs).
SMALL = 32
TOLERANCE = 1e-5  # relative to the bound: rounding is no broken contract


def predicate(space: gym.Space, bounds: bool) -> Callable[[Any], bool]:
    """Build the cheap test of a space. `bounds`: whether Box bounds count."""
    if isinstance(space, gym.spaces.Box):
        return _box(space, bounds)
    if isinstance(space, gym.spaces.Discrete):
        first, last = int(space.start), int(space.start + space.n) - 1
        return lambda x: isinstance(x, int | np.integer) and first <= int(x) <= last
    if isinstance(space, gym.spaces.Dict):
        parts = {key: predicate(part, bounds) for key, part in space.spaces.items()}
        return lambda x: (
            isinstance(x, dict) and x.keys() == parts.keys() and all(parts[key](x[key]) for key in parts)
        )
    if isinstance(space, gym.spaces.Tuple):
        tests = [predicate(part, bounds) for part in space.spaces]
        return lambda x: (
            isinstance(x, tuple) and len(x) == len(tests) and all(t(v) for t, v in zip(tests, x, strict=True))
        )
    return lambda x: bool(space.contains(x))


def _box(space: gym.spaces.Box, bounds: bool) -> Callable[[Any], bool]:
    shape, dtype, ndarray = space.shape, space.dtype, np.ndarray
    low, high = space.low, space.high
    if not bounds or (np.isneginf(low).all() and np.isposinf(high).all()):
        if dtype.kind != "f":
            return lambda x: x.__class__ is ndarray and x.dtype == dtype and x.shape == shape

        nothing, flat = np.zeros(low.size, dtype), len(shape) == 1

        def finite(x: Any) -> bool:
            if x.__class__ is not ndarray or x.dtype != dtype or x.shape != shape:
                return False
            try:  # 0 * NaN and 0 * inf are NaN; a sum or a sum of squares could overflow on finite numbers
                return isfinite(nothing.dot(x if flat else x.ravel()))
            except RuntimeWarning:  # numpy's "invalid value", where warnings are errors
                return False

        return finite
    if dtype.kind in "iub" and _whole_range(space):
        return lambda x: x.__class__ is ndarray and x.dtype == dtype and x.shape == shape
    if low.size <= SMALL and len(shape) == 1 and dtype.kind == "f":
        limits = list(
            zip(
                (max(value, -_LARGEST) for value in low.tolist()),
                (min(value, _LARGEST) for value in high.tolist()),
                strict=True,
            )
        )

        def between(x: Any) -> bool:
            if x.__class__ is not ndarray or x.dtype != dtype or x.shape != shape:
                return False
            for value, (least, most) in zip(x.tolist(), limits, strict=True):  # noqa: SIM110 (all() takes twice as long)
                if not least <= value <= most:
                    return False
            return True

        return between

    def within(x: Any) -> bool:
        if x.__class__ is not ndarray or x.dtype != dtype or x.shape != shape:
            return False
        return bool(((x >= low) & (x <= high)).all()) and (dtype.kind != "f" or bool(np.isfinite(x).all()))

    return within


_LARGEST = float(np.finfo(np.float64).max)


def _whole_range(space: gym.spaces.Box) -> bool:
    if space.dtype.kind == "b":
        return True
    info = np.iinfo(space.dtype)
    return bool((space.low == info.min).all() and (space.high == info.max).all())


def explain(space: gym.Space, value: Any, bounds: bool, field: str = "observation") -> Mismatch | None:
    """Say why `value` is not of `space`: (field, got, expected, fix), or None if it is."""
    if isinstance(space, gym.spaces.Dict):
        if not isinstance(value, dict) or value.keys() != space.spaces.keys():
            got = f"keys {sorted(value)}" if isinstance(value, dict) else type(value).__name__
            return (
                field,
                got,
                f"a dict with the keys {sorted(space.spaces)}",
                "return these keys, or change the space",
            )
        parts = ((f"{field}[{key!r}]", part, value[key]) for key, part in space.spaces.items())
        return next((p for name, part, v in parts if (p := explain(part, v, bounds, name))), None)
    if isinstance(space, gym.spaces.Tuple):
        if not isinstance(value, tuple) or len(value) != len(space.spaces):
            return (
                field,
                _kind(value),
                f"a tuple of {len(space.spaces)}",
                "return a tuple, or change the space",
            )
        pairs = zip(space.spaces, value, strict=True)
        found = (explain(part, v, bounds, f"{field}[{i}]") for i, (part, v) in enumerate(pairs))
        return next((p for p in found if p), None)
    if isinstance(space, gym.spaces.Box):
        return _explain_box(space, value, bounds, field)
    if bool(space.contains(value)):
        return None
    return (
        field,
        f"{value!r:.80} ({_kind(value)})",
        str(space),
        "return an element of the space, or change the space",
    )


def _explain_box(space: gym.spaces.Box, value: Any, bounds: bool, field: str) -> Mismatch | None:
    kind = f"an array of {space.dtype} with shape {space.shape}"
    if not isinstance(value, np.ndarray | np.generic):
        return field, _kind(value), kind, f"return np.asarray(observation, np.{space.dtype})"
    value = np.asarray(value)
    if value.shape != space.shape:
        return field, f"shape {value.shape}", f"shape {space.shape}", "return that shape, or change the space"
    if not np.can_cast(value.dtype, space.dtype):
        return (
            field,
            f"dtype {value.dtype}",
            f"dtype {space.dtype}",
            f"return observation.astype(np.{space.dtype})",
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        return (
            field,
            f"{value[at]} at index {_index(at)}",
            "finite numbers",
            "look for a division by zero or an overflow",
        )
    if not bounds:
        return None
    slack = TOLERANCE * np.maximum(1.0, np.abs(np.where(np.isfinite(space.low), space.low, 1.0)))
    slack_high = TOLERANCE * np.maximum(1.0, np.abs(np.where(np.isfinite(space.high), space.high, 1.0)))
    outside = (value < space.low - slack) | (value > space.high + slack_high)
    if space.dtype.kind in "iub":
        outside = (value < space.low) | (value > space.high)
    if not outside.any():
        return None
    at = tuple(int(i) for i in np.argwhere(outside)[0])
    limits = f"between {space.low[at]} and {space.high[at]}"
    fix = "widen the space, or clip the observation, in a wrapper where the environment is not yours"
    return field, f"{value[at]} at index {_index(at)}", limits, fix


def _kind(value: Any) -> str:
    return (
        f"{type(value).__name__} of {len(value)}" if isinstance(value, list | tuple) else type(value).__name__
    )


def _index(at: tuple[int, ...]) -> str:
    return str(at[0]) if len(at) == 1 else str(at)
