"""One agent's part of a sampled episode as arrays, edited without touching what RLlib reports.

T steps of one agent: observations and infos have T + 1 entries (the last one is where the piece ends),
everything else has T. Arrays are copied when first read, so the episode that RLlib's metrics hold keeps its values.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import tree
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from rlkit.callbacks.episode_data import (
    Nested,
    as_arrays,
    checked_column,
    checked_like,
    clone,
    env_steps_of,
    head,
    original,
    rebuilt,
)


class Trajectory:
    """One agent's steps of one episode, or of a fragment of it.

    Attributes:
        id: the episode's id; all agents and fragments of an episode share it.
        agent: the agent's id, None with a single agent.
        module: the RLModule that plays it.
        start: the agent's step at which this piece begins, 0 for a whole episode.
        env_steps: (T,) int, the environment step at which each action was taken.
        terminated, truncated: whether the agent's episode ends with this piece, and how.
        gamma: the discount of the agent's algorithm.
    """

    def __init__(
        self, episode: SingleAgentEpisode, *, id: str, env_steps: np.ndarray | None = None, gamma: float = 1.0
    ):
        self._episode = episode
        self._edits: dict[str, Any] = {}
        self._env_steps = env_steps
        self._columns: EpisodeColumns | None = None
        self.id = id
        self.agent = episode.agent_id
        self.module = episode.module_id
        self.start: int = episode.t_started
        self.terminated: bool = episode.is_terminated
        self.truncated: bool = episode.is_truncated
        self.gamma = gamma

    def __len__(self) -> int:
        return len(self._episode)

    @property
    def columns(self) -> EpisodeColumns:
        """What the module put out at each step, and what you add: {name: (T, …)}."""
        if self._columns is None:
            self._columns = EpisodeColumns(self._episode)
        return self._columns

    @property
    def observations(self) -> Nested:
        """(T + 1, …), as the environment gave them, nested like the observation space."""
        return self._read("observations", self._episode.observations)

    @observations.setter
    def observations(self, value: Nested) -> None:
        self._edits["observations"] = value

    @property
    def actions(self) -> Nested:
        """(T, …), as the module chose them: before clipping or rescaling to the environment's bounds."""
        return self._read("actions", self._episode.actions)

    @actions.setter
    def actions(self, value: Nested) -> None:
        self._edits["actions"] = value

    @property
    def rewards(self) -> np.ndarray:
        """(T,) float."""
        if "rewards" not in self._edits:
            self._edits["rewards"] = np.array(original(self._episode.rewards), dtype=np.float64)
        rewards: np.ndarray = self._edits["rewards"]
        return rewards

    @rewards.setter
    def rewards(self, value: np.ndarray) -> None:
        self._edits["rewards"] = value

    @property
    def infos(self) -> list[dict[str, Any]]:
        """T + 1 info dicts. They are the environment's own objects: replace entries, do not change them."""
        if "infos" not in self._edits:
            self._edits["infos"] = list(original(self._episode.infos))
        infos: list[dict[str, Any]] = self._edits["infos"]
        return infos

    @property
    def env_steps(self) -> np.ndarray:
        if self._env_steps is None:
            self._env_steps = np.arange(self.start, self.start + len(self) + 1)
        return self._env_steps[:-1]

    @property
    def last_env_step(self) -> int:
        """The environment step of the last observation."""
        _ = self.env_steps
        return int(self._env_steps[-1])  # type: ignore[index]

    @property
    def done(self) -> bool:
        """Whether the agent's episode ends with this piece."""
        return self.terminated or self.truncated

    def peek_rewards(self) -> np.ndarray:
        """Return the rewards (T,) for reading only, without making them an edit."""
        return np.asarray(self._edits.get("rewards", original(self._episode.rewards)))

    def copy(self, length: int | None = None) -> Trajectory:
        """Return a further trajectory for the learner, with the edits made so far and an id of its own.

        Args:
            length: keep only the first `length` steps; the rest is cut off, and the copy is then neither
                terminated nor truncated until you say so.
        """
        other = copy.copy(self)
        size = len(self) if length is None else length
        piece = clone(self._episode)
        for name, extra in (("observations", 1), ("infos", 1), ("actions", 0), ("rewards", 0)):
            data = self._edits.get(name, original(getattr(self._episode, name)))
            setattr(piece, name, rebuilt(getattr(self._episode, name), head(data, size + extra), lookback=0))
        piece.extra_model_outputs = {
            name: rebuilt(None, head(self.columns.peek(name), size), lookback=0) for name in self.columns
        }
        piece.t = piece.t_started + size
        piece.id_ = uuid.uuid4().hex
        other._episode, other._edits, other._columns, other.id = piece, {}, None, piece.id_
        other._env_steps = None if self._env_steps is None else self._env_steps[: size + 1]
        if size < len(self):
            other.terminated = other.truncated = piece.is_terminated = piece.is_truncated = False
        return other

    def peek_observations(self) -> Nested:
        """Return the observations (T + 1, …) for reading only, without a copy."""
        return (
            self._edits["observations"]
            if "observations" in self._edits
            else as_arrays(self._episode.observations)
        )

    def _read(self, name: str, buffer: InfiniteLookbackBuffer) -> Nested:
        if name not in self._edits:
            self._edits[name] = tree.map_structure(np.array, as_arrays(buffer))
        return self._edits[name]

    # back to an episode

    def to_episode(self) -> SingleAgentEpisode:
        """Return an episode with the edits, checked; the original when nothing was read or written.

        Raises:
            ValueError: an edited array has the wrong length, shape or dtype, or holds NaN or inf.
        """
        source = self._episode
        ends = (self.terminated, self.truncated) != (source.is_terminated, source.is_truncated)
        added = self._columns.changed if self._columns is not None else {}
        if not self._edits and not added and not ends:
            return source
        episode = clone(source)
        size = len(self)
        for name, value in self._edits.items():
            buffer = getattr(source, name)
            if name == "rewards":
                value = checked_column("rewards", value, size, scalar=True)
            elif name == "infos":
                if len(value) != size + 1:
                    raise ValueError(f"infos has {len(value)} entries, expected {size + 1}")
            else:
                expected = original(buffer) if buffer.finalized else as_arrays(buffer)
                value = checked_like(name, value, expected)
            setattr(episode, name, rebuilt(buffer, value))
        if added:
            episode.extra_model_outputs = dict(source.extra_model_outputs)
            for name in added:
                episode.extra_model_outputs[name] = rebuilt(
                    source.extra_model_outputs.get(name, source.rewards if size else None),
                    tree.map_structure(lambda c, n=name: checked_column(n, c, size), added[name]),
                    fill=name not in source.extra_model_outputs,
                )
        episode.is_terminated, episode.is_truncated = self.terminated, self.truncated
        return episode


class EpisodeColumns(MutableMapping[str, Any]):
    """The model's outputs of each step by RLlib's names (`action_logp`, `vf_preds`, …), and columns you add.

    Every entry is (T, …). It travels with the episode into the train batch under the same name.
    """

    def __init__(self, episode: SingleAgentEpisode):
        self._source = episode.extra_model_outputs
        self.changed: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self.changed:
            self.changed[name] = tree.map_structure(np.array, as_arrays(self._source[name]))
        return self.changed[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.changed[name] = value

    def __delitem__(self, name: str) -> None:
        if name in self._source:
            raise KeyError(f"the module's own output {name!r} cannot be removed")
        del self.changed[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._source, **self.changed})

    def __len__(self) -> int:
        return len({**self._source, **self.changed})

    def peek(self, name: str) -> Any:
        """Return a column without making it an edited one."""
        return self.changed[name] if name in self.changed else original(self._source[name])


class Aligned:
    """Another agent of the same episode, seen at one agent's steps. Read only; always what the environment gave.

    Attributes:
        agent, module: who it is.
        trajectory: its own steps, unaligned.
    """

    def __init__(self, trajectory: Trajectory, steps: np.ndarray):
        self.trajectory = trajectory
        self.agent, self.module = trajectory.agent, trajectory.module
        own = np.append(trajectory.env_steps, trajectory.last_env_step)
        place = np.searchsorted(own, steps)
        place[place == len(own)] = 0
        self._seen = own[place] == steps if len(own) else np.zeros(len(steps), bool)
        self._place = place

    @property
    def present(self) -> np.ndarray:
        """(T,) bool: it acted at the same environment step."""
        return self._seen[:-1] & (self._place[:-1] < len(self.trajectory))

    @property
    def observed(self) -> np.ndarray:
        """(T + 1,) bool: it had an observation at the same environment step."""
        return self._seen

    @property
    def observations(self) -> Nested:
        """(T + 1, …), zeros where it was absent."""
        return self._take(self.trajectory._episode.observations, self._place, self._seen)

    @property
    def actions(self) -> Nested:
        """(T, …), zeros where it was absent."""
        return self._take(self.trajectory._episode.actions, self._place[:-1], self.present)

    @property
    def rewards(self) -> np.ndarray:
        """(T,), zeros where it was absent."""
        rewards: np.ndarray = self._take(self.trajectory._episode.rewards, self._place[:-1], self.present)
        return rewards

    def _take(self, buffer: InfiniteLookbackBuffer, place: np.ndarray, present: np.ndarray) -> Nested:
        def aligned(values: np.ndarray) -> np.ndarray:
            out = np.zeros((len(place), *values.shape[1:]), values.dtype)
            out[present] = values[place[present]]
            return out

        return tree.map_structure(aligned, as_arrays(buffer))


def trajectories_of(episode: MultiAgentEpisode, gamma: Mapping[Any, float]) -> dict[Any, Trajectory]:
    """Return each agent's trajectory, in sorted order; agents without a step in this piece are left out."""
    return {
        agent: Trajectory(
            sa, id=episode.id_, env_steps=env_steps_of(episode, agent), gamma=gamma.get(sa.module_id, 1.0)
        )
        for agent, sa in sorted(episode.agent_episodes.items(), key=lambda item: str(item[0]))
        if len(sa) > 0
    }
