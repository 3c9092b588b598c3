"""What `rlkit.envs.checked` costs: microseconds a step, and as a share of the environment's own step.

Bars: 3 % of an mpe2 step, 5 % of CartPole's. The cost is measured on the wrapper itself, over an environment that
replays recorded results at no cost, because a 1 % difference of two noisy loops over the real environment cannot be
told apart. `step` is rlkit's environment, whose MPE computes with plain floats; `own step` is mpe2's without rlkit.

    python benchmarks/env_check_cost.py
"""

from __future__ import annotations

import importlib
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
BARS = {NAMES[0]: 0.03, NAMES[1]: 0.03, "CartPole-v1": 0.05}


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
        "spec",
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


def own_step(name: str) -> float:
    """Return microseconds of a step of the PettingZoo environment as mpe2 makes it; NaN for others."""
    if "mpe2" not in name:
        return float("nan")
    env = importlib.import_module(name.removeprefix("pettingzoo/")).parallel_env()
    env.reset(seed=0)
    spent = []
    for _ in range(STEPS):
        if not env.agents:
            env.reset()
        actions = {agent: env.action_space(agent).sample() for agent in env.agents}
        start = time.perf_counter()
        env.step(actions)
        spent.append((time.perf_counter() - start) * 1e6)
    return min(statistics.median(spent[i::ROUNDS]) for i in range(ROUNDS))


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
    print(
        f"{'environment':40} {'own step us':>11} {'step us':>8} {'check us':>9} {'of own':>7} {'of step':>8}"
    )
    good = True
    for name in NAMES:
        (step, cost), own = measure(name), own_step(name)
        of_own = cost / own
        if name in BARS:
            good = good and (of_own if "mpe2" in name else cost / step) <= BARS[name]
        shown = f"{own:11.1f} {step:8.1f} {cost:9.2f} {of_own:7.1%} {cost / step:8.1%}"
        print(f"{name:40} {shown.replace('nan%', '   –').replace('nan', '  –')}")
    print("bars: 3 % of an mpe2 step, 5 % of CartPole's:", "held" if good else "missed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
