"""CPU time per env step of the joint env runner, against the environment alone and RLlib's MultiAgentEnvRunner.

    python benchmarks/joint_runner.py [--seconds 5]
    python benchmarks/joint_runner.py --copies [--seconds 5]     # 16 copies stepped one by one, and together on arrays

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
from ray.rllib.env.vector.sync_vector_multi_agent_env import SyncVectorMultiAgentEnv
from ray.tune.registry import register_env

from rlkit.algos import MADDPGConfig
from rlkit.algos.sampling.joint_envs import Copies, Together, copies
from rlkit.algos.sampling.joint_rows import TeamLayout
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


def stepped(agents: int, count: int, together: bool) -> Callable[[], int]:
    """Steps and resets of `count` copies as the joint runner takes them, with random actions."""
    make, options = env_creator(SPREAD), {"N": agents}
    vector = SyncVectorMultiAgentEnv([lambda: make(options)] * count)
    env = vector.envs[0]
    spaces = (
        {a: f(a) for a in env.possible_agents} for f in (env.get_observation_space, env.get_action_space)
    )
    envs = (copies if together else Copies)(vector, TeamLayout(SPREAD, *spaces))
    assert isinstance(envs, Together) == together
    envs.reset(list(range(count)))
    rng = np.random.default_rng(0)
    drawn = [{a: rng.integers(5, size=count) for a in env.possible_agents} for _ in range(25)]

    def work() -> int:
        for actions in drawn:
            ended = np.flatnonzero(envs.step(actions).over)
            if len(ended):
                envs.reset_where(ended)
        return len(drawn) * count

    return work


def runner(cls: type, count: int) -> Callable[[], int]:
    config = MADDPGConfig().environment(SPREAD, env_config={"continuous_actions": True})
    config.env_runners(num_envs_per_env_runner=count, rollout_fragment_length=max(1, 200 // count))
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
    parser.add_argument("--copies", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    register_env(SPREAD, env_creator(SPREAD))
    if options.copies:
        for agents in (3, 8):
            one, all_ = (least(stepped(agents, 16, how), options.seconds) * 1e3 for how in (False, True))
            print(
                f"{agents} agents: one by one {one:.0f} us per env step, together {all_:.0f}   {one / all_:.1f} x"
            )
        return
    alone = least(environment(simple_spread_v3.parallel_env(continuous_actions=True)), options.seconds)
    print(f"{'mpe2 alone':40} {alone:.3f} ms per env step")
    world = least(
        environment(world_steps(simple_spread_v3.parallel_env(continuous_actions=True))), options.seconds
    )
    print(f"{'as one world':40} {world:.3f} ms")
    for cls, count in (
        (JointEnvRunner, 1),
        (JointEnvRunner, 8),
        (JointEnvRunner, 32),
        (MultiAgentEnvRunner, 8),
    ):
        cost = least(runner(cls, count), options.seconds)
        verdict = ""
        if cls is JointEnvRunner and count >= 8:
            verdict = f"   (bar: at most +{BAR}) {'PASS' if cost - alone <= BAR else 'FAIL'}"
        print(
            f"{cls.__name__ + ', ' + str(count) + ' copies':40} {cost:.3f} ms   {cost - alone:+.3f}{verdict}"
        )


if __name__ == "__main__":
    main()
