"""Policies of untrained modules for the tests of inference: no Ray, no checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit.play.connectors import ConnectorPolicy, policy_of
from rlkit.play.policy import Policy


class Untouched(ConnectorV2):
    """A connector that changes nothing; with it a pipeline is no longer RLlib's default."""

    def __call__(self, *, batch: Any, **kwargs: Any) -> Any:
        return batch


class Steps(gym.Env):
    """Observations and rewards depend on seed and actions; an episode has `length` steps. Any spaces."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, length: int = 8):
        self.observation_space, self.action_space = (
            copy.deepcopy(observation_space),
            copy.deepcopy(action_space),
        )
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.t, self.sum = 0, 0.0
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.t += 1
        numbers = gym.spaces.flatten(self.action_space, action).astype(np.float64)
        self.sum += float(numbers @ np.arange(1, len(numbers) + 1))
        return self.observation_space.sample(), self.sum, self.t >= self.length, False, {}


class Pair(MultiAgentEnv):
    """Three agents with different spaces; "late" joins in step 2, "early" leaves in step 3, all end in step 6."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.possible_agents = ["early", "late", "steady"]
        self.agents = list(self.possible_agents)
        box = gym.spaces.Box(-1, 1, (3,), np.float32)
        self.observation_spaces = {agent: box for agent in self.possible_agents}
        self.action_spaces = {
            "early": gym.spaces.Box(-2.0, 6.0, (2,), np.float32),
            "late": gym.spaces.Box(0.0, 1.0, (2,), np.float32),
            "steady": gym.spaces.Discrete(4),
        }
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)

    def _observe(self, agents: Sequence[str]) -> dict[str, np.ndarray]:
        return {agent: self.random.uniform(-1, 1, 3).astype(np.float32) for agent in agents}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.t, self.random = 0, np.random.default_rng(seed)
        return self._observe(["early", "steady"]), {}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.t += 1
        expected = {"steady"} | ({"early"} if self.t <= 3 else set()) | ({"late"} if self.t > 2 else set())
        assert set(actions) == expected, (self.t, actions)
        rewards = {agent: float(np.sum(action)) for agent, action in actions.items()}
        for agent, action in actions.items():
            assert self.action_spaces[agent].contains(action), (agent, action)
        seen = set(actions) | ({"late"} if self.t == 2 else set())
        over = self.t == 6
        terminated = {"__all__": over, **({"early": True} if self.t == 3 else {})}
        return self._observe(sorted(seen)), rewards, terminated, {"__all__": False}, {}


def make(
    config: Any,
    env: Any,
    *,
    first: Callable[[], list[ConnectorV2]] = list,
    force: bool = False,
    seed: int = 0,
) -> Policy:
    """Return the policy of a config's untrained module.

    Args:
        config: an AlgorithmConfig; a multi-agent one has its policies set.
        env: an instance of its environment.
        first: makes connectors to put in front of RLlib's.
        force: run the pipelines even if they are RLlib's default.
    """
    torch.manual_seed(seed)
    spaces = {"__env_single__": (env.observation_space, env.action_space)}
    if config.is_multi_agent:
        spaces |= {
            agent: (env.observation_spaces[agent], env.action_spaces[agent]) for agent in env.possible_agents
        }
        spec = config.get_multi_rl_module_spec(spaces=module_spaces(config, env))
        modules = spec.build()
    else:
        observing = config.build_env_to_module_connector(spaces=spaces)
        for connector in reversed(first()):
            observing.prepend(connector)
        space = observing.observation_space
        spec = config.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: (space, env.action_space)})
        modules = {DEFAULT_MODULE_ID: spec.build()}
    observing = config.build_env_to_module_connector(spaces=spaces)
    for connector in reversed(first()):
        observing.prepend(connector)
    acting = config.build_module_to_env_connector(spaces=spaces)
    kind = ConnectorPolicy if force else policy_of
    return kind(modules, observing, acting, 1000)


def module_spaces(config: Any, env: Any) -> dict[str, tuple[gym.Space, gym.Space]]:
    return {
        config.policy_mapping_fn(agent, None): (env.observation_spaces[agent], env.action_spaces[agent])
        for agent in env.possible_agents
    }


def both(config: Any, env: Any) -> tuple[Policy, Policy]:
    """Return the short way and the pipelines, with the same weights."""
    direct = make(config, env)
    pipelines = ConnectorPolicy(
        direct.modules, copy.deepcopy(direct.env_to_module), copy.deepcopy(direct.module_to_env), 1000
    )
    return direct, pipelines
