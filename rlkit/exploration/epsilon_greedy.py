"""With probability ε a random action, else what the policy says. ε falls with the environment steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlkit.exploration.base import Exploration, at_least, probability
from rlkit.exploration.schedule import Points, Schedule, anneal

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


class EpsilonGreedy(Exploration):
    """ε from `initial_epsilon` to `final_epsilon`, linear over `epsilon_timesteps` after `warmup_timesteps`.

    Names and defaults are those of RLlib's old `EpsilonGreedy`. `epsilon_schedule`, `[[step, ε], …]`,
    replaces the other four. On DQN and its kin this is RLlib's own `epsilon` schedule (rllib/algorithms/dqn,
    2.60).
    """

    def __init__(
        self,
        initial_epsilon: float = 1.0,
        final_epsilon: float = 0.05,
        warmup_timesteps: int = 0,
        epsilon_timesteps: int = 100_000,
        epsilon_schedule: Points | None = None,
    ):
        self.initial_epsilon = probability("initial_epsilon", initial_epsilon)
        self.final_epsilon = probability("final_epsilon", final_epsilon)
        self.warmup_timesteps = at_least("warmup_timesteps", warmup_timesteps, 0)
        self.epsilon_timesteps = at_least("epsilon_timesteps", epsilon_timesteps, 0)
        self.epsilon_schedule = epsilon_schedule
        if epsilon_schedule is not None:
            for _, value in epsilon_schedule:
                probability("epsilon_schedule", value)

    @property
    def schedule(self) -> Schedule:
        """ε by environment steps of all runners."""
        if self.epsilon_schedule is not None:
            return Schedule(self.epsilon_schedule)
        return anneal(self.initial_epsilon, self.final_epsilon, self.epsilon_timesteps, self.warmup_timesteps)

    def configure(self, config: AlgorithmConfig) -> None:
        from ray.rllib.algorithms.dqn import DQNConfig

        if not isinstance(config, DQNConfig):
            raise self.fail(f"{type(config).__name__} has no epsilon schedule")
        config.training(epsilon=self.schedule.rllib())
