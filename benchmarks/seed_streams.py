"""How many episodes begin alike: 5 seeds x 4 env runners x 8 environments, for each kind of env runner.

The first observation of an episode is the environment's next random number; an environment plays several episodes. The
last column is the share of seed 1's episodes that begin as one of seed 0's.

    python benchmarks/seed_streams.py
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit.algos import DQNConfig, MADDPGConfig, PPOConfig
from rlkit.algos.sampling.episode_runner import EpisodeRunner, SingleEpisodeRunner

SEEDS, RUNNERS, ENVS, STEPS = range(5), range(1, 5), 8, 32
AGENTS = ("a", "b")
SEES, ACTS = gym.spaces.Box(0, 1, (1,), np.float32), gym.spaces.Discrete(2)


class Draw(gym.Env):
    """Episodes of five steps."""

    observation_space, action_space = SEES, ACTS

    def __init__(self, context: Any):
        self.starts: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        self.starts.append(float(self.np_random.random()))
        return np.full(1, self.starts[-1], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        return np.zeros(1, np.float32), 0.0, self.t == 5, False, {}


class DrawTwo(MultiAgentEnv):
    """`Draw` for two agents."""

    def __init__(self, context: Any):
        super().__init__()
        self.game = Draw(context)
        self.starts = self.game.starts
        self.possible_agents = self.agents = list(AGENTS)
        self.observation_spaces = dict.fromkeys(AGENTS, SEES)
        self.action_spaces = dict.fromkeys(AGENTS, ACTS)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        return dict.fromkeys(AGENTS, self.game.reset(seed=seed)[0]), {}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        seen, reward, over, _, _ = self.game.step(actions)
        return (
            dict.fromkeys(AGENTS, seen),
            dict.fromkeys(AGENTS, reward),
            {"__all__": over},
            {"__all__": False},
            {},
        )


def two(config: Any) -> Any:
    return config.multi_agent(policies=list(AGENTS), policy_mapping_fn=lambda agent, *_, **__: agent)


# kind: (config, environment, its env runner where it is not the config's own)
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "RLlib alone, one agent": (RLlibPPOConfig, Draw, SingleAgentEnvRunner),
    "RLlib alone, two agents": (RLlibPPOConfig, DrawTwo, MultiAgentEnvRunner),
    "arrays: DQN": (DQNConfig, Draw, None),
    "arrays: PPO": (PPOConfig, Draw, None),
    "joint: MADDPG": (MADDPGConfig, DrawTwo, None),
    "episodes: PPO, two agents": (PPOConfig, DrawTwo, None),
    "RLlib's loop: rllib/PPO, IMPALA ...": (RLlibPPOConfig, Draw, SingleEpisodeRunner),
    "RLlib's loop, two agents": (RLlibPPOConfig, DrawTwo, EpisodeRunner),
}


def starts(kind: str, seed: int) -> list[float]:
    """The numbers that all episodes of all runners with one seed begin with."""
    make, env, cls = KINDS[kind]
    config = make().environment(env).env_runners(num_envs_per_env_runner=ENVS, rollout_fragment_length=STEPS)
    config = (two(config) if env is DrawTwo else config).debugging(seed=seed)
    config.validate()
    found: list[float] = []
    for index in RUNNERS:
        runner = (cls or config.env_runner_cls)(config=config, worker_index=index, num_workers=len(RUNNERS))
        envs = [one.unwrapped for one in runner.env.unwrapped.envs]
        for one in envs:
            one.starts.clear()  # RLlib's check of a MultiAgentEnv resets it
        runner.sample()
        found += [start for one in envs for start in one.starts]
        runner.stop()
    return found


def main() -> None:
    logging.disable(logging.WARNING)
    gym.logger.min_level = gym.logger.ERROR
    print(f"{'env runner':38} {'episodes':>9} {'begin as another':>17} {'seed 1 as seed 0':>17}")
    for kind in KINDS:
        seen = {seed: starts(kind, seed) for seed in SEEDS}
        counts = Counter(start for found in seen.values() for start in found)
        shared = sum(number for number in counts.values() if number > 1)
        again = np.mean([start in set(seen[0]) for start in seen[1]])
        print(f"{kind:38} {counts.total():>9} {shared:>17} {again:>16.1%}")


if __name__ == "__main__":
    main()
