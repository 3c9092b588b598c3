"""Mean return of uniformly random actions: the zero of normalised scores (rlkit/report/normalise.py).

python benchmarks/random_returns.py [--episodes 1000]
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np

from rlkit.report.normalise import SCORES


def random_return(name: str, episodes: int) -> float:
    """Episode k is reset with seed k, and its actions are drawn with seed k."""
    env, returns = gym.make(name), []
    for seed in range(episodes):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            over = terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=1000)
    episodes = parser.parse_args().episodes
    for name, (low, _) in SCORES.items():
        print(f"{name:16} {random_return(name, episodes):9.1f}   in the table {low:9.1f}", flush=True)


if __name__ == "__main__":
    main()
