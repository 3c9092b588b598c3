"""Teams, modules and comparisons for the tests of the joint env runner."""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune.registry import register_env

from rlkit.algos.sampling.joint_runner import JointSampling
from rlkit.envs.make import env_creator
from rlkit.replay.episodes import joint_columns, joint_fragments
from rlkit.replay.ring import Fragment

SPREAD, SPEAKER = "pettingzoo/mpe2.simple_spread_v3", "pettingzoo/mpe2.simple_speaker_listener_v4"
for name in (SPREAD, SPEAKER, "vmas/simple_spread"):
    register_env(name, env_creator(name))


class Scripted(TorchRLModule):
    """Acts by what it sees, with arithmetic that gives equal bits for any number of rows."""

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        space, obs = self.action_space, batch["obs"]
        if isinstance(obs, Mapping):
            obs = obs["near"]
        first = (obs if obs.dim() == 1 else obs[..., 0]).to(torch.float32)
        if isinstance(space, gym.spaces.Discrete):
            return {"actions": (first.abs() * 1000).long() % int(space.n)}
        if isinstance(space, gym.spaces.MultiDiscrete):
            return {"actions": torch.stack([(first.abs() * k).long() % 2 for k in (100, 1000)], dim=-1)}
        return {"actions": torch.stack([first * (k + 1) - 0.3 for k in range(space.shape[0])], dim=-1)}


class Sampled(Scripted):
    """Leaves the choice to its distribution."""

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        mean = super()._forward(batch)["actions"]
        return {"action_dist_inputs": torch.cat([mean, torch.full_like(mean, -2.0)], dim=-1)}

    def get_exploration_action_dist_cls(self) -> Any:
        from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian

        return TorchDiagGaussian

    get_inference_action_dist_cls = get_exploration_action_dist_cls


SPACES = {
    "b": (gym.spaces.Box(-1e6, 1e6, (2,), np.float64), gym.spaces.Box(-2.0, 6.0, (2,), np.float32)),
    "c": (gym.spaces.Discrete(1000), gym.spaces.Discrete(3)),
    "a": (
        gym.spaces.Dict(near=gym.spaces.Box(-1e6, 1e6, (1,), np.float32), kind=gym.spaces.Discrete(2)),
        gym.spaces.MultiDiscrete([2, 2]),
    ),
}


class Ragged(MultiAgentEnv):
    """Three agents with spaces of every kind; episodes of 1 to 6 steps that end in every way.

    Args:
        ends: `all`, `mixed` (one agent terminates, the others are truncated), `own` (each with its own flag too).
        leaves: the step after which agent `c` is gone.
        fails: the step, counted over all copies, in which `step` raises.
    """

    steps = 0

    def __init__(self, ends: str = "all", leaves: int | None = None, fails: int | None = None):
        super().__init__()
        self.ends, self.leaves, self.fails = ends, leaves, fails
        self.level = 0.0
        self.possible_agents = list(SPACES)
        self.agents = list(SPACES)
        self.observation_spaces = {a: SPACES[a][0] for a in SPACES}
        self.action_spaces = {a: SPACES[a][1] for a in SPACES}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        if seed is not None or not hasattr(self, "rng"):
            self.rng = random.Random(seed)
        self.t, self.length = 0, self.rng.randint(1, 6)
        self.agents = list(SPACES)
        return self._observe(), {a: {"level": self.level} for a in SPACES}

    def step(self, actions: Mapping[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        Ragged.steps += 1
        if Ragged.steps == self.fails:
            raise RuntimeError("broken")
        self.t += 1
        over, how = self.t >= self.length, self.rng.random()
        got = {a: float(np.sum(actions[a])) * 0.1 + self.t for a in SPACES}
        obs, infos = self._observe(), {a: {"success": how} for a in SPACES}
        if self.leaves is not None and self.t > self.leaves:
            del obs["c"], got["c"], infos["c"]
        ended = {"__all__": over and how < 0.5}
        cut = {"__all__": over and not how < 0.5}
        if over and self.ends == "mixed":
            ended, cut = {"a": True, "__all__": False}, {"__all__": True}
        if over and self.ends == "own":
            ended |= dict.fromkeys(SPACES, ended["__all__"])
        return obs, got, ended, cut, infos

    def _observe(self) -> dict[str, Any]:
        value = self.rng.random()
        near = {"near": np.array([value * 3 - 1], np.float32), "kind": self.t % 2}
        return {
            "b": np.array([value, self.t + self.level]),
            "c": self.rng.randrange(1000),
            "a": near,
        }


register_env("ragged", lambda context: Ragged(**context))
register_env("ragged_spare", lambda context: Ragged(**context))


class JointPPOConfig(JointSampling, PPOConfig):
    """Any algorithm's config with the word `sampling`."""


def joint_config(
    env: str,
    *,
    envs: int = 3,
    length: int = 7,
    modules: Mapping[str, list[str]] | None = None,
    module: type = Scripted,
    seed: int | None = 3,
    **env_config: Any,
) -> AlgorithmConfig:
    """A config whose modules play the agents named; default one each."""
    config = JointPPOConfig().environment(env, env_config=env_config, disable_env_checking=True)
    config.env_runners(
        num_env_runners=0, num_envs_per_env_runner=envs, rollout_fragment_length=length,
        batch_mode="truncate_episodes",
    )  # fmt: skip
    if modules is None:
        probe = rlkit_env(env, env_config)
        modules = {agent: [agent] for agent in probe.possible_agents}
    players = {agent: name for name, agents in modules.items() for agent in agents}
    config.multi_agent(policies=set(modules), policy_mapping_fn=lambda a, *_, **__: players[a])
    specs = {name: RLModuleSpec(module_class=module) for name in modules}
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    return config.debugging(seed=seed)


def rlkit_env(env: str, env_config: Mapping[str, Any]) -> Any:
    from rlkit.rllib import env_creator_of

    return env_creator_of(SimpleNamespace(env=env))(dict(env_config)).unwrapped


def as_fragments(samples: list[Any], env: Any) -> list[Fragment]:
    """Fragments of what a runner returned, episodes turned into joint fragments."""
    if samples and isinstance(samples[0], Fragment):
        return samples
    spaces = (dict(env.observation_spaces), dict(env.action_spaces))
    agents = sorted(env.possible_agents)
    states, steps = joint_columns(agents, *spaces)
    return list(joint_fragments(samples, agents, states, steps))


def content(value: Any) -> Any:
    """Nested arrays as comparable bytes, with dtype and shape; float64 and int32 as replay has them."""
    if isinstance(value, Mapping):
        return tuple((key, content(value[key])) for key in sorted(value))
    array = np.asarray(value)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype == np.int32:
        array = array.astype(np.int64)
    return (str(array.dtype), array.shape, array.tobytes())


def fragment_content(fragment: Fragment) -> tuple:
    return (
        fragment.start, fragment.length, fragment.done, content(fragment.states), content(fragment.steps),
    )  # fmt: skip
