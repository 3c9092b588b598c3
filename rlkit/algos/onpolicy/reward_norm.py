"""Rewards in units of the running deviation of discounted returns, as Stable-Baselines3's VecNormalize scales them.

    R_t = gamma R_{t-1} + r_t, from 0 in each episode;     clip(r / sqrt(variance of R + 1e-8), -10, 10)

The learner alone sees scaled rewards: callbacks, metrics and evaluations have the environment's own. Source: Engstrom
et al., Implementation Matters in Deep Policy Gradients, arXiv 2005.12729, appendix; Gymnasium's NormalizeReward.
Deviation: all rewards of a batch are divided by one number, of the statistics that the batch has entered;
VecNormalize divides each by the number of its own step, so that equal rewards of one episode differ.

Legend: T iterations, N environments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from rlkit import state
from rlkit.algos.onpolicy.learner import check_finite
from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.algos.sampling.normalise import CLIP, Moments

NAME = "reward_norm"


def discounted(fragment: ArrayFragment, gamma: float, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return R of every step of a fragment, in the order of time, (steps,), and what goes on behind it, (N,).

    Args:
        fragment: (T, N).
        gamma: discount.
        begin: (N,) R before its first iteration.
    """
    running, rows = begin, []
    for t in range(len(fragment.rewards)):
        running = gamma * running + fragment.rewards[t]
        rows.append(running)
        running = np.where(fragment.done[t] | fragment.fresh[t], 0.0, running)
    return np.stack(rows)[~fragment.fresh], running


class RewardNorm:
    """The statistics of one agent's returns.

    Attributes:
        moments: of R.
    """

    def __init__(self, gamma: float):
        self.gamma = gamma
        self.moments = Moments.prior(())
        self._running: dict[Any, Any] = {}  # R of what goes on: (N,) by runner, a number by episode id

    def learn(self, samples: Iterable[Any], module_id: str) -> None:
        """Let the returns of a batch enter.

        Args:
            samples: `ArrayFragment`s and single-agent episodes, each runner's in their order.
            module_id: whose rewards they are, for the message.

        Raises:
            RunFailed: a reward that is NaN or inf.
        """
        going: dict[Any, Any] = {}
        found: list[np.ndarray] = []
        for sample in samples:
            if isinstance(sample, ArrayFragment):
                check_finite(module_id, "reward", sample.rewards[~sample.fresh])
                key: Any = sample.runner
                count = sample.rewards.shape[1]
                begin = going.get(key, self._running.get(key, np.zeros(count)))
                if sample.times is not None:  # environments that were built anew
                    begin = np.where(sample.times == 0, 0.0, begin)
                values, going[key] = discounted(sample, self.gamma, begin)
                found.append(values)
                continue
            rewards = np.asarray(sample.get_rewards(), np.float64)
            check_finite(module_id, "reward", rewards)
            running = going.get(sample.id_, self._running.get(sample.id_, 0.0))
            for reward in rewards.tolist():
                running = self.gamma * running + reward
                found.append(np.array([running]))
            if not sample.is_done:
                going[sample.id_] = running
        self._running = going
        if found:
            self.moments = self.moments.and_(Moments.of(np.concatenate(found)))

    @property
    def deviation(self) -> float:
        """What rewards are divided by."""
        return float(self.moments.deviation)

    def scaled(self, fragment: ArrayFragment) -> ArrayFragment:
        """Return a fragment with scaled rewards; the one given stays as it is."""
        return replace(fragment, rewards=(fragment.rewards / self.deviation).clip(-CLIP, CLIP))

    def get_state(self) -> dict[str, Any]:
        return {"moments": asdict(self.moments)}

    def set_state(self, saved: Mapping[str, Any]) -> None:
        self.moments = Moments(**saved["moments"])


def attach_reward_norm(algorithm: Any) -> RewardNorm | None:
    """Return the statistics of an algorithm that normalises rewards, kept in its checkpoints; None for any other."""
    if not getattr(algorithm.config, "normalize_rewards", False):
        return None
    norm = RewardNorm(algorithm.config.gamma)
    state.attach(algorithm, NAME, norm)
    return norm
