"""Which hooks of the callbacks do something, and what they read: what decides whether a runner needs episodes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback

from rlkit import rllib


def hooks(env_runner: Any, name: str) -> Iterator[Callable[..., Any]]:
    """Yield what the config's callbacks do in hook `name`: overridden methods and given functions."""
    for callback in rllib.runner_callbacks(env_runner):
        if getattr(type(callback), name) is not getattr(RLlibCallback, name):
            yield getattr(callback, name)
    given = getattr(env_runner.config, f"callbacks_{name}")
    yield from given if isinstance(given, list | tuple) else [given] if given else []


def named(env_runner: Any, name: str) -> bool:
    """Whether any callback does something in hook `name`."""
    return any(True for _ in hooks(env_runner, name))


def reads(env_runner: Any, name: str, argument: str) -> str | None:
    """Return the first hook `name` that reads an argument: RLlib passes all by keyword, and a hook names its own."""
    for hook in hooks(env_runner, name):
        if argument in inspect.signature(hook).parameters:
            return f"{owner(hook)}.{name}"
    return None


def owner(hook: Callable[..., Any]) -> str:
    """Return what messages call the place of a hook."""
    found = getattr(hook, "__self__", None)
    return type(found).__name__ if found is not None else getattr(hook, "__qualname__", repr(hook))
