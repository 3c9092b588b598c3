"""`EnvEpisode`: RLlib's MultiAgentEpisode, with the environment's own numbers for agents that come, go and take turns.

What RLlib 2.60 (`multi_agent_episode.py`) makes of such an environment, and what is kept here instead:

1. The episode is over when `__all__` says so. RLlib also ends it, as *terminated*, once every agent it has met so far
   is done: while the next agents are coming, and when all agents were truncated.
2. An agent's own flag comes before `__all__`, and termination before truncation. RLlib passes the end of the episode
   on to every agent, so that truncated agents lose the value of their last observation.
3. Rewards before an agent's first action belong to that action. RLlib drops them.
4. `cut` copies what each agent has open (its action without an observation, and the rewards since). RLlib rebuilds it
   from lists, counts open rewards twice, and forgets who is done.
5. `get_actions(-1)` and its like find the step they are asked for in every chunk. RLlib compares an agent's own time,
   counted from the start of the episode, with the length of the chunk.

The inherited slots that are written here have no setters: `_hanging_actions_end`, `_hanging_extra_model_outputs_end`,
`_hanging_rewards_end` (open actions, their model outputs and rewards), `_hanging_rewards_begin` (rewards before the
first action), `_agent_to_module_mapping`, `_custom_data`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping, Set
from typing import Any

from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.error import MultiAgentEnvError

ALL = "__all__"
Dicts = Mapping[Any, Any]


class EnvEpisode(MultiAgentEpisode):
    """An episode, or a chunk of one, as the environment played it.

    Attributes:
        returns: agent -> sum of all its rewards since the reset, over all chunks; those of agents that never act too.
        steps: agent -> number of its actions since the reset, over all chunks.
        acted: the agents that acted in the last step, in the environment's order.
        seconds: duration of the chunks before this one.
    """

    __slots__ = ("_began", "_ended", "_observed", "acted", "returns", "seconds", "steps")

    def __init__(self, id_: str | None = None, **kwargs: Any):
        self.returns: dict[Any, float] = {}
        self.steps: dict[Any, int] = {}
        self.acted: list[Any] = []
        self.seconds = 0.0
        self._ended: dict[Any, int] = {}  # agent -> env step in which it was done
        self._observed: list[Any] = []  # in the last step
        self._began = False
        super().__init__(id_, **kwargs)

    # Adding ------------------------------------------------------------------------------------------------

    def add_env_reset(self, *, observations: Dicts, infos: Dicts | None = None) -> None:
        """Begin with the first observations, by agent."""
        super().add_env_reset(observations=observations, infos=infos)
        self._observed = list(observations)
        self._began = True

    def add_env_step(
        self,
        observations: Dicts,
        actions: Dicts,
        rewards: Dicts,
        infos: Dicts | None = None,
        *,
        terminateds: Dicts | None = None,
        truncateds: Dicts | None = None,
        extra_model_outputs: Dicts | None = None,
    ) -> None:
        """Add one step of the environment; all arguments by agent, as `MultiAgentEnv.step` returns them.

        Raises:
            MultiAgentEnvError: a value for an agent that is done, a truncated agent without its last observation, an
                observation for an agent that has not acted on its last one, or nobody left without `__all__`.
        """
        if self.is_done:
            raise MultiAgentEnvError(f"episode {self.id_} is over; expected no further step")
        infos, terminateds, truncateds = infos or {}, terminateds or {}, truncateds or {}
        outputs = extra_model_outputs or {}
        self.env_t += 1
        self.is_terminated = bool(terminateds.get(ALL, False))  # type: ignore[misc]
        self.is_truncated = bool(truncateds.get(ALL, False)) and not self.is_terminated  # type: ignore[misc]
        self.acted, self._observed = list(actions), list(observations)
        self._refuse_the_dead(observations, rewards)
        given = dict.fromkeys([*actions, *observations, *rewards, *terminateds, *truncateds])
        if self.is_done:
            given.update(dict.fromkeys(self.agent_episodes))
        given.pop(ALL, None)
        for agent in [agent for agent in given if agent not in self._ended]:
            if agent in rewards:
                self._credit(agent, float(rewards[agent] or 0.0))
            if agent in actions:
                self._open(agent, actions[agent], outputs.get(agent))
            terminated, truncated = self._end_of(agent, terminateds, truncateds)
            if agent in observations:
                self._observe(agent, observations[agent], infos.get(agent), terminated, truncated)
            elif (terminated or truncated) and agent in self._hanging_actions_end:
                self._end_unobserved(agent, truncated)
            if terminated or truncated:
                self._ended[agent] = self.env_t
        length = self.env_t - self.env_t_started + 1
        for steps in self.env_t_to_agent_t.values():
            if len(steps) < length:
                steps.append(self.SKIP_ENV_TS_TAG)
        if not self.is_done and self._ended and not self._living():
            raise MultiAgentEnvError(
                f"step {self.env_t}: no agent is left (the last: {self._last_ended()}), got '__all__' False in "
                f"terminateds and truncateds; expected one of them True. Fix: set it when the last agent is done"
            )
        self.validate()
        _count_time(self)

    def _refuse_the_dead(self, observations: Dicts, rewards: Dicts) -> None:
        for name, values in (("an observation", observations), ("a reward", rewards)):
            for agent in values:
                if agent in self._ended:
                    raise MultiAgentEnvError(
                        f"agent {agent!r}, step {self.env_t}: got {name}, but the agent was done in step "
                        f"{self._ended[agent]}; expected nothing. Fix: an agent that is terminated or truncated stays "
                        f"so until the next reset; one that only pauses is not done"
                    )

    def _end_of(self, agent: Any, terminateds: Dicts, truncateds: Dicts) -> tuple[bool, bool]:
        """Return (terminated, truncated) of an agent in this step, at most one of them True."""
        if terminateds.get(agent):
            return True, False
        if truncateds.get(agent):
            return False, True
        return self.is_terminated, self.is_truncated

    def _credit(self, agent: Any, reward: float) -> None:
        """Keep a reward for the agent's open step, or for its first one."""
        self.returns[agent] = self.returns.get(agent, 0.0) + reward
        waiting = (
            self._hanging_rewards_end if agent in self._hanging_actions_end else self._hanging_rewards_begin
        )
        waiting[agent] += reward

    def _open(self, agent: Any, action: Any, outputs: Any) -> None:
        """The agent has acted; its step is complete with its next observation."""
        self.steps[agent] = self.steps.get(agent, 0) + 1
        self._hanging_actions_end[agent] = action
        self._hanging_rewards_end[agent] = self._hanging_rewards_begin.pop(agent, 0.0)
        self._hanging_extra_model_outputs_end[agent] = outputs

    def _observe(self, agent: Any, observation: Any, info: Any, terminated: bool, truncated: bool) -> None:
        if agent in self._hanging_actions_end:
            episode = self.agent_episodes[agent]
            episode.add_env_step(
                observation=observation,
                action=self._hanging_actions_end.pop(agent),
                reward=self._hanging_rewards_end.pop(agent),
                infos=info,
                terminated=terminated,
                truncated=truncated,
                extra_model_outputs=self._hanging_extra_model_outputs_end.pop(agent),
            )
            self.env_t_to_agent_t[agent].append(episode.t)
        elif agent in self.agent_episodes:
            raise MultiAgentEnvError(
                f"agent {agent!r}, step {self.env_t}: got an observation, but the agent has not acted on its last one"
            )
        elif not (terminated or truncated):  # one whose first observation is its last never plays
            self._enter(agent, observation, info)

    def _enter(self, agent: Any, observation: Any, info: Any) -> None:
        """An agent joins."""
        episode = SingleAgentEpisode(
            agent_id=agent,
            module_id=self.module_for(agent),
            multi_agent_episode_id=self.id_,
            observation_space=self.observation_space.get(agent),
            action_space=self.action_space.get(agent),
        )
        episode.add_env_reset(observation=observation, infos=info)
        self.agent_episodes[agent] = episode
        self.returns.setdefault(agent, 0.0)
        back = self._len_lookback_buffers
        before = [self.SKIP_ENV_TS_TAG] * (back + self.env_t - self.env_t_started)
        self.env_t_to_agent_t[agent] = InfiniteLookbackBuffer([*before, 0], lookback=back)

    def _end_unobserved(self, agent: Any, truncated: bool) -> None:
        """An agent is done without a last observation: the one before stands in for it, nobody learns from it."""
        if truncated:
            raise MultiAgentEnvError(
                f"agent {agent!r}, step {self.env_t}: got no last observation of a truncated agent that has acted; "
                f"expected one. Fix: return it, its value is what training bootstraps from"
            )
        self._observe(agent, self.agent_episodes[agent].get_observations(-1), None, True, False)

    def _living(self) -> bool:
        return any(agent not in self._ended for agent in self.agent_episodes)

    def _last_ended(self) -> list[Any]:
        return [agent for agent, step in self._ended.items() if step == self.env_t]

    # Chunks ------------------------------------------------------------------------------------------------

    def cut(self, len_lookback_buffer: int = 0) -> EnvEpisode:
        """Return the next chunk: empty, going on where this one stops.

        Args:
            len_lookback_buffer: env steps to take along; more where an agent's last observation is older. Each agent's
                own last step comes along in any case.

        Raises:
            RuntimeError: the episode is over.
        """
        if self.is_done:
            raise RuntimeError(f"episode {self.id_} is over; it cannot go on in another chunk")
        going = {agent: one for agent, one in self.agent_episodes.items() if agent not in self._ended}
        back = max([len_lookback_buffer, *(self._since_observed(agent) for agent in going)])
        following = type(self)(
            self.id_,
            observation_space=self.observation_space,
            action_space=self.action_space,
            agent_module_ids=dict(self._agent_to_module_mapping),
            agent_to_module_mapping_fn=self.agent_to_module_mapping_fn,
            env_t_started=self.env_t,
        )
        following._len_lookback_buffers = back
        for agent, episode in going.items():
            recent = list(self.env_t_to_agent_t[agent].data[-back - 1 :])
            known = sum(t != self.SKIP_ENV_TS_TAG for t in recent)
            # two observations, so that the last step comes along: its state is the one the next step begins with
            new = episode.cut(len_lookback_buffer=min(max(known, 2), len(episode.observations.data)) - 1)
            new.agent_id, new.module_id = agent, episode.module_id
            new.multi_agent_episode_id = self.id_
            following.agent_episodes[agent] = new
            following.agent_t_started[agent] = episode.t
            missing = [self.SKIP_ENV_TS_TAG] * (back + 1 - len(recent))
            following.env_t_to_agent_t[agent] = InfiniteLookbackBuffer(missing + recent, lookback=back)
        following._hanging_actions_end = dict(self._hanging_actions_end)
        following._hanging_extra_model_outputs_end.update(self._hanging_extra_model_outputs_end)
        following._hanging_rewards_end.update(self._hanging_rewards_end)
        following._hanging_rewards_begin.update(self._hanging_rewards_begin)
        following._custom_data = copy.deepcopy(self.custom_data)
        following.returns, following.steps = dict(self.returns), dict(self.steps)
        following._ended, following._observed = dict(self._ended), list(self._observed)
        following._began = self._began
        following.seconds = self.seconds + self.get_duration_s()
        return following

    def _since_observed(self, agent: Any) -> int:
        """Return how many env steps ago a living agent has observed."""
        data = self.env_t_to_agent_t[agent].data
        return next(i for i, t in enumerate(reversed(data)) if t != self.SKIP_ENV_TS_TAG)

    # Reading -----------------------------------------------------------------------------------------------

    @property
    def is_reset(self) -> bool:
        return self._began

    @property
    def is_numpy(self) -> bool:
        """Also of a chunk in which no agent has completed a step."""
        return bool(self.agent_episodes) and all(one.is_numpy for one in self.agent_episodes.values())

    def to_numpy(self) -> EnvEpisode:
        """Turn lists into arrays, once: RLlib's runner (2.60) asks each finished episode after each step."""
        return self if self.is_numpy else super().to_numpy()

    @property
    def agent_ids(self) -> Set[Any]:
        """In the order in which they came, so that batches have one order; RLlib's has another in every process."""
        return self.agent_episodes.keys()

    def get_agents_that_stepped(self) -> Set[Any]:
        return {agent: None for agent in self._observed if agent in self.agent_episodes}.keys()

    def get_agents_to_act(self) -> Set[Any]:
        stepped = self.get_agents_that_stepped()
        return {agent: None for agent in stepped if agent not in self._ended}.keys()

    def get_truncateds(self) -> dict[Any, bool]:
        """By agent and `__all__`, for which RLlib returns whether the episode is terminated (2.60)."""
        return {**super().get_truncateds(), ALL: self.is_truncated}

    def _get_data_by_env_steps(
        self,
        *,
        what: str,
        indices: Any,
        agent_ids: Iterable[Any],
        neg_index_as_lookback: bool,
        fill: Any,
        one_hot_discrete: dict[str, Any],
        extra_model_outputs_key: str | None,
    ) -> dict[Any, Any]:
        """RLlib's, with the agent's time made a position in its buffer before it is compared with the buffer."""
        found, skip = {}, self.SKIP_ENV_TS_TAG
        for agent, episode in self.agent_episodes.items():
            if agent not in agent_ids:
                continue
            hanging = self._get_hanging_value(what, agent)
            times = self.env_t_to_agent_t[agent].get(
                indices,
                neg_index_as_lookback=neg_index_as_lookback,
                fill=skip if fill is not None else None,
                _ignore_last_ts=what not in ("observations", "infos"),
            )
            shift = episode.observations.lookback - self.agent_t_started[agent]
            many = isinstance(times, list)
            places: Any = [t if t == skip else t + shift for t in (times if many else [times])]
            buffer, places = self._get_inf_lookback_buffer_or_dict(
                agent, what, extra_model_outputs_key, hanging, filter_for_skip_indices=places
            )
            shared = {
                "what": what, "agent_id": agent, "fill": fill, "one_hot_discrete": one_hot_discrete,
                "hanging_val": hanging, "extra_model_outputs_key": extra_model_outputs_key,
            }  # fmt: skip
            if many:
                values = self._get_single_agent_data_by_env_step_indices(
                    indices_incl_lookback=places, **shared
                )
                if len(values) > 0:
                    found[agent] = values
            else:
                value = self._get_single_agent_data_by_index(
                    inf_lookback_buffer=buffer, index_incl_lookback=places[0], **shared
                )
                if value is not None:
                    found[agent] = value
        return found


def _count_time(episode: Any) -> None:
    """Note that an episode has made a step now: what `get_duration_s` is computed from."""
    episode._last_step_time = time.perf_counter()
    if episode._start_time is None:
        episode._start_time = episode._last_step_time
