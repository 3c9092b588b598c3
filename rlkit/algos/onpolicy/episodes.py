"""RLlib's episodes as fragments: the slow way to the same arrays, for every runner and any number of agents.

The chunks of a module are laid behind each other as one long environment. After each chunk comes the row of its last
observation, which is `fresh`: no step, as the reset of an array runner's environment. So a chunk that was cut
bootstraps from its last observation, and nothing is carried over its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns

from rlkit.algos.learning.minibatches import map_arrays
from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.replay.buffer import ACTIONS, OBS, REWARDS, STATE_IN, TERMINATEDS, TRUNCATEDS
from rlkit.replay.episodes import agent_episodes, agent_fragments
from rlkit.replay.ring import Fragment

MADE_BY_RUNNERS = (Columns.STATE_OUT, "weights_seq_no")


def fragments_of(
    episodes: Sequence[Any], *, default_module: str, initial_state: Callable[[str], Any] | None = None
) -> dict[str, ArrayFragment]:
    """Return one fragment (T, 1) for each module that played in the episodes.

    Args:
        episodes: Single- or MultiAgentEpisodes as an env runner returns them.
        default_module: the module of single-agent episodes.
        initial_state: module id -> initial state (numpy, nested), or None for modules without one; None if no module
            has one.
    """
    extras = _shared_columns(episodes, default_module)
    parts = agent_fragments(
        episodes, default_module=default_module, extras=extras, initial_state=initial_state
    )
    return {module: _joined(chunks, extras[module]) for module, chunks in parts.items()}


def _joined(chunks: Sequence[Fragment], extras: Sequence[str]) -> ArrayFragment:
    def steps(name: str) -> Any:
        return _concatenate([map_arrays(chunk.steps[name], _one_more) for chunk in chunks], cut=1)

    def states(name: str) -> Any:
        return _concatenate([chunk.states[name] for chunk in chunks])

    fresh = np.zeros((sum(chunk.length + 1 for chunk in chunks) - 1, 1), bool)
    fresh[np.cumsum([chunk.length + 1 for chunk in chunks])[:-1] - 1] = True
    columns = {name.removeprefix("extra/"): steps(name) for name in extras}
    return ArrayFragment(
        obs=map_arrays(states(OBS), _float32),
        actions=steps(ACTIONS),
        rewards=np.asarray(steps(REWARDS), np.float64),
        terminated=steps(TERMINATEDS),
        truncated=steps(TRUNCATEDS),
        fresh=fresh,
        action_logp=columns.pop(Columns.ACTION_LOGP, None),
        action_dist_inputs=columns.pop(Columns.ACTION_DIST_INPUTS, None),
        states=states(STATE_IN) if chunks[0].states.get(STATE_IN) is not None else None,
        extras=columns,
    )


def _shared_columns(episodes: Iterable[Any], default_module: str) -> dict[str, list[str]]:
    """Return of each module the extra columns that all its agents' episodes have, without those no loss reads."""
    found: dict[str, set[str]] = {}
    for module, _, part, _ in agent_episodes(episodes, default_module):
        names = set(part.extra_model_outputs)
        found[module] = found.get(module, names) & names
    return {
        m: [f"extra/{name}" for name in sorted(names - set(MADE_BY_RUNNERS))] for m, names in found.items()
    }


def _concatenate(parts: Sequence[Any], cut: int = 0) -> Any:
    """Join nested (T, ...) to (sum of T - cut, 1, ...)."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: _concatenate([part[key] for part in parts], cut) for key in first}
    if isinstance(first, tuple):
        return tuple(_concatenate([part[i] for part in parts], cut) for i in range(len(first)))
    whole = np.concatenate([np.asarray(part) for part in parts])
    return whole[: len(whole) - cut, None]


def _one_more(array: np.ndarray) -> np.ndarray:
    """Append the row of the last observation; what stands in it is never read."""
    array = np.asarray(array)
    return np.concatenate([array, np.zeros_like(array[:1])])


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array
