"""CPU time of a curriculum per env step, with 32 environments in one runner.

    python benchmarks/curriculum_cost.py [--rounds 40]

Two runners, with and without the callback, sample 3,200 env steps in turn (CartPole, PPO's default module). The
figure is the median over rounds of the ratio of CPU times; a round's pair is measured back to back, so that other
load on the machine hits both. "inside the hooks" is the CPU time spent in the callback's own hooks. Tasks are
CartPole's own values but for the last digits: other values make other episodes, longer or shorter.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit.curriculum import configure
from rlkit.curriculum.driver import Decider

HOOKS = ("on_episode_created", "on_episode_end", "on_sample_end")
SECTIONS: dict[str, dict[str, Any]] = {
    "lessons, attribute": {
        "lessons": [
            {"name": "a", "task": {"gravity": 9.800001}, "until": {"measure": "return", "threshold": 400}},
            {"name": "b", "task": {"gravity": 9.8}},
        ]
    },
    "random, two attributes": {
        "type": "random",
        "space": {"gravity": {"uniform": [9.8, 9.800001]}, "length": {"uniform": [0.5, 0.500001]}},
    },
}
STEPS = 3200


def make(section: dict[str, Any] | None) -> SingleAgentEnvRunner:
    """A runner with 32 CartPoles."""
    config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0, num_envs_per_env_runner=32)
    if section is not None:
        configure(config, section)
    return SingleAgentEnvRunner(config=config.debugging(seed=0), worker_index=0)


def timed(runner: SingleAgentEnvRunner) -> float:
    begun = time.process_time()
    runner.sample(num_timesteps=STEPS)
    runner.get_metrics()
    return time.process_time() - begun


def watch(callback: Any) -> dict[str, float]:
    """Sum the CPU time of a callback's hooks."""
    spent = dict.fromkeys(HOOKS, 0.0)
    clock = []
    for _ in range(1000):  # what reading the clock adds
        begun = time.process_time()
        clock.append(time.process_time() - begun)
    reading = sum(clock) / len(clock)

    def wrap(name: str, function: Any) -> Any:
        def timed_hook(**kwargs: Any) -> Any:
            begun = time.process_time()
            try:
                return function(**kwargs)
            finally:
                spent[name] += time.process_time() - begun - reading

        return timed_hook

    for name in HOOKS:
        setattr(callback, name, wrap(name, getattr(callback, name)))
    return spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, section in SECTIONS.items():
        plain, with_tasks = make(None), make(section)
        callback = with_tasks._callbacks[-1]
        callback.receive(Decider(callback.curriculum, 0, None).push(), False)
        timed(plain), timed(with_tasks)
        ratios, base = [], []
        for i in range(args.rounds):
            first, second = (plain, with_tasks) if i % 2 else (with_tasks, plain)
            times = {id(first): timed(first), id(second): timed(second)}
            base.append(times[id(plain)])
            ratios.append(times[id(with_tasks)] / times[id(plain)])
        spent = watch(callback)
        total = sum(timed(with_tasks) for _ in range(10))
        print(
            f"{name}: {100 * (np.median(ratios) - 1):+.2f} % CPU time per env step (median of {args.rounds}; quartiles "
            f"{100 * (np.quantile(ratios, 0.25) - 1):+.2f}, {100 * (np.quantile(ratios, 0.75) - 1):+.2f}); "
            f"inside the hooks {100 * sum(spent.values()) / total:.2f} %; "
            f"{1e6 * np.median(base) / STEPS:.0f} µs per env step"
        )


if __name__ == "__main__":
    main()
