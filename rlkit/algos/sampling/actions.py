"""An action on its way from the module to the environment, and back.

A module knows fewer kinds of spaces than environments have: `module_space` is the space a module acts in, and
`ActionMap` turns its actions into ones that lie in the environment's space in value, shape and dtype. Episodes,
replay and columns hold the module's actions, as with RLlib.

    environment                     module                    on the way out
    Discrete(n, start)              Discrete(n)               + start
    MultiDiscrete, any shape        MultiDiscrete (k,)        reshaped, + start
    MultiBinary, any shape          MultiDiscrete 2, 2, ...   reshaped, int8
    Box of floats, any shape        Box (k,)                  reshaped; with `normalize_actions` [-1, 1] becomes
                                                              [low, high], with `clip_actions` it is clipped
    Box of integers                 Box (k,) of floats        as floats, then rounded
    Dict, Tuple                     the same of the above     each part by itself

A dimension without two finite bounds has no range to scale to: with `normalize_actions` or `clip_actions` it is
clipped to the bound it has. Integers that a module chooses for a Box of integers count from `low`, as with RLlib.
With `normalize_actions: false` and `clip_actions: false` values stay as they are.

RLlib 2.60 (`unsquash_action`, `clip_action`) leaves out `start`, the half-bounded, shapes, dtypes (it sends int32) and
MultiBinary. Where it is right, the results here are equal to the last bit.

Legend: B rows, k numbers of one action.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.roster import bounds_of, module_space

Spaces = gym.spaces


class ActionMap:
    """Turns module actions into the environment's and back.

    Args:
        space: the environment's.
        normalize, clip: RLlib's `normalize_actions` and `clip_actions`.

    Attributes:
        part: what is done to the space, or to each of its parts; `rlkit.play.export.choosing` does it on tensors.
    """

    def __init__(self, space: gym.Space, normalize: bool, clip: bool):
        self.space = space
        self.part = _part(space, normalize, clip)

    def __call__(self, actions: Any) -> Any:
        """Return a batch for the environment: module actions (B, ...), nested like the space."""
        return self.part.out(actions)

    def one(self, action: Any) -> Any:
        """Return one action for the environment."""
        return self.rows(_map(lambda a: np.asarray(a)[None], action))[0]

    def rows(self, actions: Any) -> list[Any]:
        """Return the rows of a batch as actions for one environment each."""
        return self.part.rows(self(actions))

    def back(self, action: Any, like: gym.Space | None = None) -> Any:
        """Return the module action of an environment's action.

        Args:
            like: the module's space, for the shape; None: `module_space`.
        """
        return self.part.back(action, module_space(self.space) if like is None else like)


class _Whole:
    """A part of integers: Discrete, MultiDiscrete, MultiBinary; anything unknown stays as it is."""

    def __init__(self, space: gym.Space):
        self.shape = space.shape
        self.dtype = space.dtype
        self.known = isinstance(space, Spaces.Discrete | Spaces.MultiDiscrete | Spaces.MultiBinary)
        start = getattr(space, "start", 0)
        self.start = start if np.any(start) else None

    def out(self, actions: Any) -> Any:
        if not self.known:
            return actions
        values = np.asarray(actions).reshape(len(actions), *self.shape)
        if self.start is not None:
            values = values + self.start
        return values.astype(self.dtype, copy=False)

    def rows(self, actions: Any) -> list[Any]:
        return list(actions)

    def back(self, action: Any, like: gym.Space) -> Any:
        if not self.known:
            return action
        values = np.asarray(action) - (0 if self.start is None else self.start)
        return values.reshape(like.shape).astype(like.dtype, copy=False)


class _Box:
    """A Box, of floats or of integers."""

    def __init__(self, space: gym.spaces.Box, normalize: bool, clip: bool):
        self.shape, self.dtype = space.shape, space.dtype
        self.whole = not np.issubdtype(space.dtype, np.floating)
        self.normalize, self.fit = normalize, normalize or clip
        self.low, self.high = bounds_of(space)
        self.scaled = np.isfinite(self.low) & np.isfinite(self.high) & normalize
        with np.errstate(over="ignore", invalid="ignore"):
            width = self.high - self.low
        if np.any(np.isinf(width[self.scaled])):  # the range of floats itself
            width = self.high.astype(np.float64) - self.low.astype(np.float64)
        self.width = np.where(self.scaled, width, 1).astype(width.dtype)
        self.middle = np.where(self.scaled, self.low, 0).astype(self.low.dtype)
        self.all = bool(np.all(self.scaled))
        self.some = bool(np.any(self.scaled))

    def out(self, actions: Any) -> Any:
        values = np.asarray(actions).reshape(len(actions), *self.shape)
        if self.whole and np.issubdtype(values.dtype, np.integer):
            values = self.low + values if self.normalize and np.isfinite(self.low).all() else values
        elif self.all:
            values = self.low + (values + 1.0) * self.width / 2.0
        elif self.some:
            values = np.where(self.scaled, self.middle + (values + 1.0) * self.width / 2.0, values)
        if self.whole:
            values = np.rint(values)
        if self.fit:
            values = np.clip(values, self.low, self.high)
        return values.astype(self.dtype, copy=False)

    def rows(self, actions: Any) -> list[Any]:
        # Gymnasium takes an array without dimensions for an element of such a Box, and a number only with a warning
        return [np.asarray(a) for a in actions] if not self.shape else list(actions)

    def back(self, action: Any, like: gym.Space) -> Any:
        values = np.asarray(action, self.dtype).reshape(self.shape)
        if self.whole or self.dtype.itemsize < 4:
            values = values.astype(np.float64)
        if self.some:
            width = np.where(self.width > 0, self.width, 1)
            values = np.where(self.scaled, ((values - self.middle) * 2.0) / width - 1.0, values)
        return values.reshape(like.shape).astype(like.dtype, copy=False)


class _Nested:
    """A Dict or Tuple."""

    def __init__(self, space: Any, normalize: bool, clip: bool):
        self.named = isinstance(space, Spaces.Dict)
        items = space.spaces.items() if self.named else enumerate(space.spaces)
        self.parts = {key: _part(part, normalize, clip) for key, part in items}

    def _nest(self, values: dict[Any, Any]) -> Any:
        return values if self.named else tuple(values.values())

    def out(self, actions: Any) -> Any:
        return self._nest({key: part.out(actions[key]) for key, part in self.parts.items()})

    def rows(self, actions: Any) -> list[Any]:
        columns = {key: part.rows(actions[key]) for key, part in self.parts.items()}
        return [
            self._nest(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
        ]

    def back(self, action: Any, like: Any) -> Any:
        return self._nest({key: part.back(action[key], like[key]) for key, part in self.parts.items()})


def _part(space: gym.Space, normalize: bool, clip: bool) -> Any:
    if isinstance(space, Spaces.Dict | Spaces.Tuple):
        return _Nested(space, normalize, clip)
    return _Box(space, normalize, clip) if isinstance(space, Spaces.Box) else _Whole(space)


def _map(function: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _map(function, part) for key, part in value.items()}
    return tuple(_map(function, part) for part in value) if isinstance(value, tuple) else function(value)
