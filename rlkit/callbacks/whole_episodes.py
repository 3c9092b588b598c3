"""Fragments held back until their episode ends, then joined into one piece."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import tree
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from rlkit.callbacks.episode_data import agent_steps_of, clone, original, rebuilt
from rlkit.rllib import share_hanging_rewards

Episode = Any  # SingleAgentEpisode or MultiAgentEpisode


class WholeEpisodes:
    """Collects the fragments `sample()` returns and gives back episodes that are complete."""

    def __init__(self) -> None:
        self._held: dict[str, list[Episode]] = {}

    def add(self, fragments: Iterable[Episode], ongoing: Collection[str]) -> list[Episode]:
        """Take new fragments; return every episode that is done now, as one piece.

        Args:
            ongoing: ids of the episodes the runner goes on with. Held fragments of any other episode were
                cut off by a forced reset; they are returned as they are, not done.
        """
        ready: list[Episode] = []
        for fragment in fragments:
            pieces = self._held.setdefault(fragment.id_, [])
            pieces.append(fragment)
            if fragment.is_done:
                ready.append(join(self._held.pop(fragment.id_)))
        for lost in [id for id in self._held if id not in ongoing]:
            ready.append(join(self._held.pop(lost)))
        return ready


def join(pieces: list[Episode]) -> Episode:
    """Return the fragments of one episode as one new episode; the fragments are left as they are."""
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(pieces[0], SingleAgentEpisode):
        return _join_single(pieces)
    return _join_multi(pieces)


def _join_single(pieces: list[SingleAgentEpisode]) -> SingleAgentEpisode:
    pieces = [p for p in pieces if len(p) > 0] or pieces[-1:]
    first, last = pieces[0], pieces[-1]
    for before, after in itertools.pairwise(pieces):
        if before.t != after.t_started:
            raise ValueError(
                f"episode {first.id_}: a fragment ends at step {before.t}, the next begins at {after.t_started}"
            )
    whole = clone(last)
    for name in ("observations", "infos"):
        buffers = [getattr(p, name) for p in pieces]
        setattr(whole, name, _concatenated(buffers, drop_last=True))
    whole.actions = _concatenated([p.actions for p in pieces])
    whole.rewards = _concatenated([p.rewards for p in pieces])
    whole.extra_model_outputs = {
        name: _concatenated([p.extra_model_outputs[name] for p in pieces])
        for name in last.extra_model_outputs
    }
    whole.t_started = first.t_started
    return whole


def _concatenated(buffers: list[InfiniteLookbackBuffer], drop_last: bool = False) -> InfiniteLookbackBuffer:
    """Join buffers behind the lookback of the first.

    With `drop_last` each but the last gives up its final entry, which is the first of the next.
    """
    parts = [original(b) for b in buffers]
    if isinstance(parts[0], list):
        data: Any = []
        for i, part in enumerate(parts):
            data = data + (part[:-1] if drop_last and i < len(parts) - 1 else part)
        return rebuilt(buffers[0], data)
    ends = [-1 if drop_last and i < len(parts) - 1 else None for i in range(len(parts))]
    data = tree.map_structure(
        lambda *leaves: np.concatenate([leaf[:end] for leaf, end in zip(leaves, ends, strict=True)]), *parts
    )
    return rebuilt(buffers[0], data)


def _join_multi(pieces: list[MultiAgentEpisode]) -> MultiAgentEpisode:
    first, last = pieces[0], pieces[-1]
    whole = copy.copy(last)
    whole.env_t_started = first.env_t_started
    whole.agent_t_started = copy.copy(first.agent_t_started)
    share_hanging_rewards(first, whole)
    whole.agent_episodes, whole.env_t_to_agent_t = {}, copy.copy(last.env_t_to_agent_t)
    agents = {agent: None for piece in pieces for agent in piece.agent_episodes}
    for agent in agents:
        own = [piece.agent_episodes[agent] for piece in pieces if agent in piece.agent_episodes]
        whole.agent_episodes[agent] = _join_single(own)
        whole.agent_t_started.setdefault(agent, own[0].t_started)
        whole.env_t_to_agent_t[agent] = _steps_of(agent, pieces)
    return whole


def _steps_of(agent: Any, pieces: list[MultiAgentEpisode]) -> InfiniteLookbackBuffer:
    """The agent's step number at each environment step of the joined pieces, 'S' where it took none."""
    steps: list[Any] = []
    first = pieces[0]
    for piece in pieces:
        buffer = piece.env_t_to_agent_t.get(agent)
        own = [] if buffer is None else agent_steps_of(piece, agent)[buffer.lookback :]
        size = piece.env_t - piece.env_t_started + 1
        own += [piece.SKIP_ENV_TS_TAG] * (size - len(own))
        steps = steps + own[1:] if steps else own  # the next piece leaves out who is done
    known = first.env_t_to_agent_t.get(agent)
    lookback = list(known.data[: known.lookback]) if known is not None else []
    return InfiniteLookbackBuffer(data=lookback + steps, lookback=len(lookback))
