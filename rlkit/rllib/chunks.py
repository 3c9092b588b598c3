"""Episode objects from outside: chunks of them, open actions, buffers."""

from __future__ import annotations

import copy
from typing import Any


def refresh_spaces(episode: Any, env: Any) -> None:
    """Give a MultiAgentEpisode, created a moment ago, the spaces of an environment that was built anew since.

    `MultiAgentEnvRunner._new_episode` (2.60) reads them before `on_episode_created` can change the environment.
    """
    env = env.unwrapped
    episode.observation_space = {agent: env.get_observation_space(agent) for agent in env.possible_agents}
    episode.action_space = {agent: env.get_action_space(agent) for agent in env.possible_agents}


def hanging_actions(episode: Any) -> dict[Any, Any]:
    """Return the actions of a MultiAgentEpisode whose agents have not observed their outcome yet, by agent.

    In turn-based games an action enters its agent's own episode only with that agent's next observation (2.60:
    `_hanging_actions_end`, no accessor).
    """
    return episode._hanging_actions_end


def share_hanging_rewards(first: Any, joined: Any) -> None:
    """Let the whole of a MultiAgentEpisode begin with the rewards its first piece had not given away yet (2.60)."""
    joined._hanging_rewards_begin = first._hanging_rewards_begin


def share_custom_data(episode: Any, successor: Any) -> None:
    """Let the next chunk of a MultiAgentEpisode go on with what hooks kept in `custom_data` (2.60, no setter)."""
    successor._custom_data = episode._custom_data


def fill_episode(
    episode: Any,
    *,
    agents: dict[str, dict[str, Any]],
    started: int,
    length: int,
    terminated: bool,
    truncated: bool,
    seconds: float,
) -> None:
    """Put a whole chunk of steps, all agents in every one of them, into an empty MultiAgentEpisode at once.

    `add_env_step` (2.60, multi_agent_episode.py) does it step by step: 60 us for three agents.

    Args:
        agents: for each agent the arguments of its SingleAgentEpisode.
        started: index of the first step in the episode.
        length: how many steps.
        seconds: what `get_duration_s` returns.
    """
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode
    from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

    for agent, given in agents.items():
        episode.agent_episodes[agent] = SingleAgentEpisode(
            agent_id=agent,
            module_id=episode.module_for(agent),
            multi_agent_episode_id=episode.id_,
            t_started=started,
            len_lookback_buffer=0,
            **given,
        )
        # counted from the chunk's start: `get_actions(-1)` compares an agent's own time with the length of the
        # chunk (2.60, `_get_inf_lookback_buffer_or_dict`) and finds nothing where they happen to be equal
        episode.env_t_to_agent_t[agent] = InfiniteLookbackBuffer(list(range(length + 1)))
        episode.agent_t_started[agent] = 0
    episode.env_t_started, episode.env_t = started, started + length
    episode.is_terminated, episode.is_truncated = terminated, truncated
    episode._start_time, episode._last_step_time = 0.0, seconds


def refill(episode: Any, made: Any, seconds: float) -> None:
    """Put the steps of `made` into a SingleAgentEpisode that hooks know; its `custom_data` stays (2.60: `__slots__`).

    Args:
        seconds: what `get_duration_s` returns.
    """
    for name in type(made).__slots__:
        if name != "_custom_data":
            setattr(episode, name, getattr(made, name))
    episode._start_time, episode._last_step_time = 0.0, seconds


def lookback_buffer(data: Any, *, lookback: int, finalized: bool, like: Any = None) -> Any:
    """Return an InfiniteLookbackBuffer around `data` as it is, with the space of another one.

    The constructor (2.60) looks through the data; a buffer that is built for every edited trajectory cannot wait.
    """
    from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

    new = InfiniteLookbackBuffer.__new__(InfiniteLookbackBuffer)
    new._space, new._space_struct = (None, None) if like is None else (like._space, like._space_struct)
    new.data, new.lookback, new.finalized = data, lookback, finalized
    return new


def copy_of(episode: Any) -> Any:
    """Return an episode with buffers of its own; the arrays in them are shared, but for rewards."""
    new = copy.copy(episode)
    agents = getattr(episode, "agent_episodes", None)
    if agents is not None:
        new.agent_episodes = {agent: copy_of(one) for agent, one in agents.items()}
        new.env_t_to_agent_t = copy.copy(episode.env_t_to_agent_t)
        return new
    for name in ("observations", "infos", "actions", "rewards"):
        setattr(new, name, _copy_of_buffer(getattr(episode, name)))
    new.rewards.data = copy.copy(new.rewards.data)
    new.extra_model_outputs = {k: _copy_of_buffer(b) for k, b in episode.extra_model_outputs.items()}
    return new


def _copy_of_buffer(buffer: Any) -> Any:
    """`append` and `extend` of an InfiniteLookbackBuffer (2.60) replace arrays and change lists."""
    new = copy.copy(buffer)
    if isinstance(new.data, list):
        new.data = list(new.data)
    return new
