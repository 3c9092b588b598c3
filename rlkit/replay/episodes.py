"""RLlib's episodes as fragments of columns: per agent, or jointly with all agents of an environment step in one row.

An env runner returns whole fragments: `SingleAgentEpisode` or `MultiAgentEpisode` chunks with a lookback
buffer in front that belongs to the chunk before. Only what follows the lookback is read here.

Two flags of RLlib 2.60 need care. A `MultiAgentEpisode` in which every agent is done calls itself terminated
even if all of them were truncated, and passes that on to each agent (`add_env_step`, case 2): there,
"terminated and truncated" means truncated, and the last observation is bootstrapped from. In a
`SingleAgentEpisode` the environment itself said both, and termination wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlkit.errors import UsageError
from rlkit.replay.buffer import ACTIONS, OBS, REWARDS, STATE_IN, TERMINATEDS, TRUNCATEDS
from rlkit.replay.columns import Column
from rlkit.replay.ring import Fragment

STATE_OUT = "state_out"


def agent_episodes(
    episodes: Iterable[Any], default_module: str
) -> Iterator[tuple[str, str, SingleAgentEpisode, MultiAgentEpisode | None]]:
    """Yield (module, key, one agent's episode, the one of all agents or None), of all agents that made a step."""
    for episode in episodes:
        if isinstance(episode, MultiAgentEpisode):
            for agent, part in episode.agent_episodes.items():
                if len(part):
                    yield part.module_id or episode.module_for(agent), f"{episode.id_}/{agent}", part, episode
        elif len(episode):
            yield default_module, episode.id_, episode, None


def agent_fragments(
    episodes: Iterable[Any],
    *,
    default_module: str,
    extras: Sequence[str] | Mapping[str, Sequence[str]] = (),
    initial_state: Callable[[str], Any] | None = None,
) -> dict[str, list[Fragment]]:
    """Split episodes into one list of fragments per module.

    Args:
        episodes: Single- or MultiAgentEpisodes as an env runner returns them.
        default_module: The module of single-agent episodes.
        extras: Further step columns, of all modules or by module: `infos/<key>` is the value in the info returned by
            the step, `extra/<key>` an extra model output (for example `action_logp`).
        initial_state: For recurrent modules: module id -> its initial state (numpy, nested), or None for
            modules without one. Adds the state column `state_in`.

    Raises:
        ValueError: an extra column that an episode does not have.
    """
    fragments: dict[str, list[Fragment]] = {}
    for module, key, part, together in agent_episodes(episodes, default_module):
        fragments.setdefault(module, []).append(
            _fragment(
                part,
                key,
                together is not None and together.is_done,
                extras.get(module, ()) if isinstance(extras, Mapping) else extras,
                initial_state(module) if initial_state else None,
                both_means_truncated=together is not None,
            )
        )
    return fragments


def _fragment(
    episode: SingleAgentEpisode,
    key: str,
    over: bool,
    extras: Sequence[str],
    initial_state: Any,
    both_means_truncated: bool = False,
) -> Fragment:
    if not episode.is_numpy:
        episode.to_numpy()
    length = len(episode)
    terminated, truncated = _flags(episode, both_means_truncated)
    states: dict[str, Any] = {OBS: rows(episode.observations)}
    steps: dict[str, Any] = {
        ACTIONS: rows(episode.actions),
        REWARDS: rows(episode.rewards),
        TERMINATEDS: _at_end(length, terminated),
        TRUNCATEDS: _at_end(length, truncated),
    }
    for name in extras:
        steps[name] = _extra(episode, name, key)
    if initial_state is not None:
        states[STATE_IN] = _states_in(episode, initial_state)
    return Fragment(key, episode.t_started, length, states, steps, done=episode.is_done or over)


def _flags(episode: SingleAgentEpisode, both_means_truncated: bool) -> tuple[bool, bool]:
    terminated, truncated = bool(episode.is_terminated), bool(episode.is_truncated)
    if terminated and truncated and both_means_truncated:
        terminated = False
    return terminated, truncated and not terminated


def _at_end(length: int, flag: bool) -> np.ndarray:
    flags = np.zeros(length, bool)
    flags[-1] = flag
    return flags


def rows(buffer: Any) -> Any:
    """Return the data of an `InfiniteLookbackBuffer` without its lookback, nested like the data."""
    return _cut(buffer.data, buffer.lookback)


def _cut(data: Any, start: int) -> Any:
    if isinstance(data, Mapping):
        return {k: _cut(v, start) for k, v in data.items()}
    if isinstance(data, tuple):
        return tuple(_cut(v, start) for v in data)
    return data[start:]


def _extra(episode: SingleAgentEpisode, name: str, key: str) -> Any:
    source, _, field = name.partition("/")
    try:
        if source == "infos":
            return np.asarray([info[field] for info in rows(episode.infos)[1:]])
        return rows(episode.extra_model_outputs[field])
    except (KeyError, TypeError) as error:
        has = (
            sorted(rows(episode.infos)[-1] or {})
            if source == "infos"
            else sorted(episode.extra_model_outputs)
        )
        raise ValueError(
            f"episode {key}: the replay column {name!r} is missing, got {source} {has}"
        ) from error


def _states_in(episode: SingleAgentEpisode, initial_state: Any) -> Any:
    """Return the recurrent state before each step and after the last one, T + 1 rows."""
    out = episode.extra_model_outputs[STATE_OUT]

    def join(first: Any, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {k: join(first[k], v) for k, v in data.items()}
        before = data[out.lookback - 1] if episode.t_started and out.lookback else first
        return np.concatenate([np.asarray(before)[None], data[out.lookback :]])

    return join(initial_state, out.data)


# Joint rows
# -----------------------------------------------------------------------------------------------------------

ACTED, PRESENT, EXTRAS = "acted", "present", "extras"


def joint_columns(
    agents: Sequence[str], observation_spaces: Mapping[str, Any], action_spaces: Mapping[str, Any]
) -> tuple[dict[str, Column], dict[str, Column]]:
    """Return the state and step columns of joint rows.

    States: `obs` nested by agent, and `present` (N,), whether the agent has an observation. Steps: `actions`
    nested by agent, and `acted` (N,), whether it acted on it: the mask of its losses.
    """
    from gymnasium.spaces import Dict

    states = {
        OBS: Column.of(OBS, Dict({a: observation_spaces[a] for a in agents})),
        PRESENT: Column.of(PRESENT, shape=(len(agents),), dtype=bool),
    }
    steps = {
        ACTIONS: Column.of(ACTIONS, Dict({a: action_spaces[a] for a in agents})),
        ACTED: Column.of(ACTED, shape=(len(agents),), dtype=bool),
    }
    return states, steps


def joint_fragments(
    episodes: Iterable[MultiAgentEpisode],
    agents: Sequence[str],
    states: Mapping[str, Column],
    steps: Mapping[str, Column],
    *,
    extras: Sequence[str] = (),
) -> Iterator[Fragment]:
    """Return one fragment per episode chunk: T environment steps, all agents aligned, zeros where one is absent.

    A reward that arrives for an agent between two of its turns is in the row of the action it answers.

    Args:
        episodes: as a multi-agent runner returns them.
        agents: of the joint row, in its order.
        states, steps: the columns, as `joint_columns` makes them.
        extras: names of extra model outputs; they stand in the step column `EXTRAS`, {name: {agent: (T, ...)}}, of the
            agents that have them.

    Raises:
        ValueError: an episode with an agent that is not one of `agents`.
        UsageError: a fragment that begins between an agent's action and its next observation.
    """
    for episode in episodes:
        unknown = set(episode.agent_episodes) - set(agents)
        if unknown:
            raise ValueError(
                f"episode {episode.id_} has the agents {sorted(unknown, key=str)}, expected only {list(agents)}"
            )
        length = episode.env_t - episode.env_t_started
        if length < 1:
            continue
        fragment = _joint(episode, agents, length, states[OBS], steps[ACTIONS])
        if extras:
            found = {name: _extras(episode, agents, name, fragment.steps[ACTED]) for name in extras}
            fragment = replace(fragment, steps={**fragment.steps, EXTRAS: found})
        yield fragment


def _extras(
    episode: MultiAgentEpisode, agents: Sequence[str], name: str, acted: np.ndarray
) -> dict[str, np.ndarray]:
    """Return an extra model output at the steps of each agent that has it, zeros elsewhere: (T, ...) by agent."""
    found = {}
    for i, agent in enumerate(agents):
        turns = np.flatnonzero(acted[:, i])
        own = episode.agent_episodes.get(agent)
        if own is not None and len(turns) and name in own.extra_model_outputs:
            values = np.asarray(rows(own.extra_model_outputs[name]))[: len(turns)]
            found[agent] = np.zeros((len(acted), *values.shape[1:]), values.dtype)
            found[agent][turns] = values
    return found


def _joint(
    episode: MultiAgentEpisode, agents: Sequence[str], length: int, obs: Column, actions: Column
) -> Fragment:
    count = len(agents)
    data = {
        OBS: {leaf.path: np.zeros((length + 1, *leaf.shape), leaf.dtype) for leaf in obs.leaves},
        ACTIONS: {leaf.path: np.zeros((length, *leaf.shape), leaf.dtype) for leaf in actions.leaves},
    }
    present = np.zeros((length + 1, count), bool)
    acted, terminated, truncated = (np.zeros((length, count), bool) for _ in range(3))
    rewards = np.zeros((length, count), np.float32)
    for i, agent in enumerate(agents):
        agent_episode = episode.agent_episodes.get(agent)
        if agent_episode is None or agent not in episode.env_t_to_agent_t:
            continue
        if not agent_episode.is_numpy:
            agent_episode.to_numpy()
        times = _agent_times(episode, agent, length)
        seen = np.flatnonzero(times >= 0)
        if 0 < len(agent_episode) >= len(seen):
            raise UsageError(
                f"agent {agent!r} acted before step {episode.env_t_started}, where a fragment ends, and observed the "
                f"outcome after it: a joint row cannot hold that. Fix: agents that take turns or pause need whole "
                f"episodes, `config: {{env_runners: {{batch_mode: complete_episodes}}}}`"
            )
        present[seen, i] = True
        # Observation k of this chunk sits at env step seen[k]; action k was taken there if step k was completed.
        turns = seen[: len(agent_episode)]
        acted[turns, i] = True
        rewards[turns, i] = rows(agent_episode.rewards)[: len(turns)]
        for leaf in obs.leaves:
            if leaf.path[0] == agent:
                data[OBS][leaf.path][seen] = _leaf(rows(agent_episode.observations), leaf.path[1:])[
                    : len(seen)
                ]
        for leaf in actions.leaves:
            if leaf.path[0] == agent:
                data[ACTIONS][leaf.path][turns] = _leaf(rows(agent_episode.actions), leaf.path[1:])[
                    : len(turns)
                ]
        if agent_episode.is_done and len(turns):
            terminated[turns[-1], i], truncated[turns[-1], i] = _flags(agent_episode, True)
    return Fragment(
        episode.id_,
        episode.env_t_started,
        length,
        {OBS: obs.nest(list(data[OBS].values())), PRESENT: present},
        {
            ACTIONS: actions.nest(list(data[ACTIONS].values())),
            ACTED: acted,
            REWARDS: rewards,
            TERMINATEDS: terminated,
            TRUNCATEDS: truncated,
        },
        done=episode.is_done,
    )


def _agent_times(episode: MultiAgentEpisode, agent: str, length: int) -> np.ndarray:
    """Return the agent's own time at each env step of the chunk, -1 where it has no observation, (T + 1,)."""
    mapping = episode.env_t_to_agent_t[agent]
    values = list(mapping.data[mapping.lookback :])[: length + 1]
    values += [episode.SKIP_ENV_TS_TAG] * (length + 1 - len(values))
    return np.array([-1 if v == episode.SKIP_ENV_TS_TAG else int(v) for v in values])


def _leaf(value: Any, path: Sequence[str | int]) -> np.ndarray:
    for key in path:
        value = value[key]
    return np.asarray(value)
