"""Exploration over the actions themselves: random ones, what the policy samples, softmax and UCB over Q-values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlkit.exploration.base import ActionExploration, above, at_least

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from rlkit.exploration.runner import Explorer, Place


class Random(ActionExploration):
    """Uniform actions for the first `random_timesteps` environment steps, or always (`null`, the old default)."""

    def __init__(self, random_timesteps: int | None = None):
        self.random_timesteps = (
            None if random_timesteps is None else at_least("random_timesteps", random_timesteps, 0)
        )

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.explorers import RandomThenPolicy

        return RandomThenPolicy(place, self.random_timesteps)


class StochasticSampling(ActionExploration):
    """What the policy's distribution samples, after `random_timesteps` of uniform actions. PPO, SAC and their kin."""

    def __init__(self, random_timesteps: int = 0):
        self.random_timesteps = at_least("random_timesteps", random_timesteps, 0)

    def check_algorithm(self, config: AlgorithmConfig) -> None:
        if is_dqn(config):
            raise self.fail(
                f"{type(config).__name__} has Q-values and no distribution to sample from; use SoftQ or EpsilonGreedy"
            )

    def configure(self, config: AlgorithmConfig, spaces: Mapping[Any, Any] | None = None) -> None:
        if self.random_timesteps:
            super().configure(config, spaces)
        else:
            self.check_algorithm(config)  # it is what RLlib does without any exploration

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.explorers import RandomThenPolicy

        return RandomThenPolicy(place, self.random_timesteps)


class OverQValues(ActionExploration):
    """Base of those that need Q-values of discrete actions."""

    spaces = ("Discrete",)

    def check_algorithm(self, config: AlgorithmConfig) -> None:
        if not is_dqn(config):
            raise self.fail(
                f"{type(config).__name__} has no Q-value per action; use a DQN, or StochasticSampling"
            )


class SoftQ(OverQValues):
    """Action a with probability proportional to exp(Q(s, a) / `temperature`)."""

    def __init__(self, temperature: float = 1.0):
        self.temperature = above("temperature", temperature)

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.explorers import SoftmaxOverQ

        return SoftmaxOverQ(place, self.temperature)


class UpperConfidenceBound(OverQValues):
    """argmax Q(s, a) + `c` · sqrt(ln N(s) / n(s, a)) (UCB1, Auer et al., 2002), counts per cell of the observation.

    Args:
        c: weight of the bonus, in units of Q.
        bins: cells per dimension of a small bounded Box.
        bits: of the hash of any other Box.
        low, high: bounds of the grid where the space has none.

    Every runner counts for itself.
    """

    def __init__(
        self, c: float = 1.0, bins: int = 20, bits: int = 32, low: Any = None, high: Any = None, seed: int = 0
    ):
        self.c = at_least("c", c, 0)
        self.bins, self.bits = at_least("bins", bins, 2), at_least("bits", bits, 1)
        self.low, self.high, self.seed = low, high, seed

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.counts import StateCounter
        from rlkit.exploration.explorers import UpperConfidence

        space, actions = place.module.observation_space, place.module.action_space
        counter = StateCounter(space, self.bins, self.bits, self.low, self.high, self.seed, actions)
        return UpperConfidence(place, self.c, counter)


def is_dqn(config: AlgorithmConfig) -> bool:
    """Whether the algorithm has RLlib's DQN modules."""
    from ray.rllib.algorithms.dqn import DQNConfig

    return isinstance(config, DQNConfig)
