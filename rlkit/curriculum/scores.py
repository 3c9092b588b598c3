"""What the critic got wrong in each episode: computed in the learner, joined to the runner's report on the driver.

A connector piece behind RLlib's `GeneralAdvantageEstimation` (2.60) sees episodes, value targets and the module. The
value predictions are not kept in the batch, so they cost one more pass through the value network per update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.postprocessing.zero_padding import unpad_data_if_necessary

from rlkit import rllib
from rlkit.curriculum.base import EpisodeReport

Mark = tuple[int, ...]
KEPT = 100_000  # scores of episodes whose report never came (their runner died)


def td_errors(advantages: np.ndarray, gamma: float, lambda_: float) -> np.ndarray:
    """Return the one-step TD errors that GAE was made of: δ_t = A_t - γλ A_{t+1}, and δ_T = A_T.

    Args:
        advantages: unstandardised GAE advantages of one episode (chunk), (T,).
    """
    errors = advantages.copy()
    errors[:-1] -= gamma * lambda_ * advantages[1:]
    return errors


class EpisodeScores(ConnectorV2):
    """Sums |value target - value| or |TD error| over the steps of each episode, under the episode's mark."""

    def __init__(self, key: str, score: Literal["value_loss", "td"], gamma: float, lambda_: float):
        super().__init__(None, None)
        self.key, self.score, self.gamma, self.lambda_ = key, score, gamma, lambda_
        self.sums: dict[Mark, tuple[float, int]] = {}

    def __call__(
        self, *, rl_module: Any, batch: dict[str, Any], episodes: list[Any], **kwargs: Any
    ) -> dict[str, Any]:
        marked = [
            (whole.custom_data.get(self.key), episode)
            for whole in episodes
            for episode in self.single_agent_episode_iterator([whole], agents_that_stepped_only=False)
        ]
        for module_id, columns in batch.items():
            if Postprocessing.VALUE_TARGETS not in columns:
                continue
            module = rl_module[module_id]
            if isinstance(module, ValueFunctionAPI):
                mine = [(mark, e) for mark, e in marked if e.module_id in (None, module_id)]
                self._add(module, columns, mine)
        return batch

    def _add(self, module: Any, columns: Mapping[str, Any], marked: list[tuple[Mark | None, Any]]) -> None:
        lengths = [len(episode) for _, episode in marked]  # each one step longer than the episode was
        values = unpad_data_if_necessary(lengths, convert_to_numpy(module.compute_values(columns)))
        targets = unpad_data_if_necessary(lengths, convert_to_numpy(columns[Postprocessing.VALUE_TARGETS]))
        start = 0
        for (mark, _), length in zip(marked, lengths, strict=True):
            errors = (targets - values)[start : start + length - 1]
            start += length
            if mark is None:
                continue
            if self.score == "td":
                errors = td_errors(errors, self.gamma, self.lambda_)
            total, steps = self.sums.get(mark, (0.0, 0))
            self.sums[mark] = (total + float(np.abs(errors).sum()), steps + len(errors))

    def pop(self) -> dict[Mark, tuple[float, int]]:
        """Return and forget what was summed since the last call."""
        sums, self.sums = self.sums, {}
        return sums


class Scores:
    """The driver's side: installs the piece in every learner, and gives each report its episode's mean score.

    Raises:
        ValueError: the algorithm has no GAE in its learner pipeline.
    """

    def __init__(self, algorithm: Any, key: str, score: Literal["value_loss", "td"]):
        self._sums: dict[Mark, tuple[float, int]] = {}
        config = algorithm.config
        if not hasattr(config, "lambda_"):
            raise ValueError(
                "type: plr scores episodes with the critic of an algorithm with GAE (PPO); got "
                f"{type(algorithm).__name__}; use type: learnability or learning_progress"
            )
        gamma, lambda_ = config.gamma, config.lambda_

        def install(learner: Any) -> bool:
            return rllib.append_after_gae(learner, EpisodeScores(key, score, gamma, lambda_))

        if not all(_each(algorithm, install)):
            raise ValueError(
                f"{type(algorithm).__name__} has no GAE in its learners; type: plr needs it (PPO)"
            )

    def fill(self, algorithm: Any, reports: list[EpisodeReport]) -> None:
        """Set `outcome.score` of every report whose episode the learners have seen."""
        for sums in _each(algorithm, _pop):
            for mark, (total, steps) in sums.items():
                before = self._sums.get(mark, (0.0, 0))
                self._sums[mark] = (before[0] + total, before[1] + steps)
        for report in reports:
            total, steps = self._sums.pop((report.life, *report.order), (0.0, 0))
            report.outcome.score = total / steps if steps else None
        while len(self._sums) > KEPT:
            self._sums.pop(next(iter(self._sums)))


def _pop(learner: Any) -> dict[Mark, tuple[float, int]]:
    pieces = [piece for piece in rllib.learner_pieces(learner) if isinstance(piece, EpisodeScores)]
    return pieces[0].pop() if pieces else {}


def _each(algorithm: Any, function: Any) -> list[Any]:
    results = algorithm.learner_group.foreach_learner(function)
    return [
        result.get() if hasattr(result, "get") and hasattr(result, "ok") else result for result in results
    ]
