"""Prioritised level replay: play again the levels whose value the critic gets wrong.

Jiang, Grefenstette, Rocktäschel 2021, arXiv:2010.03934. Levels are replayed by
    P = (1 - ρ) P_score + ρ P_stale,   P_score ∝ (1 / rank(score))^(1 / β),   P_stale ∝ episodes since last played
and with probability 1 - p a level is new (drawn from the space) or one of the list that was not played yet.

Deviations: p is the constant `replay` (once no level of a list is left unplayed, it is 1); scores come from the
learner's critic, whole episodes at a time, averaged over the chunks an episode was cut into.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rlkit.curriculum.base import Outcome, State
from rlkit.curriculum.levels import Level, LevelCurriculum, TaskList
from rlkit.curriculum.samplers import Task, draw

if TYPE_CHECKING:
    from numpy.random import Generator


class PrioritisedLevelReplay(LevelCurriculum):
    """Replay levels by the critic's error.

    Args:
        tasks, space, levels: as in `LevelCurriculum`.
        score: "value_loss", mean |value target - value| (the paper's L1 value loss, its best), or "td", mean
            |TD error|. Both need an algorithm with GAE (PPO).
        temperature: β; the paper's 0.1.
        staleness: ρ; the paper's 0.1.
        replay: p; the paper's 0.5.
        smoothing: weight of the newest score in a level's average; 1 keeps the last score, as the paper does.
        explore: share of episodes drawn uniformly besides; 0 in the paper.
    """

    needs = frozenset({"score"})

    def __init__(
        self,
        tasks: TaskList | None = None,
        space: Mapping[str, Any] | None = None,
        levels: int = 256,
        explore: float = 0.0,
        score: Literal["value_loss", "td"] = "value_loss",
        temperature: float = 0.1,
        staleness: float = 0.1,
        replay: float = 0.5,
        smoothing: float = 1.0,
    ):
        super().__init__(tasks=tasks, space=space, levels=levels, explore=explore)
        self.score, self.temperature, self.staleness = score, temperature, staleness
        self.replay, self.smoothing = replay, smoothing
        self.episodes = 0

    def sample(self, rng: Generator) -> Task:
        unseen = [level for level in self.levels if level.plays == 0]
        seen = len(self.levels) > len(unseen)
        if (self.space is not None or unseen) and (not seen or rng.random() >= self.replay):
            if self.space is not None:
                return draw(self.space, rng)
            return dict(unseen[int(rng.integers(len(unseen)))].task)
        return super().sample(rng)

    def learn(self, level: Level, outcome: Outcome) -> None:
        self.episodes += 1
        level.notes["played"] = self.episodes
        if outcome.score is not None:
            old = level.notes.get("score", outcome.score)
            level.notes["score"] = old + self.smoothing * (outcome.score - old)

    def weights(self) -> np.ndarray:
        """Return the paper's replay distribution. Levels not played yet have weight 0."""
        seen = np.array([level.plays > 0 for level in self.levels])
        scores = np.array([level.notes.get("score", 0.0) for level in self.levels])
        weights = np.zeros(len(scores))
        if not seen.any():
            return weights
        order = np.argsort(-scores[seen], kind="stable")
        rank = np.empty(len(order))
        rank[order] = np.arange(1, len(order) + 1)
        by_score = (1.0 / rank) ** (1.0 / self.temperature)
        played = np.array([level.notes.get("played", 0) for level in self.levels])[seen]
        stale = (self.episodes - played).astype(float)
        by_staleness = stale / stale.sum() if stale.sum() > 0 else np.full(len(stale), 1.0 / len(stale))
        weights[seen] = (1 - self.staleness) * by_score / by_score.sum() + self.staleness * by_staleness
        return weights

    def metrics(self) -> dict[str, Any]:
        """Return also `score/<level>`: the learner's error on each level of a list."""
        values = super().metrics()
        if self.space is None:
            values["score"] = {x.name: x.notes["score"] for x in self.levels if "score" in x.notes}
        return values

    @property
    def state(self) -> State:
        return {**LevelCurriculum.state.fget(self), "episodes": self.episodes}  # type: ignore[attr-defined]

    @state.setter
    def state(self, state: State) -> None:
        LevelCurriculum.state.fset(self, state)  # type: ignore[attr-defined]
        self.episodes = state["episodes"]
