"""What an exact evaluation costs: 100 CartPole episodes of 500 steps, in seconds of CPU on one thread.

    python benchmarks/evaluate_cost.py [--episodes 100]

A DQN module of 2 x 256 units is taught a balancing rule, so that every episode lasts 500 steps.
`rlkit.play.rollout.play` plays it in two ways: with RLlib's default connectors (arrays), and with a connector of one's
own in front of them (RLlib's pipelines). For comparison RLlib's `SingleAgentEnvRunner.sample` plays as many.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit.envs.make import make_env
from rlkit.play.connectors import policy_of
from rlkit.play.rollout import Pool, play


class Untouched(ConnectorV2):
    """A connector that changes nothing, to leave the short way."""

    def __call__(self, *, batch: Any, **kwargs: Any) -> Any:
        return batch


def teach(module: Any, steps: int = 600) -> None:
    """Regress the Q-values to a rule that balances the pole: push to the side it falls to."""
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        obs = torch.randn(256, 4, generator=generator) * torch.tensor([1.0, 1.0, 0.1, 1.0])
        push = 0.1 * obs[:, 0] + 0.3 * obs[:, 1] + 3.0 * obs[:, 2] + obs[:, 3]
        target = torch.stack([-push, push], dim=1).clamp(-1, 1)
        loss = (module.compute_q_values({"obs": obs})["qf_preds"] - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def measure(label: str, run: Callable[[], list[tuple[float, int]]], repeats: int) -> None:
    """Print the least and the largest CPU time of several runs: other programs on the machine only add to it."""
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        episodes = run()
        seconds.append(time.process_time() - begin)
    steps = sum(length for _, length in episodes)
    mean = np.mean([ret for ret, _ in episodes])
    least, most = min(seconds), max(seconds)
    print(
        f"{label:34} {least:5.2f} to {most:5.2f} CPU s, {1e6 * least / steps:5.1f} us/step at least, "
        f"mean return {mean:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    episodes, repeats = arguments.episodes, arguments.repeats
    torch.set_num_threads(1)
    logging.getLogger("ray").setLevel(logging.ERROR)

    env = gym.make("CartPole-v1")
    spaces = {"__env_single__": (env.observation_space, env.action_space)}
    config = DQNConfig().environment("CartPole-v1").env_runners(num_envs_per_env_runner=20)
    module = config.get_rl_module_spec(env=env).build()
    teach(module)
    module.eval()

    def ours(first: list[ConnectorV2], checked: bool) -> list[tuple[float, int]]:
        observing = config.build_env_to_module_connector(spaces=spaces)
        for connector in first:
            observing.prepend(connector)
        policy = policy_of(
            {DEFAULT_MODULE_ID: module}, observing, config.build_module_to_env_connector(spaces=spaces)
        )
        make = (lambda _: make_env("CartPole-v1", {})) if checked else (lambda _: gym.make("CartPole-v1"))
        return [(row.ret, row.length) for row in play(policy, Pool(make), range(episodes))]

    def rllib() -> list[tuple[float, int]]:
        runner = SingleAgentEnvRunner(config=config)
        runner.module.load_state_dict(module.state_dict(), strict=False)
        return [(e.get_return(), len(e)) for e in runner.sample(num_episodes=episodes, explore=False)]

    measure("arrays, gym.make", lambda: ours([], False), repeats)
    measure("arrays, environment checked", lambda: ours([], True), repeats)
    measure("RLlib's pipelines, gym.make", lambda: ours([Untouched()], False), repeats)
    measure("RLlib's SingleAgentEnvRunner", rllib, repeats)


if __name__ == "__main__":
    main()
