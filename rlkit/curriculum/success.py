"""Was an episode a success? What the environment says in its last info, or a rule on the episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INFO_KEYS = ("success", "is_success")


@dataclass(frozen=True)
class SuccessRule:
    """How an episode is judged; one of the fields, else the info keys `success` and `is_success`.

    Attributes:
        info: key of the last step's info whose truth is the success; for several agents their mean.
        return_at_least: an undiscounted (team) return that counts as success.
        terminated: success is the episode's termination, in contrast to running out of time.
    """

    info: str | None = None
    return_at_least: float | None = None
    terminated: bool = False

    def __post_init__(self) -> None:
        if (self.info is not None) + (self.return_at_least is not None) + self.terminated > 1:
            raise ValueError("success: give one of info, return_at_least, terminated")

    def of(self, chunks: list[Any]) -> float | None:
        """Judge a finished episode from its chunks (SingleAgentEpisode or MultiAgentEpisode), oldest first."""
        last = chunks[-1]
        if self.return_at_least is not None:
            return float(team_return(chunks) >= self.return_at_least)
        if self.terminated:
            return float(last.is_terminated)
        keys = (self.info,) if self.info else INFO_KEYS
        if not hasattr(last, "agent_episodes"):
            return _said(last, keys)
        ends: dict[Any, Any] = {}  # an agent that left early is in an earlier chunk alone
        for chunk in chunks:
            ends |= {a: e for a, e in chunk.agent_episodes.items() if len(e) or a not in ends}
        said = [value for episode in ends.values() if (value := _said(episode, keys)) is not None]
        return sum(said) / len(said) if said else None


def team_return(chunks: list[Any]) -> float:
    """Return the undiscounted return of an episode from its chunks, with what agents that never act were paid."""
    paid = getattr(chunks[-1], "returns", None)  # of an `EnvEpisode`, since the reset
    return float(sum(paid.values()) if paid else sum(map(_return, chunks)))


def _return(chunk: Any) -> float:
    """`chunk.get_return()` in a quarter of its time, where the rewards are still a list."""
    rewards = getattr(chunk, "rewards", None)
    if rewards is not None and isinstance(rewards.data, list):
        return float(sum(rewards.data[rewards.lookback :]))
    return float(chunk.get_return())


def _said(episode: Any, keys: tuple[str, ...]) -> float | None:
    if not len(episode.infos):
        return None
    info = episode.get_infos(-1)
    if isinstance(info, Mapping):
        for key in keys:
            if key in info:
                return float(info[key])
    return None
