"""Recorded episodes of one agent, in one file that holds arrays and nothing that runs.

`EpisodeWriter` writes a file, `RecordEpisodes` does it around any Gymnasium environment, `read_episodes` reads one, and
`rlkit.replay.minari` reads Minari's. A file is numpy's `.npz`, read with `allow_pickle=False`:

    format          "rlkit-episodes-1"
    about           JSON: what was recorded, for people
    lengths         (E,) int64, steps of each episode
    terminated      (E,) bool, the environment ended it
    truncated       (E,) bool, it was cut: by a time limit, or by whoever recorded it
    seeds           (E,) int64, of `reset`; -1 where there was none
    rewards         (N,) float64
    observations    (N + E, ...): of each episode from the one `reset` gave to the last one
    actions         (N, ...), as the environment got them
    module_actions  (N, ...), as the policy's module gave them before scaling and clipping, where it is known

Values of a Dict space stand under `observations/KEY`, those of a Tuple under `observations/0`, `observations/1` ….

Legend: E episodes, N steps of all of them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.errors import UsageError
from rlkit.files import Pending

FORMAT = "rlkit-episodes-1"
OBSERVATIONS, ACTIONS, MODULE_ACTIONS = "observations", "actions", "module_actions"
BOOKS = {"lengths": "i", "terminated": "b", "truncated": "b", "seeds": "i", "rewards": "f"}
Headers = Mapping[str, tuple[tuple[int, ...], np.dtype]]


@dataclass
class Episodes:
    """Episodes in memory, one behind the other: see the module's docstring for shapes.

    Attributes:
        source: the file or data set, for messages.
        lengths, terminated, truncated: of each episode.
        rewards: (N,).
        columns: the flat arrays by name: `observations/…`, `actions/…`.
        about: what the file says of itself.
    """

    source: str
    lengths: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    rewards: np.ndarray
    columns: dict[str, np.ndarray]
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def returns(self) -> np.ndarray:
        """The undiscounted return of each episode (E,)."""
        return np.add.reduceat(self.rewards, np.cumsum(self.lengths) - self.lengths)

    def values(self, name: str, space: gym.Space) -> Any:
        """Return the arrays of `observations` or `actions`, nested like a space."""
        if isinstance(space, gym.spaces.Dict):
            return {key: self.values(f"{name}/{key}", part) for key, part in space.spaces.items()}
        if isinstance(space, gym.spaces.Tuple):
            return tuple(self.values(f"{name}/{k}", part) for k, part in enumerate(space.spaces))
        return self.columns[name]

    def check_fit(self, env: str, observation_space: gym.Space, action_space: gym.Space) -> None:
        """Check that the values could have come from an environment with these spaces.

        Raises:
            UsageError: names the column, what it holds, and what the environment has.
        """
        headers = {name: (array.shape, array.dtype) for name, array in self.columns.items()}
        check_shapes(self.source, headers, env, observation_space, action_space)
        for name, space in (*_leaves(OBSERVATIONS, observation_space), *_leaves(ACTIONS, action_space)):
            values = self.columns[name]
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise UsageError(f"data {self.source}: {name} holds NaN or inf")
            low, high = _range(space, bounded=name.startswith(ACTIONS))
            if low is not None and ((values < low) | (values > high)).any():
                raise UsageError(
                    f"data {self.source} does not fit {env}: {name} reach from {values.min()} to {values.max()}, "
                    f"expected values of {space}"
                )


def check_shapes(
    source: str, headers: Headers, env: str, observation_space: gym.Space, action_space: gym.Space
) -> None:
    """Check shapes and kinds of numbers of a file against the spaces of an environment.

    Raises:
        UsageError: names the column, what it holds, and what the environment has.
    """
    expected = dict((*_leaves(OBSERVATIONS, observation_space), *_leaves(ACTIONS, action_space)))
    given = {
        name: header for name, header in headers.items() if name.partition("/")[0] in (OBSERVATIONS, ACTIONS)
    }
    for name, space in expected.items():
        if name not in given:
            raise UsageError(
                f"data {source} does not fit {env}: it has no {name} ({', '.join(sorted(given))}), expected {space}"
            )
        shape, dtype = given[name][0][1:], given[name][1]
        if shape != (space.shape or ()) or not np.can_cast(dtype, space.dtype, "same_kind"):
            raise UsageError(
                f"data {source} does not fit {env}: {name} are {dtype} {shape}, expected {space.dtype} "
                f"{space.shape or ()} ({space})"
            )
    for name in given:
        if name not in expected:
            raise UsageError(
                f"data {source} does not fit {env}: it has {name}, the environment has {', '.join(expected)}"
            )


def read_headers(path: str | Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return shape and dtype of every array of a file, without reading them.

    Raises:
        UsageError: no such file, or it is not one of recorded episodes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {}
            for member in archive.namelist():
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }[version]
                    shape, _, dtype = read(stream)
                    headers[member.removesuffix(".npy")] = (shape, dtype)
    except FileNotFoundError:
        raise UsageError(f"data {path}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"data {path} is a folder, expected a file of `rlkit evaluate … --record`") from None
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise UsageError(f"data {path} is not a file of recorded episodes: {error}; {FIX}") from error
    missing = [name for name in ("format", "lengths", "rewards") if name not in headers]
    if missing:
        raise UsageError(f"data {path} is not a file of recorded episodes: it has no {missing[0]}; {FIX}")
    for name, (_, dtype) in headers.items():
        if dtype.hasobject:
            raise UsageError(f"data {path}: {name} holds Python objects, which are not read; {FIX}")
    return headers


FIX = "record one with `rlkit evaluate CHECKPOINT --record FILE.npz`"


def read_episodes(path: str | Path) -> Episodes:
    """Read a file of recorded episodes; nothing in it is unpickled.

    Raises:
        UsageError: no such file, not one of recorded episodes, or its arrays contradict each other.
    """
    read_headers(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        version, about = str(arrays.pop("format")), json.loads(str(arrays.pop("about", "{}")))
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"data {path} cannot be read: {error}") from error
    if version != FORMAT:
        raise UsageError(f"data {path} has the format {version!r}, expected {FORMAT!r}")
    for name, kind in BOOKS.items():
        if name not in arrays or arrays[name].dtype.kind != kind or arrays[name].ndim != 1:
            raise UsageError(f"data {path}: {name} is missing or not a column of its kind")
    lengths, steps = arrays["lengths"], len(arrays["rewards"])
    if len(lengths) == 0 or (lengths < 1).any() or lengths.sum() != steps:
        raise UsageError(f"data {path}: episodes of {lengths.sum()} steps in all, rewards of {steps}")
    if not np.isfinite(arrays["rewards"]).all():
        raise UsageError(f"data {path}: rewards hold NaN or inf")
    for name, array in arrays.items():
        head = name.partition("/")[0]
        rows = {
            OBSERVATIONS: steps + len(lengths),
            ACTIONS: steps,
            MODULE_ACTIONS: steps,
            "rewards": steps,
        }.get(head, len(lengths))
        if array.ndim == 0 or len(array) != rows:
            raise UsageError(f"data {path}: {name} has shape {array.shape}, expected {rows} rows")
    open_ends = ~(arrays["terminated"] | arrays["truncated"])
    if open_ends.any():
        raise UsageError(f"data {path}: episode {int(open_ends.argmax())} neither terminated nor truncated")
    books = {name: arrays.pop(name) for name in BOOKS}
    books.pop("seeds")
    return Episodes(str(path), columns=arrays, about=about, **books)


class EpisodeWriter:
    """Collects episodes and writes them to a file when it is closed.

    Args:
        path: the file, ending in .npz; its folder is created.
        about: goes into the file, for people; anything `json.dumps` takes.

    Raises:
        UsageError: another ending, or a place that cannot be written to.
    """

    def __init__(self, path: str | Path, about: Mapping[str, Any] | None = None):
        if Path(path).suffix != ".npz":
            raise UsageError(f"cannot record to {path}: expected a name ending in .npz")
        self.about = dict(about or {})
        self.output = Pending(path)
        try:
            self.output.path.parent.mkdir(parents=True, exist_ok=True)
            self.output.temporary.touch()
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        self._episodes: list[dict[str, Any]] = []

    def add(
        self,
        observations: list[Any],
        actions: list[Any],
        rewards: list[float],
        *,
        terminated: bool,
        truncated: bool,
        seed: int | None = None,
        module_actions: list[Any] | None = None,
    ) -> None:
        """Add a finished episode of T steps.

        Args:
            observations: T + 1, from the one of `reset` to the last one.
            actions: T, as the environment got them.
            rewards: T.
            terminated, truncated: how it ended.
            seed: of `reset`.
            module_actions: T, as a policy's module gave them, where they are known.

        Raises:
            UsageError: the numbers of them do not fit, or the episode has not ended.
        """
        steps = len(actions)
        if not steps or len(observations) != steps + 1 or len(rewards) != steps:
            raise UsageError(
                f"cannot record {len(observations)} observations, {steps} actions and {len(rewards)} rewards: "
                "expected T + 1, T and T, with T at least 1"
            )
        if not (terminated or truncated):
            raise UsageError("cannot record an episode that neither terminated nor was truncated")
        columns = dict((*_columns(OBSERVATIONS, observations), *_columns(ACTIONS, actions)))
        if module_actions is not None:
            columns |= dict(_columns(MODULE_ACTIONS, module_actions))
        books = {"lengths": steps, "terminated": bool(terminated), "truncated": bool(truncated)}
        books["seeds"] = -1 if seed is None else seed
        self._episodes.append({**books, "rewards": np.asarray(rewards, np.float64), **columns})

    def close(self, complete: bool = True) -> None:
        """Write the file, or with `complete=False` leave none."""
        try:
            if complete and self._episodes:
                self._write()
        finally:
            self.output.discard()

    def _write(self) -> None:
        first = self._episodes[0]
        for episode in self._episodes:
            if set(episode) != set(first):
                raise UsageError(
                    f"cannot record episodes with {sorted(first)} and {sorted(episode)} in one file"
                )
        arrays: dict[str, Any] = {"format": FORMAT, "about": json.dumps(self.about, default=str)}
        for name, value in first.items():
            parts = [episode[name] for episode in self._episodes]
            arrays[name] = np.concatenate(parts) if np.ndim(value) else np.asarray(parts)
        with self.output.temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        self.output.finish()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.close(complete=kind is None)


class RecordEpisodes(gym.Wrapper):
    """Records the episodes somebody plays in an environment of one agent: with a policy of their own, by hand.

        with RecordEpisodes(gym.make("CartPole-v1"), "data.npz") as env: …

    `close` writes the file. An episode that is left before its end is truncated there.

    Args:
        env: any Gymnasium environment.
        path: of the file, ending in .npz.
        **about: goes into the file, for people.
    """

    def __init__(self, env: gym.Env, path: str | Path, **about: Any):
        super().__init__(env)
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self.writer = EpisodeWriter(path, {"env": name, **about})
        self._lists: tuple[list[Any], list[Any], list[float]] = ([], [], [])
        self._seed: int | None = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self._end(False, True)
        observation, info = self.env.reset(seed=seed, options=options)
        self._lists, self._seed = ([_copy(observation)], [], []), seed
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        sent = _copy(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        for values, value in zip(self._lists, (_copy(observation), sent, float(reward)), strict=True):
            values.append(value)
        if terminated or truncated:
            self._end(bool(terminated), bool(truncated))
        return observation, reward, terminated, truncated, info

    def _end(self, terminated: bool, truncated: bool) -> None:
        if self._lists[1]:
            self.writer.add(*self._lists, terminated=terminated, truncated=truncated, seed=self._seed)
        self._lists = ([], [], [])

    def close(self) -> None:
        self._end(False, True)
        self.writer.close()
        super().close()


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(part) for key, part in value.items()}
    return tuple(_copy(part) for part in value) if isinstance(value, tuple) else np.array(value)


def _columns(name: str, values: list[Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the flat arrays of a list of nested values."""
    first = values[0]
    if isinstance(first, Mapping):
        for key in first:
            yield from _columns(f"{name}/{key}", [value[key] for value in values])
    elif isinstance(first, tuple):
        for k in range(len(first)):
            yield from _columns(f"{name}/{k}", [value[k] for value in values])
    else:
        yield name, np.stack([np.asarray(value) for value in values])


def _leaves(name: str, space: gym.Space) -> Iterator[tuple[str, gym.Space]]:
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(f"{name}/{key}", part)
    elif isinstance(space, gym.spaces.Tuple):
        for k, part in enumerate(space.spaces):
            yield from _leaves(f"{name}/{k}", part)
    else:
        yield name, space


def _range(space: gym.Space, bounded: bool) -> tuple[Any, Any]:
    """Return the least and the greatest value; (None, None) where any number will do."""
    if isinstance(space, gym.spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, gym.spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, gym.spaces.MultiBinary):
        return 0, 1
    if isinstance(space, gym.spaces.Box) and bounded:
        slack = 1e-5 * np.maximum(1.0, np.abs(np.nan_to_num(space.high.astype(np.float64), posinf=0.0)))
        return space.low - slack, space.high + slack
    return None, None
