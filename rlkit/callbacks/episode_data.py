"""RLlib's episodes and the buffers in them: read, rebuilt and checked as whole arrays.

An `InfiniteLookbackBuffer` holds a few entries of the piece before (its lookback) in front of its own. What
is here reads behind the lookback and puts new data behind the old lookback.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import tree
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.spaces.space_utils import batch as batch_structs

from rlkit.rllib import lookback_buffer

Nested = Any  # an ndarray, or a dict / tuple of them for nested spaces


def singles(episode: SingleAgentEpisode | MultiAgentEpisode) -> list[SingleAgentEpisode]:
    """Return the agents' own episodes in a sampled episode."""
    return list(episode.agent_episodes.values()) if isinstance(episode, MultiAgentEpisode) else [episode]


def clone(episode: SingleAgentEpisode) -> SingleAgentEpisode:
    """Return a shallow copy: `copy.copy`, but 4 times faster for a class with slots."""
    if type(episode) is not SingleAgentEpisode:
        return copy.copy(episode)
    new: SingleAgentEpisode = object.__new__(SingleAgentEpisode)
    for name in SingleAgentEpisode.__slots__:
        setattr(new, name, getattr(episode, name))
    return new


def original(buffer: InfiniteLookbackBuffer) -> Any:
    """Return a buffer's data without its lookback: arrays if finalized, else a list; views, not copies."""
    if not buffer.finalized or isinstance(buffer.data, np.ndarray | list):
        return buffer.data[buffer.lookback :]
    return tree.map_structure(lambda d: d[buffer.lookback :], buffer.data)


def as_arrays(buffer: InfiniteLookbackBuffer) -> Nested:
    """Return a buffer's data without its lookback as arrays, nested like its space."""
    data = original(buffer)
    if buffer.finalized:
        return data
    if not data:
        return np.zeros((0,), np.float32)
    return batch_structs(data) if isinstance(data[0], dict | tuple) else np.array(data)


def rebuilt(
    buffer: InfiniteLookbackBuffer | None, data: Any, *, lookback: int | None = None, fill: bool = False
) -> InfiniteLookbackBuffer:
    """Return a buffer with `data` behind the lookback of `buffer`.

    Args:
        lookback: keep this many lookback entries; default all of `buffer`'s.
        fill: the lookback entries are zeros shaped like `data` instead of `buffer`'s own.
    """
    keep = 0 if buffer is None else (buffer.lookback if lookback is None else lookback)
    like = None if fill else buffer
    as_list = isinstance(data, list)
    if keep and not fill and isinstance(data, np.ndarray) and buffer is not None and buffer.finalized:
        data = np.concatenate([buffer.data[:keep], data])
        return lookback_buffer(data, lookback=keep, finalized=True, like=like)
    if buffer is not None and not buffer.finalized and not as_list:
        data = [tree.map_structure(lambda d, i=i: d[i], data) for i in range(len(tree.flatten(data)[0]))]
        as_list = True
    if keep and buffer is not None:
        if as_list:
            before = [tree.map_structure(np.zeros_like, data[0])] * keep if fill else list(buffer.data[:keep])
            data = before + data
        elif fill:
            data = tree.map_structure(
                lambda d: np.concatenate([np.zeros((keep, *d.shape[1:]), d.dtype), d]), data
            )
        else:
            data = tree.map_structure(lambda old, d: np.concatenate([old[:keep], d]), buffer.data, data)
    return lookback_buffer(data, lookback=keep, finalized=not as_list, like=like)


def head(data: Any, size: int) -> Any:
    """Return a copy of the first `size` entries of a list or of nested arrays."""
    return data[:size] if isinstance(data, list) else tree.map_structure(lambda d: np.array(d[:size]), data)


def checked_column(name: str, value: Any, size: int, scalar: bool = False) -> np.ndarray:
    """Return `value` as an array of length `size`; a wrong length, dtype, NaN or inf is an error, never broadcast."""
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {array.dtype}, expected numbers")
    if array.ndim == 0 or len(array) != size or (scalar and array.ndim != 1):
        wanted = f"({size},)" if scalar else f"({size}, …)"
        raise ValueError(f"{name} has shape {array.shape}, expected {wanted}: one entry per step")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        step = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(f"{name} is {array[step]} at step {step}")
    return array


def checked_like(name: str, value: Any, expected: Any) -> Any:
    """Return `value` in the dtypes of `expected`; another structure, shape or kind of dtype, or NaN, is an error."""

    def leaf(new: Any, old: np.ndarray) -> np.ndarray:
        array = new if isinstance(new, np.ndarray) else np.asarray(new)
        if array.shape != old.shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {old.shape}")
        if not np.can_cast(array.dtype, old.dtype, "same_kind"):
            raise ValueError(f"{name} has dtype {array.dtype}, expected {old.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            step = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ValueError(f"{name} is not finite at step {step}")
        return array.astype(old.dtype, copy=False)

    try:
        tree.assert_same_structure(value, expected)
    except (ValueError, TypeError):
        raise ValueError(f"{name} has another structure than the space of {name}") from None
    return tree.map_structure(leaf, value, expected)


def agent_steps_of(episode: MultiAgentEpisode, agent: Any) -> list[Any]:
    """Return the agent's own step at each environment step of this piece and its lookback, 'S' where it took none.

    RLlib's list (2.60) has another length in two cases. For an agent that joins in a later piece it begins at the
    episode's step 0, not at the lookback's. For one that is terminated without an observation it has one 'S' too many,
    before its last step.
    """
    buffer, skip = episode.env_t_to_agent_t[agent], episode.SKIP_ENV_TS_TAG
    steps, before = list(buffer.data), episode.env_t_started - buffer.lookback
    extra = len(steps) - (buffer.lookback + episode.env_t - episode.env_t_started + 1)
    was_here = any(t != skip for t in steps[: buffer.lookback + 1])
    if before > 0 and extra >= before and not was_here:
        steps, extra = steps[before:], extra - before
    elif before < 0 and extra < 0:  # the lookback is longer than the episode was
        steps, extra = [skip] * -before + steps, extra - before
    if extra > 0:
        last = max(k for k, t in enumerate(steps) if t != skip)
        del steps[last - 1]
    return steps


def env_steps_of(episode: MultiAgentEpisode, agent: Any) -> np.ndarray:
    """Return (T + 1,) int: the environment step of each of an agent's observations in this piece."""
    sa, skip = episode.agent_episodes[agent], episode.SKIP_ENV_TS_TAG
    first = episode.env_t_started - episode.env_t_to_agent_t[agent].lookback
    steps = enumerate(agent_steps_of(episode, agent), first)
    return np.array([k for k, t in steps if t != skip and t >= sa.t_started][: len(sa) + 1])
