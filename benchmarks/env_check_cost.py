"""What `rlkit.envs.checked` costs: microseconds a step, and as a share of the environment's own step.

The bar is 5 % of an mpe2 step. The cost is measured on the wrapper itself, over an environment that replays
recorded results at no cost, because a 1 % difference of two noisy loops over the real environment cannot be
told apart.

    python benchmarks/env_check_cost.py
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # numpy's threads on arrays of 18 numbers only disturb the clock

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit.envs import checked, make_env

NAMES = (
    "pettingzoo/mpe2.simple_spread_v3",
    "pettingzoo/mpe2.simple_world_comm_v3",
    "CartPole-v1",
    "Pendulum-v1",
)
STEPS, ROUNDS = 3000, 30


def _replaying(env: gym.Env, results: list[Any]) -> gym.Env:
    """An environment with the spaces of `env` that returns `results` one after the other."""
    base = MultiAgentEnv if isinstance(env.unwrapped, MultiAgentEnv) else gym.Env
    replay = type("Replay", (base,), {})()
    for name in (
        "observation_space",
        "action_space",
        "observation_spaces",
        "action_spaces",
        "possible_agents",
        "agents",
    ):
        if hasattr(env.unwrapped, name):
            setattr(replay, name, getattr(env.unwrapped, name))
    stream = iter(results * (STEPS * 2 // len(results) + 2))
    replay.step = lambda action: next(stream)
    return replay


def _per_step(step: Callable[[], Any]) -> float:
    """Microseconds a call, in the best of several rounds: other processes only ever add time."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(STEPS // ROUNDS):
            step()
        times.append((time.perf_counter() - start) / (STEPS // ROUNDS) * 1e6)
    return min(times)


def measure(name: str) -> tuple[float, float]:
    """Return the environment's own step and the check, in microseconds."""
    env = make_env(name)
    obs, _ = env.reset(seed=0)
    multi = isinstance(env.unwrapped, MultiAgentEnv)

    def act() -> Any:
        return (
            {agent: env.action_spaces[agent].sample() for agent in obs}
            if multi
            else env.action_space.sample()
        )

    results, spent = [], []
    for _ in range(STEPS):
        action = act()
        start = time.perf_counter()
        result = env.step(action)
        spent.append((time.perf_counter() - start) * 1e6)
        obs = result[0]
        over = (result[2]["__all__"] or result[3]["__all__"]) if multi else (result[2] or result[3])
        if over:
            obs, _ = env.reset()
        else:
            results.append(result)
    action = act()
    bare, guarded = _replaying(env, results), checked(_replaying(env, results), name=name)
    cost = _per_step(lambda: guarded.step(action)) - _per_step(lambda: bare.step(action))
    rounds = [spent[i::ROUNDS] for i in range(ROUNDS)]
    return min(statistics.median(part) for part in rounds), cost


def main() -> int:
    print(f"{'environment':40} {'step µs':>9} {'check µs':>9} {'share':>7}")
    worst = 0.0
    for name in NAMES:
        step, cost = measure(name)
        if "mpe2" in name:
            worst = max(worst, cost / step)
        print(f"{name:40} {step:9.1f} {cost:9.2f} {cost / step:7.1%}")
    print(f"worst share of an mpe2 step: {worst:.1%} (bar: 5 %)")
    return 0 if worst <= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
