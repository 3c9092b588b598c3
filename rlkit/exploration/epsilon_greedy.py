"""With probability ε a random action, else what the policy says. ε falls with the environment steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlkit.exploration.base import ActionExploration, at_least, probability
from rlkit.exploration.discrete import is_dqn
from rlkit.exploration.schedule import Points, Schedule, anneal

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from rlkit.exploration.runner import Explorer, Place


class EpsilonGreedy(ActionExploration):
    """ε from `initial_epsilon` to `final_epsilon`, linear over `epsilon_timesteps` after `warmup_timesteps`.

    Names and defaults are those of RLlib's old `EpsilonGreedy`. `epsilon_schedule`, `[[step, ε], …]`, replaces the
    other four. On DQN and its kin this is RLlib's own `epsilon` schedule (rllib/algorithms/dqn, 2.60); policies that
    sample (PPO, discrete SAC) are mixed with a uniform one, and the probability of the mix goes to the learner.
    """

    spaces = ("Discrete", "MultiDiscrete")

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
            for _, value in Schedule(epsilon_schedule).points:
                probability("epsilon_schedule", value)

    @property
    def schedule(self) -> Schedule:
        """ε by environment steps of all runners."""
        if self.epsilon_schedule is not None:
            return Schedule(self.epsilon_schedule)
        return anneal(self.initial_epsilon, self.final_epsilon, self.epsilon_timesteps, self.warmup_timesteps)

    def configure(self, config: AlgorithmConfig, spaces: Mapping[Any, Any] | None = None) -> None:
        if is_dqn(config):
            config.training(epsilon=self.schedule.rllib())
        else:
            super().configure(config, spaces)

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.explorers import EpsilonGreedyPolicy

        return EpsilonGreedyPolicy(place, self.schedule)


class PerWorkerEpsilonGreedy(EpsilonGreedy):
    """A constant ε per remote env runner i of n, 0.4 ** (1 + 7 (i - 1) / (n - 1)): .4, …, .4^8.

    As in Ape-X (Horgan et al., 2018, arXiv 1803.00933). The local runner follows the schedule, as without workers in
    RLlib's old class.
    """

    BASE, EXPONENT = 0.4, 7.0

    def configure(self, config: AlgorithmConfig, spaces: Mapping[Any, Any] | None = None) -> None:
        if is_dqn(config):
            config.training(epsilon=self.schedule.rllib())
        ActionExploration.configure(self, config, spaces)

    def epsilon_of(self, worker: int, workers: int) -> float:
        """Return ε of remote runner `worker` (1 … `workers`)."""
        return self.BASE ** (1.0 + self.EXPONENT * (worker - 1) / max(workers - 1, 1))

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.explorers import ConstantEpsilon, EpsilonGreedyPolicy, RandomThenPolicy

        worker, workers = place.worker
        dqn = hasattr(place.module, "epsilon_schedule")
        if worker == 0:
            # With no random steps at all, a DQN module is left to its own schedule.
            return RandomThenPolicy(place, 0) if dqn else EpsilonGreedyPolicy(place, self.schedule)
        epsilon = self.epsilon_of(worker, workers)
        return ConstantEpsilon(place, epsilon) if dqn else EpsilonGreedyPolicy(place, Schedule(epsilon))
