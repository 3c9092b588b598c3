"""rlkit's callbacks in a script of your own: RLlib does everything else.

    python examples/callbacks_only.py [ITERATIONS]

Trains PPO on CartPole with rewards scaled for the learner and a postprocessor written here, stops on a
plateau or on the first NaN, saves, and restores. The reported return stays CartPole's own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig

from rlkit.callbacks import (
    Aligned,
    EpisodeStatistics,
    NumericsGuard,
    RewardScale,
    StopOnPlateau,
    Throughput,
    Trajectory,
    TrajectoryPostprocessor,
)


class PunishSpeed(TrajectoryPostprocessor):
    """Subtracts `cost` · |velocity of the cart|, and gives the learner the velocity as a column."""

    def __init__(self, cost: float = 0.1):
        super().__init__(scope="fragment")
        self.cost = cost

    def postprocess_trajectory(self, trajectory: Trajectory, others: Mapping[Any, Aligned]) -> None:
        speed = np.abs(trajectory.peek_observations()[1:, 1])
        trajectory.rewards -= self.cost * speed
        trajectory.columns["speed"] = speed


def main(iterations: int = 5) -> dict[str, Any]:
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .training(train_batch_size_per_learner=1024, minibatch_size=256, num_epochs=4)
        .callbacks(
            [
                EpisodeStatistics,
                PunishSpeed.bind(cost=0.2),
                RewardScale.bind(scale=0.01),
                NumericsGuard,
                StopOnPlateau.bind(patience=10),
                Throughput,
            ]
        )
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    result: dict[str, Any] = {}
    for _ in range(iterations):
        result = algorithm.train()
        runners = result["env_runners"]
        edited = {name: round(float(value), 2) for name, value in runners["edited_return"].items()}
        print(
            f"iteration {result['training_iteration']}: return {runners['episode_return_mean']:.1f}, edited {edited}"
        )
        if result["done"]:
            break
    path = algorithm.save_to_path(tempfile.mkdtemp())
    algorithm.stop()
    restored = Algorithm.from_checkpoint(path)
    plateau = next(c for c in restored.callbacks if isinstance(c, StopOnPlateau))
    print(f"restored: best return so far {plateau.best:.1f}, {plateau.waited} iterations without improvement")
    restored.stop()
    return result


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    main(*map(int, sys.argv[1:]))
    ray.shutdown()
