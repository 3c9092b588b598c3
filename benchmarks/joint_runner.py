"""CPU time per env step of the joint env runner, against the environment alone and RLlib's MultiAgentEnvRunner.

    python benchmarks/joint_runner.py [--seconds 5]

mpe2 simple_spread, three agents, continuous actions, three 64x64 actors of MADDPG with their exploration noise, one
torch thread, no Ray. `mpe2 alone` is its parallel environment with random actions; `as one world` is rlkit.envs.mpe's
way of stepping it. Each figure is the least of five runs. Bar: with 8 copies and more at most 0.25 ms above mpe2 alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from mpe2 import simple_spread_v3
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.tune.registry import register_env

from rlkit.algos import MADDPGConfig
from rlkit.algos.sampling.joint_runner import JointEnvRunner
from rlkit.envs.make import env_creator
from rlkit.envs.mpe import world_steps
from rlkit.roster import PolicyMapping

SPREAD = "pettingzoo/mpe2.simple_spread_v3"
AGENTS = [f"agent_{i}" for i in range(3)]
BAR = 0.25


def least(work: Callable[[], int], seconds: float) -> float:
    """Return the least CPU milliseconds per env step of five runs; `work` returns the env steps it did."""
    work()
    found = []
    for _ in range(5):
        begin, steps = time.process_time(), 0
        while time.process_time() - begin < seconds / 5:
            steps += work()
        found.append(1e3 * (time.process_time() - begin) / steps)
    return min(found)


def environment(env: Any) -> Callable[[], int]:
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    drawn = [{a: rng.random(5).astype(np.float32) for a in AGENTS} for _ in range(50)]

    def work() -> int:
        for actions in drawn:
            env.step(actions)
            if not env.agents:
                env.reset()
        return len(drawn)

    return work


def runner(cls: type, copies: int) -> Callable[[], int]:
    config = MADDPGConfig().environment(SPREAD, env_config={"continuous_actions": True})
    config.env_runners(num_envs_per_env_runner=copies, rollout_fragment_length=max(1, 200 // copies))
    config.multi_agent(policies=set(AGENTS), policy_mapping_fn=PolicyMapping({a: [a] for a in AGENTS}))
    config.rl_module(model_config={"fcnet_hiddens": [64, 64]})
    config.debugging(seed=0).validate()
    made = cls(config=config)

    def work() -> int:
        with torch.no_grad():
            made.sample()
        return int(made.get_metrics()["num_env_steps_sampled"].peek())

    return work


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    register_env(SPREAD, env_creator(SPREAD))
    alone = least(environment(simple_spread_v3.parallel_env(continuous_actions=True)), options.seconds)
    print(f"{'mpe2 alone':40} {alone:.3f} ms per env step")
    world = least(
        environment(world_steps(simple_spread_v3.parallel_env(continuous_actions=True))), options.seconds
    )
    print(f"{'as one world':40} {world:.3f} ms")
    for cls, copies in (
        (JointEnvRunner, 1),
        (JointEnvRunner, 8),
        (JointEnvRunner, 32),
        (MultiAgentEnvRunner, 8),
    ):
        cost = least(runner(cls, copies), options.seconds)
        verdict = ""
        if cls is JointEnvRunner and copies >= 8:
            verdict = f"   (bar: at most +{BAR}) {'PASS' if cost - alone <= BAR else 'FAIL'}"
        print(
            f"{cls.__name__ + ', ' + str(copies) + ' copies':40} {cost:.3f} ms   {cost - alone:+.3f}{verdict}"
        )


if __name__ == "__main__":
    main()
