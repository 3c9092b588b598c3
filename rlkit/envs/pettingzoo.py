"""PettingZoo environments, parallel and AEC, as RLlib `MultiAgentEnv`s.

`PettingZooEnv(env)` takes either kind. What it holds that `ray.rllib.env.wrappers.pettingzoo_env` (2.60) does not:

- agents stand in natural order (`agent_2` before `agent_10`) in every process, whatever PYTHONHASHSEED;
  RLlib's order comes from a `set`, so a concatenated critic input differs between runners;
- the episode ends when no agent is left, also when one terminates while another is truncated in the same step;
- a truncated agent bootstraps. RLlib's `MultiAgentEpisode.add_env_step` declares the whole episode
  *terminated* as soon as every agent carries its own done flag, truncations included. In the last step of an
  episode the agents that are truncated are therefore announced by `truncateds["__all__"]` alone, without
  flags of their own;
- agents may die early and join late; nothing is returned for an agent that was done before;
- `render()` works, and per-agent spaces are kept.

Action masks stay where PettingZoo puts them, in the observation (`{"observation": …, "action_mask": …}`);
with `mask_from_info=True` a mask given in `infos` is moved there. docs/environments.md says how a module uses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from pettingzoo import AECEnv, ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv

AgentId = str
MultiStep = tuple[
    dict[AgentId, Any], dict[AgentId, float], dict[AgentId, bool], dict[AgentId, bool], dict[AgentId, dict]
]


def natural_order(names: Iterable[AgentId]) -> list[AgentId]:
    """Sort names so that numbers count as numbers: `a_2` before `a_10`."""
    return sorted(
        names, key=lambda name: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", str(name))]
    )


class PettingZooEnv(MultiAgentEnv):
    """A PettingZoo environment under RLlib's multi-agent API.

    Args:
        env: a `ParallelEnv` (all agents act in every step) or an `AECEnv` (one agent acts at a time; only
            that agent's observation is returned, with the rewards it has gathered since its last turn).
        mask_from_info: move `infos[agent]["action_mask"]` into the observation, whose space becomes
            `Dict(observation=…, action_mask=Box(0, 1, (n,), int8))`. For agents with a Discrete action space.

    Attributes:
        env: the PettingZoo environment. Attributes this class lacks (`set_task`, `state`, `np_random`…) are
            read from it.
        possible_agents: every agent that can appear, in natural order.
        agents: the agents alive now, in natural order.
        observation_spaces, action_spaces: the space of each possible agent.

    Raises:
        ValueError: `env` is not a PettingZoo environment or does not list its `possible_agents`.
    """

    def __new__(cls, env: Any = None, mask_from_info: bool = False) -> PettingZooEnv:
        if cls is PettingZooEnv:
            if not isinstance(env, AECEnv | ParallelEnv):
                raise ValueError(
                    f"got {type(env).__name__}, expected a PettingZoo AECEnv or ParallelEnv; "
                    "pass e.g. mpe2.simple_spread_v3.parallel_env()"
                )
            cls = _TurnBased if isinstance(env, AECEnv) else _Parallel
        return super().__new__(cls)

    def __init__(self, env: Any, mask_from_info: bool = False):
        self.env = env
        possible = getattr(env, "possible_agents", None)
        if not possible:
            raise ValueError(
                f"{env} lists no possible_agents, so the spaces of its agents are not known before it runs; "
                "give the environment a `possible_agents` list"
            )
        self.possible_agents = natural_order(possible)
        self.agents, self._everybody = list(self.possible_agents), set(self.possible_agents)
        super().__init__()
        self._mask_from_info = mask_from_info
        self.action_spaces = {agent: env.action_space(agent) for agent in self.possible_agents}
        self.observation_spaces = {agent: self._observation_space(agent) for agent in self.possible_agents}
        self.action_space = gym.spaces.Dict(self.action_spaces)
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.render_mode = getattr(env, "render_mode", None)
        # a copy: RLlib's vector env writes into it, and PettingZoo shares one dict between all instances
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self._done: set[AgentId] = set()

    def _observation_space(self, agent: AgentId) -> gym.Space:
        space = self.env.observation_space(agent)
        if not self._mask_from_info:
            return space
        actions = self.action_spaces[agent]
        if not isinstance(actions, gym.spaces.Discrete):
            raise ValueError(
                f"agent {agent!r} has actions {actions}; mask_from_info needs a Discrete action space"
            )
        mask = gym.spaces.Box(0, 1, (int(actions.n),), np.int8)
        return gym.spaces.Dict(action_mask=mask, observation=space)

    def _observation(self, agent: AgentId, observation: Any, info: Mapping[str, Any]) -> Any:
        if not self._mask_from_info:
            return observation
        mask = info.get("action_mask")
        if mask is None:
            mask = np.ones(self.observation_spaces[agent]["action_mask"].shape, np.int8)
        return {"action_mask": np.asarray(mask, np.int8), "observation": observation}

    def _flags(
        self, terminated: dict[AgentId, bool], truncated: dict[AgentId, bool], over: bool
    ) -> tuple[dict[AgentId, bool], dict[AgentId, bool]]:
        """Add `__all__`, so that RLlib bootstraps truncated agents (see the module docstring)."""
        self._done.update(agent for agent, done in terminated.items() if done)
        self._done.update(agent for agent, done in truncated.items() if done)
        bootstrap = over and any(truncated[agent] and not terminated[agent] for agent in truncated)
        if bootstrap:
            truncated = dict.fromkeys(truncated, False)
        terminated["__all__"] = over and not bootstrap
        truncated["__all__"] = bootstrap
        return terminated, truncated

    def get_agent_ids(self) -> set[AgentId]:
        return set(self.possible_agents)

    def render(self) -> Any:
        """Return what the environment renders: an RGB array with `render_mode="rgb_array"`."""
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    @property
    def np_random(self) -> Any:
        """The environment's generator; where it has none, gym.Env's own."""
        return getattr(self.env.unwrapped, "np_random", None) or super().np_random

    @np_random.setter
    def np_random(self, value: Any) -> None:
        self.env.unwrapped.np_random = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def __str__(self) -> str:
        return f"PettingZooEnv({self.env})"


class _Parallel(PettingZooEnv):
    """All agents act at once."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        observations, infos = self.env.reset(seed=seed, options=options)
        self._done = set()
        everybody = observations.keys() == self._everybody
        self.agents = list(self.possible_agents) if everybody else natural_order(observations)
        infos = {agent: infos.get(agent, {}) for agent in self.agents}
        return {
            agent: self._observation(agent, observations[agent], infos[agent]) for agent in self.agents
        }, infos

    def step(self, action_dict: Mapping[AgentId, Any]) -> MultiStep:
        raw_obs, raw_rewards, raw_terminated, raw_truncated, raw_infos = self.env.step(dict(action_dict))
        done = self._done
        here = [agent for agent in self.possible_agents if agent in raw_obs and agent not in done]
        infos = {agent: raw_infos.get(agent, {}) for agent in here}
        observations = {agent: self._observation(agent, raw_obs[agent], infos[agent]) for agent in here}
        # an agent that dies may be given no observation, only its last reward and flag
        heard = [
            a for a in self.possible_agents if (a in raw_rewards or a in raw_terminated) and a not in done
        ]
        rewards = {agent: raw_rewards[agent] for agent in heard if agent in raw_rewards}
        terminated = {agent: bool(raw_terminated.get(agent, False)) for agent in heard}
        truncated = {agent: bool(raw_truncated.get(agent, False)) for agent in heard}
        if set(self.agents) != set(self.env.agents):
            self.agents = natural_order(self.env.agents)
        terminated, truncated = self._flags(terminated, truncated, over=not self.agents)
        return observations, rewards, terminated, truncated, infos


class _TurnBased(PettingZooEnv):
    """One agent acts at a time. Dead agents are taken out with their last observation and reward."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.env.reset(seed=seed, options=options)
        self._done = set()
        observations, _, terminated, truncated, infos = self._advance()
        for agent in list(observations):
            if terminated[agent] or truncated[agent]:  # dead from the start
                self._done.add(agent)
                del observations[agent], infos[agent]
        return observations, infos

    def step(self, action_dict: Mapping[AgentId, Any]) -> MultiStep:
        actor = self.env.agent_selection
        if actor not in action_dict:
            raise ValueError(f"it is the turn of {actor!r}; got actions of {sorted(action_dict)}")
        self.env.step(action_dict[actor])
        observations, rewards, terminated, truncated, infos = self._advance()
        terminated, truncated = self._flags(terminated, truncated, over=not self.agents)
        return observations, rewards, terminated, truncated, infos

    def _advance(self) -> MultiStep:
        """Collect from dead agents until a living one is to act, or none is left."""
        found: MultiStep = ({}, {}, {}, {}, {})
        observations, rewards, terminated, truncated, infos = found
        while self.env.agents:
            agent = self.env.agent_selection
            raw, reward, is_terminated, is_truncated, info = self.env.last()
            if agent not in self._done:
                infos[agent] = info
                observations[agent] = self._observation(agent, raw, info)
                rewards[agent] = reward
                terminated[agent], truncated[agent] = bool(is_terminated), bool(is_truncated)
            if not (is_terminated or is_truncated):
                break
            self.env.step(None)
        self.agents = natural_order(self.env.agents)
        return found
