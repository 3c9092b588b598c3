"""Observations with mean 0 and variance 1, by running statistics: a connector in front of the module.

    clip((x - mean) / sqrt(variance + 1e-8), -10, 10)

as Gymnasium's NormalizeObservation and Stable-Baselines3's VecNormalize do it, with their constants. Every observation
that a training runner sees enters the statistics, all environments of an iteration as one batch (Chan, Golub, LeVeque,
Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979), and then is normalised by them. In
evaluations, agents and exports they stand still.

Each runner keeps moments of its own, and all of them know what the others had at the last merge. So a merge replaces
and never adds: it may be repeated, or miss a runner, and no observation counts twice. RLlib's MeanStdFilter (2.60) adds
what is new to each runner; where a merge is not heard by all, as when a runner is started anew, it adds that again. It
also takes one observation at a time: 9 times the CPU for 8 environments.

Legend: N environments, O the shape of one observation.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2

from rlkit.algos.sampling.graph import Scale
from rlkit.errors import UsageError

CLIP, EPSILON = 10.0, 1e-8
PRIOR = 1e-4  # observations of mean 0 and variance 1 that every runner begins with


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of numbers, each of the shape O; float64."""

    count: float
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def prior(cls, shape: Sequence[int]) -> Moments:
        """Return what a runner begins with."""
        return cls(PRIOR, np.zeros(shape), np.full(shape, PRIOR))

    @classmethod
    def of(cls, batch: np.ndarray) -> Moments:
        """Return the moments of the rows of a batch (N, O)."""
        mean = batch.mean(axis=0)
        return cls(float(len(batch)), mean, np.square(batch - mean).sum(axis=0))

    def and_(self, other: Moments) -> Moments:
        """Return the moments of both together."""
        count, delta = self.count + other.count, other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + np.square(delta) * (self.count * other.count / count),
        )

    @property
    def deviation(self) -> np.ndarray:
        """sqrt(variance + 1e-8), O."""
        deviation: np.ndarray = np.sqrt(self.squares / self.count + EPSILON)
        return deviation


class NormalizeObservations(ConnectorV2):
    """Normalises Box observations of one agent.

    Attributes:
        runner: index of the env runner whose observations enter the statistics; None where they stand still.
    """

    def __init__(self, input_observation_space: Any = None, input_action_space: Any = None):
        self.runner: int | None = None
        self.known: dict[int, Moments] = {}  # by runner, as far as this one knows
        self._others: Moments | None = None  # of `known` without this runner, once they were added up
        super().__init__(input_observation_space, input_action_space)

    @property
    def own(self) -> Moments:
        """What this runner has seen."""
        return self.known.get(self.runner or 0) or Moments.prior(self.input_observation_space.shape)

    @property
    def total(self) -> Moments:
        """The moments of all runners, by which observations are normalised."""
        own = self.runner or 0
        if self._others is None and any(index != own for index in self.known):
            first, *rest = (self.known[index] for index in sorted(self.known) if index != own)
            self._others = functools.reduce(Moments.and_, rest, first)
        return self.own if self._others is None else self._others.and_(self.own)

    def recompute_output_observation_space(
        self, input_observation_space: gym.Space, input_action_space: gym.Space
    ) -> gym.Space:
        """Return a Box without bounds, so that a model's `scale` finds nothing left to do.

        Raises:
            UsageError: observations that are no vector of real numbers.
        """
        space = input_observation_space
        if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            raise UsageError(
                f"normalize_observations: the observations are {space}, expected a Box of floats; leave it out "
                "(pictures are scaled by `cnn`, and one-hot vectors need nothing)"
            )
        return gym.spaces.Box(-np.inf, np.inf, space.shape, np.float32)

    def rows(self, observations: Any) -> np.ndarray:
        """Return observations (N, O) normalised, float32; the statistics stay."""
        total = self.total
        scaled = (np.asarray(observations, np.float64) - total.mean) / total.deviation
        return scaled.clip(-CLIP, CLIP).astype(np.float32)

    def learn(self, observations: np.ndarray) -> None:
        """Let observations (N, O) enter the statistics of this runner."""
        if self.runner is not None:
            batch = Moments.of(np.asarray(observations, np.float64))
            self.known[self.runner] = self.own.and_(batch)

    # The forms it is asked for ------------------------------------------------------------------------------

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        """RLlib's loop: the last observation of each episode."""
        latest = list(self.single_agent_episode_iterator(episodes))
        if latest:
            seen = np.stack([episode.get_observations(indices=-1) for episode in latest])
            self.learn(seen)
            for episode, row in zip(latest, self.rows(seen), strict=True):
                episode.observation_space = self.observation_space
                episode.set_observations(at_indices=-1, new_data=row)
        return batch

    def arrays(self, num_envs: int) -> Twin:
        """The array runner: all environments of an iteration."""
        return Twin(self)

    def graph(self, agent: Any) -> Scale:
        """An export: fixed numbers."""
        total = self.total
        return Scale(total.mean, total.deviation, CLIP)

    # State ----------------------------------------------------------------------------------------------------

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict:
        """Return the moments by runner."""
        return {"runners": {str(i): asdict(moments) for i, moments in (self.known or {0: self.own}).items()}}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what is known of all runners, this one included."""
        self.known.clear()
        self.known.update({int(i): Moments(**moments) for i, moments in state["runners"].items()})
        self._others = None

    def reset_state(self) -> None:
        """Forget everything."""
        self.known.clear()
        self._others = None

    def merge_states(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the state in which each runner has the moments of whoever saw most of it."""
        merged = copy.deepcopy(self.get_state())
        for state in states:
            for index, moments in state["runners"].items():
                known = merged["runners"].get(index)
                if known is None or moments["count"] > known["count"]:
                    merged["runners"][index] = moments
        return merged


class Twin:
    """An `ArrayConnector`: learns and normalises, all environments at once."""

    def __init__(self, piece: NormalizeObservations):
        self.piece = piece

    def __call__(
        self, observations: Any, infos: list[Any], fresh: np.ndarray, times: np.ndarray
    ) -> tuple[Any, list[Any]]:
        self.piece.learn(observations)
        return self.piece.rows(observations), infos


def learns(pipeline: Any, runner: int) -> None:
    """Tell an env-to-module pipeline that it belongs to a training runner of this index."""
    for piece in pipeline.connectors:
        if isinstance(piece, NormalizeObservations):
            piece.runner = runner
