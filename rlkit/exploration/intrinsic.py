"""Intrinsic rewards: curiosity (ICM), random network distillation, visit counts. Added to what the learner sees.

They are trajectory post-processing: the bonus is computed where the steps are sampled, reaches PPO and replay alike,
and the reported return stays the environment's own. (RLlib's old Curiosity worked with one worker and PPO only.)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlkit.exploration.base import Exploration, above, at_least, create, probability
from rlkit.exploration.schedule import Schedule

if TYPE_CHECKING:
    import gymnasium as gym
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from rlkit.exploration.bonus import Bonus


class IntrinsicReward(Exploration):
    """Base: reward + coefficient · bonus(s, a, s').

    Args of every subclass:
        sub_exploration: how actions are chosen besides, `{type, …}`; default the algorithm's own way.
    """

    def __init__(
        self, coefficient: float | Sequence[Sequence[float]], sub_exploration: Mapping[str, Any] | None
    ):
        self.coefficient = coefficient
        if min(value for _, value in Schedule(coefficient).points) < 0:
            raise ValueError(f"the coefficient of a bonus cannot be negative, got {coefficient}")
        self.sub_exploration = None if sub_exploration is None else dict(sub_exploration)

    def configure(self, config: AlgorithmConfig, spaces: Mapping[Any, Any] | None = None) -> None:
        from rlkit.exploration.bonus import IntrinsicRewards
        from rlkit.exploration.runner import action_spaces
        from rlkit.rllib import add_callbacks

        if self.sub_exploration is not None:
            sub = create(self.sub_exploration)
            if isinstance(sub, IntrinsicReward):
                raise self.fail(
                    f"sub_exploration chooses actions; {type(sub).__name__} is an intrinsic reward too"
                )
            sub.configure(config, spaces)
        for agent, space in (spaces or action_spaces(config)).items():
            self.check_space(space, agent)
        add_callbacks(config, [IntrinsicRewards.bind(exploration=self)])

    def check_space(self, space: Any, agent: Any = None) -> None:
        """Raise ValueError if actions of this space cannot be used."""

    @abstractmethod
    def bonus(self, observation_space: gym.Space, action_space: gym.Space, seed: int) -> Bonus:
        """Return the model that gives the bonus, for one module in one env runner."""


class CountBased(IntrinsicReward):
    """bonus = 1 / sqrt(n(s')), n being the visits of the cell of s' (MBIE-EB; Tang et al., 2017, arXiv 1611.04717).

    Args:
        eta: coefficient, or a schedule `[[step, value], …]`.
        bins: cells per dimension of a small bounded Box.
        bits: of the hash of any other Box.
        low, high: bounds of the grid where the space has none, or wider ones than are visited.

    Counts of several runners are added up after every iteration.
    """

    def __init__(
        self,
        eta: float | Sequence[Sequence[float]] = 0.1,
        bins: int = 20,
        bits: int = 32,
        low: Any = None,
        high: Any = None,
        sub_exploration: Mapping[str, Any] | None = None,
    ):
        super().__init__(eta, sub_exploration)
        self.bins, self.bits = at_least("bins", bins, 2), at_least("bits", bits, 1)
        self.low, self.high = low, high

    def bonus(self, observation_space: gym.Space, action_space: gym.Space, seed: int) -> Bonus:
        from rlkit.exploration.bonus import CountBonus
        from rlkit.exploration.counts import StateCounter

        counter = StateCounter(
            observation_space, self.bins, self.bits, self.low, self.high, action_space=action_space
        )
        return CountBonus(counter)


class RND(IntrinsicReward):
    """bonus = squared error of a network that learns the output of a fixed random one.

    It is in units of its running standard deviation. Random network distillation: Burda et al., 2019, arXiv 1810.12894.

    Args:
        intrinsic_reward_coeff: coefficient, or a schedule `[[step, value], …]`; like the next two, RLlib's old name.
        embed_dim: outputs of both networks.
        lr: learning rate of the predictor.
        hiddens: hidden layers of both.

    Observations are normalised by their running mean and deviation and clipped to [-5, 5]. Predictors of
    several runners are averaged after every iteration; the fixed network is the same in all.
    """

    def __init__(
        self,
        intrinsic_reward_coeff: float | Sequence[Sequence[float]] = 5e-3,
        embed_dim: int = 128,
        lr: float = 1e-3,
        hiddens: Sequence[int] = (64, 64),
        sub_exploration: Mapping[str, Any] | None = None,
    ):
        super().__init__(intrinsic_reward_coeff, sub_exploration)
        self.embed_dim, self.lr = at_least("embed_dim", embed_dim, 1), above("lr", lr)
        self.hiddens = [at_least("hiddens", size, 1) for size in hiddens]

    def bonus(self, observation_space: gym.Space, action_space: gym.Space, seed: int) -> Bonus:
        from rlkit.exploration.curiosity import RandomNetworkDistillation

        return RandomNetworkDistillation(observation_space, self.embed_dim, self.lr, self.hiddens, seed)


class Curiosity(IntrinsicReward):
    """bonus = ½ ‖φ̂(s') - φ(s')‖², the error of a forward model in features φ.

    The features are trained to tell which action was taken (ICM; Pathak et al., 2017, arXiv 1705.05363).

    Args:
        eta: coefficient, or a schedule `[[step, value], …]`; like the rest, RLlib's old names.
        beta: weight of the forward loss against the inverse loss, 1 - beta.
        feature_dim: size of φ.
        lr: learning rate of all three networks.
        feature_hiddens, inverse_net_hiddens, forward_net_hiddens: their hidden layers.

    Discrete actions by cross-entropy, continuous ones by squared error. Networks of several runners are
    averaged after every iteration.
    """

    def __init__(
        self,
        eta: float | Sequence[Sequence[float]] = 1.0,
        beta: float = 0.2,
        feature_dim: int = 288,
        lr: float = 1e-3,
        feature_hiddens: Sequence[int] = (64,),
        inverse_net_hiddens: Sequence[int] = (256,),
        forward_net_hiddens: Sequence[int] = (256,),
        sub_exploration: Mapping[str, Any] | None = None,
    ):
        super().__init__(eta, sub_exploration)
        self.beta, self.feature_dim = probability("beta", beta), at_least("feature_dim", feature_dim, 1)
        self.lr = above("lr", lr)
        self.feature_hiddens = [at_least("feature_hiddens", n, 1) for n in feature_hiddens]
        self.inverse_net_hiddens = [at_least("inverse_net_hiddens", n, 1) for n in inverse_net_hiddens]
        self.forward_net_hiddens = [at_least("forward_net_hiddens", n, 1) for n in forward_net_hiddens]

    def check_space(self, space: Any, agent: Any = None) -> None:
        if type(space).__name__ not in ("Discrete", "MultiDiscrete", "Box"):
            raise self.fail(f"the action space is {space}, expected Discrete, MultiDiscrete or Box")

    def bonus(self, observation_space: gym.Space, action_space: gym.Space, seed: int) -> Bonus:
        from rlkit.exploration.curiosity import CuriosityModel

        sizes = (self.feature_hiddens, self.inverse_net_hiddens, self.forward_net_hiddens)
        return CuriosityModel(
            observation_space, action_space, self.beta, self.feature_dim, self.lr, sizes, seed
        )
