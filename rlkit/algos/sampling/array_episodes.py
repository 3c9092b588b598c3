"""The iterations of one sample, and what becomes of them: RLlib's episodes or one `ArrayFragment`.

Legend: N environments, T iterations, ... the shape of one item. "Nested" means arrays in dicts and tuples, nested like
the space; a plain space is one array. "Chunk" is the part of an episode that one sample holds.

One iteration steps every environment once. An environment whose episode ended in iteration t is reset in iteration
t + 1 (Gymnasium's NEXT_STEP): that row is `fresh`, its action was ignored, its reward is 0, and it is no step. So

    obs[t], actions[t], rewards[t], obs[t + 1]

are a transition wherever `fresh[t]` is false, and `obs[t + 1]` of a step that ended an episode is the true last
observation of that episode, from which a truncated episode bootstraps. `obs[t + 1]` of a fresh row is the first
observation of the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO


@dataclass
class ArrayFragment:
    """T iterations of N environments, in the order they were played.

    Attributes:
        obs: nested (T + 1, N, ...), what the module saw; float64 has become float32. The last row belongs to the
            state in which the next fragment goes on.
        actions: nested (T, N, ...), the module's actions (before they were scaled and clipped for the environment).
        rewards: (T, N) float64, 0 in fresh rows.
        terminated: (T, N) bool, false in fresh rows. Where an environment sets both flags, so do these.
        truncated: (T, N) bool, false in fresh rows.
        fresh: (T, N) bool, rows that are a reset and no step. Learners leave them out.
        action_logp: (T, N) float32, log-probability of the module's action, 0 for a greedy one; None if the module
            chooses without a distribution (DQN).
        action_dist_inputs: (T, N, D) float32, inputs of the distribution; None as above.
        states: nested (T + 1, N, ...) float32, the recurrent state with which the module saw `obs` of that row: the
            initial state in the first row of an episode. None for a module without state.
        extras: nested (T, N, ...) by name, whatever else `forward_exploration` gave.
        times: (N,) int64, steps that the episodes in row 0 had before this fragment.
        infos: T + 1 lists of N dicts, beside `obs`; None unless asked for.
        weights_seq_no: number of the weights that acted.
        runner: index of the env runner.
    """

    obs: Any
    actions: Any
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    fresh: np.ndarray
    action_logp: np.ndarray | None = None
    action_dist_inputs: np.ndarray | None = None
    states: Any = None
    extras: dict[str, Any] = field(default_factory=dict)
    times: np.ndarray | None = None
    infos: list[list[dict[str, Any]]] | None = None
    weights_seq_no: int = 0
    runner: int = 0

    @property
    def done(self) -> np.ndarray:
        """(T, N) bool: the step was the last one of its episode."""
        return self.terminated | self.truncated

    @property
    def env_steps(self) -> int:
        """How many of the T x N rows are steps."""
        return int(self.fresh.size - self.fresh.sum())

    def goes_on(self) -> np.ndarray:
        """(T, N) bool: row t + 1 is the next step of the same episode; a recursion over time carries there.

        The last row does not go on within the fragment; unless `terminated`, it bootstraps from `obs[T]`.
        """
        on = np.zeros(self.fresh.shape, bool)
        on[:-1] = ~self.fresh[:-1] & ~self.done[:-1] & ~self.fresh[1:]
        return on


@dataclass
class Iterations:
    """Lists with one entry (N, ...) per iteration; `obs`, `infos` and `states` have one more, the latest.

    `before` iterations of the sample before stand in front, so that a chunk can look back as RLlib's do.
    """

    obs: list[Any]
    infos: list[list[Any]]
    states: list[Any]  # empty for a module without state
    actions: list[Any] = field(default_factory=list)
    rewards: list[np.ndarray] = field(default_factory=list)
    terminated: list[np.ndarray] = field(default_factory=list)
    truncated: list[np.ndarray] = field(default_factory=list)
    fresh: list[np.ndarray] = field(default_factory=list)
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    before: int = 0

    def last(self, count: int) -> Iterations:
        """Return a new sample that begins behind the last iteration and can look back on `count`."""
        kept = min(count, len(self.rewards))
        first = len(self.rewards) - kept
        return Iterations(
            self.obs[first:], self.infos[first:], self.states[first:], self.actions[first:], self.rewards[first:],
            self.terminated[first:], self.truncated[first:], self.fresh[first:],
            {name: part[first:] for name, part in self.outputs.items()}, kept,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass
class Chunk:
    """Where an episode lies in the iterations: environment, first and last step, and how many come before."""

    row: int
    start: int
    stop: int
    lookback: int

    @property
    def first(self) -> int:
        return self.start - self.lookback


def chunks(iterations: Iterations, clocks: np.ndarray) -> Iterator[Chunk]:
    """Yield where the episodes of a sample lie, environment by environment; parts without a step are left out.

    Args:
        clocks: (N,) steps that the episodes had before the sample.
    """
    begin, length = iterations.before, len(iterations)
    fresh = np.stack(iterations.fresh, axis=1)
    done = np.stack([a | b for a, b in zip(iterations.terminated, iterations.truncated, strict=True)], axis=1)
    for row in range(len(fresh)):
        resets = np.flatnonzero(fresh[row, begin:]) + begin
        starts = [] if fresh[row, begin] else [begin]
        for start in [*starts, *(resets + 1).tolist()]:
            ends = np.flatnonzero(done[row, start:])
            stop = start + int(ends[0]) + 1 if len(ends) else length
            if stop > start:
                lookback = min(begin, int(clocks[row])) if start == begin and starts else 0
                yield Chunk(row, start, stop, lookback)


class EpisodeMaker:
    """Makes RLlib's episodes of chunks.

    Args:
        iterations: the sample; it may still grow while single chunks are made.
        observation_space, action_space: of the module.
        weights: number of the weights that acted.
    """

    def __init__(
        self, iterations: Iterations, observation_space: gym.Space, action_space: gym.Space, weights: int
    ):
        self.iterations, self.weights = iterations, weights
        self.spaces = {"observation_space": observation_space, "action_space": action_space}
        self._columns: dict[str, Any] = {}

    def arrays(self, chunk: Chunk, id_: str, started: int) -> SingleAgentEpisode:
        """Return a chunk as a numpy episode; the sample must be complete."""
        if not self._columns:
            made = self.iterations
            self._columns = {
                "observations": _by_environment(made.obs),
                "actions": _by_environment(made.actions),
                "rewards": _by_environment(made.rewards),
                "outputs": {name: _by_environment(part) for name, part in made.outputs.items()},
            }

        def cut(column: Any, extra: int = 0) -> Any:
            return _map(lambda a: a[chunk.row, chunk.first : chunk.stop + extra], column)

        columns = self._columns
        outputs = {name: cut(part) for name, part in columns["outputs"].items()}
        outputs[WEIGHTS_SEQ_NO] = np.full(chunk.stop - chunk.first, self.weights)
        return self._make(
            chunk, id_, started,
            observations=cut(columns["observations"], 1), actions=cut(columns["actions"]),
            rewards=cut(columns["rewards"]), extra_model_outputs=outputs,
        )  # fmt: skip

    def lists(self, chunk: Chunk, id_: str, started: int) -> SingleAgentEpisode:
        """Return a chunk as an episode of lists, as hooks see it; the sample may go on."""

        def cut(column: Sequence[Any], extra: int = 0) -> list[Any]:
            return [_map(lambda a: a[chunk.row], part) for part in column[chunk.first : chunk.stop + extra]]

        made = self.iterations
        outputs: dict[str, Any] = {name: cut(part) for name, part in made.outputs.items()}
        outputs[WEIGHTS_SEQ_NO] = [self.weights] * (chunk.stop - chunk.first)
        return self._make(
            chunk, id_, started,
            observations=cut(made.obs, 1), actions=cut(made.actions), rewards=cut(made.rewards),
            extra_model_outputs=outputs,
        )  # fmt: skip

    def _make(self, chunk: Chunk, id_: str, started: int, **columns: Any) -> SingleAgentEpisode:
        made, last = self.iterations, chunk.stop - 1
        return SingleAgentEpisode(
            id_,
            infos=[infos[chunk.row] for infos in made.infos[chunk.first : chunk.stop + 1]],
            terminated=bool(made.terminated[last][chunk.row]),
            truncated=bool(made.truncated[last][chunk.row]),
            t_started=started,
            len_lookback_buffer=chunk.lookback,
            **self.spaces,
            **columns,
        )


def fragment_of(
    iterations: Iterations, *, clocks: np.ndarray, infos: bool = False, weights: int = 0, runner: int = 0
) -> ArrayFragment:
    """Return a sample as one fragment.

    Args:
        clocks: (N,) steps that the episodes had before the sample.
        infos: whether to give them along.
        weights: number of the weights that acted.
        runner: index of the env runner.
    """
    begin = iterations.before
    outputs = {
        name: _by_time(part[begin:])
        for name, part in iterations.outputs.items()
        if name not in (Columns.STATE_OUT, Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS)
    }

    def output(name: str) -> Any:
        return _by_time(iterations.outputs[name][begin:]) if name in iterations.outputs else None

    return ArrayFragment(
        obs=_map(_single, _by_time(iterations.obs[begin:])),
        actions=_by_time(iterations.actions[begin:]),
        rewards=np.where(np.stack(iterations.fresh[begin:]), 0.0, np.stack(iterations.rewards[begin:])),
        terminated=np.stack(iterations.terminated[begin:]),
        truncated=np.stack(iterations.truncated[begin:]),
        fresh=np.stack(iterations.fresh[begin:]),
        action_logp=output(Columns.ACTION_LOGP),
        action_dist_inputs=output(Columns.ACTION_DIST_INPUTS),
        states=_by_time(iterations.states[begin:]) if iterations.states else None,
        extras=outputs,
        times=clocks,
        infos=iterations.infos[begin:] if infos else None,
        weights_seq_no=weights,
        runner=runner,
    )


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _by_environment(parts: Sequence[Any]) -> Any:
    """Stack T parts (N, ...) to (N, T, ...)."""
    return _map(lambda *arrays: np.stack(arrays, axis=1), *parts)


def _by_time(parts: Sequence[Any]) -> Any:
    """Stack T parts (N, ...) to (T, N, ...)."""
    return _map(lambda *arrays: np.stack(arrays), *parts)


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    first = trees[0]
    if isinstance(first, Mapping):
        return {key: _map(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, tuple):
        return tuple(_map(function, *parts) for parts in zip(*trees, strict=True))
    return function(*trees)
