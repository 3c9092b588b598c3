"""Noise on the weights instead of the actions (Plappert et al., 2018, arXiv 1706.01905), adapted to a distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlkit.exploration.base import ActionExploration, above, at_least, probability

if TYPE_CHECKING:
    from rlkit.exploration.runner import Explorer, Place


class ParameterNoise(ActionExploration):
    """Acts with weights w + N(0, stddev²), drawn anew whenever the runner's first environment begins an episode.

    stddev is multiplied by 1.01 while the noisy policy is closer to the clean one than `distance`, and divided by it
    while it is farther. The distance is KL(softmax Q clean ‖ noisy) for discrete actions and the root mean square
    difference of actions for continuous ones. Normalisation layers keep their weights. Off-policy only.

    Args:
        initial_stddev: as in RLlib's old class, like the next.
        random_timesteps: uniform actions for so many environment steps first.
        epsilon: ε-greedy on top of the noise, for discrete actions.
        distance: default ln 1 / (1 - ε + ε / n) for n discrete actions with ε = 0.1, 0.1 for continuous ones.
    """

    spaces = ("Discrete", "Box")
    on_policy = False

    def __init__(
        self,
        initial_stddev: float = 1.0,
        random_timesteps: int = 10_000,
        epsilon: float = 0.01,
        distance: float | None = None,
    ):
        self.initial_stddev = above("initial_stddev", initial_stddev)
        self.random_timesteps: int = at_least("random_timesteps", random_timesteps, 0)
        self.epsilon = probability("epsilon", epsilon)
        self.distance = None if distance is None else above("distance", distance)

    def explorer(self, place: Place) -> Explorer:
        from rlkit.exploration.noisy_weights import NoisyWeights

        return NoisyWeights(place, self.initial_stddev, self.random_timesteps, self.epsilon, self.distance)
