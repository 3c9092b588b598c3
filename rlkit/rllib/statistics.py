"""Statistics of RLlib's metrics logger that can be sent between processes; imported by its own name, needs ray."""

from __future__ import annotations

from ray.rllib.utils.metrics.stats.mean import MeanStats

__all__ = ["EpisodeMean", "MeanStats"]


class EpisodeMean(MeanStats):
    """The mean over episodes, wherever they were played and however many there were in a sample.

    `MeanStats` sends the mean of a sample on, and means of means are what an iteration reports (2.60, its docstring
    says so): one episode in a short sample counts as much as ten in another. Here every value goes on.
    """

    def reduce(self, compile: bool = True) -> float | EpisodeMean:
        if compile:
            found: float = super().reduce(compile=True)
            return found
        sent: EpisodeMean = self.clone()
        sent.values = list(self.values)
        self._set_values([])
        return sent
