"""Milliseconds of CPU per MADDPG update of all agents: stacked, and one agent after the other.

    python benchmarks/maddpg_update.py [--updates 20] [--runs 5]

Batch 1024, two layers of 64, 18 numbers observed and 5 actions per agent (mpe2's spread for 3 agents), centralised
critics, one torch thread. Random rows; an update is what the learner does with a drawn minibatch: targets, critics,
actors, clipping, Adam, target networks. Medians over the runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from rlkit.algos import MADDPGConfig, MATD3Config

OBSERVED, ACTIONS, BATCH = 18, 5, 1024


def learner_of(agents: int, cls: type[MADDPGConfig], **training: Any) -> Any:
    """A learner of `agents` policies, one each."""
    names = [f"agent_{i:02d}" for i in range(agents)]
    spaces = (gym.spaces.Box(-1, 1, (OBSERVED,)), gym.spaces.Box(-1, 1, (ACTIONS,)))
    config = cls().environment(
        observation_space=gym.spaces.Dict(dict.fromkeys(names, spaces[0])),
        action_space=gym.spaces.Dict(dict.fromkeys(names, spaces[1])),
    )
    config.multi_agent(policies=set(names), policy_mapping_fn=lambda agent, episode: agent)
    config.training(**training)
    return config.build_learner(spaces=dict.fromkeys(names, spaces))


def columns_of(agents: int, updates: int) -> dict[str, Any]:
    """Random joint columns, (K, B, ...)."""
    g, lead = np.random.default_rng(0), (updates, BATCH)
    names = [f"agent_{i:02d}" for i in range(agents)]

    def draw(size: int) -> dict[str, np.ndarray]:
        return {a: g.uniform(-1, 1, (*lead, size)).astype(np.float32) for a in names}

    yes = np.ones((*lead, agents), bool)
    return {
        "obs": draw(OBSERVED), "new_obs": draw(OBSERVED), "actions": draw(ACTIONS),
        "present": yes, "next_present": yes, "acted": yes, "terminateds": ~yes, "truncateds": ~yes,
        "rewards": g.normal(size=yes.shape).astype(np.float32),
        "n_step": np.ones(lead, np.float32), "weights": np.ones(lead, np.float32),
    }  # fmt: skip


def milliseconds(learner: Any, columns: dict[str, Any], runs: int) -> float:
    """Median CPU time per update."""
    updates, taken = len(columns["n_step"]), []
    for _ in range(runs + 1):  # the first one warms up
        start = time.process_time()
        learner.update_from_columns(
            iter([{"joint": columns}]),
            num_updates=updates,
            env_steps=0,
            timesteps={"num_env_steps_sampled_lifetime": 0},
        )
        taken.append((time.process_time() - start) / updates * 1e3)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| agents | | stacked | one by one |\n|---|---|---|---|")
    for agents in (3, 6, 12):
        for cls in (MADDPGConfig, MATD3Config):
            columns = columns_of(agents, max(2, args.updates * 3 // agents))
            found = [
                milliseconds(learner_of(agents, cls, stack_agents=stack), columns, args.runs)
                for stack in (True, False)
            ]
            name = cls.__name__.removesuffix("Config")
            print(f"| {agents} | {name} | {found[0]:.1f} ms | {found[1]:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
