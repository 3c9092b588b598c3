"""The joint runner for on-policy learners: a sample is one `TeamFragment`, with log-probabilities.

The short way needs a fixed team. Agents that come, go or take turns, and policies that change between episodes, show
only when they do: then the sample is dropped, the log says why once, and RLlib's loop samples episodes from there on.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from rlkit.algos.sampling.joint_envs import RosterError
from rlkit.algos.sampling.joint_rows import JointRows
from rlkit.algos.sampling.joint_runner import JointEnvRunner
from rlkit.algos.sampling.team_fragment import of_rows
from rlkit.errors import UsageError
from rlkit.replay.ring import Fragment

logger = logging.getLogger(__name__)


class TeamEnvRunner(JointEnvRunner):
    """Returns `TeamFragment`s, or MultiAgentEpisodes where the short way is impossible.

    With `config.critic_input` "state" it also asks every environment for its `state()`.
    """

    keeps_outputs = True
    _states: np.ndarray | None = None
    _played: list[str]

    def short_way(self) -> str | None:
        if not self.config.in_evaluation and not getattr(self.config, "array_fragments", False):
            return "the learner reads episodes"
        return super().short_way()

    def sample_short(self, num_timesteps: int, explore: bool, force_reset: bool) -> list[Any]:
        try:
            return super().sample_short(num_timesteps, explore, force_reset)
        except RosterError as error:
            self.why_episodes = error.what
            logger.warning(
                "sampling on arrays is not possible here, RLlib's loop samples episodes: %s", error.what
            )
        self._module_steps.clear()
        self.forget()
        found: list[Any] = self.collect(num_timesteps=num_timesteps, explore=explore, force_reset=True)
        return found

    def _collected(self, rows: JointRows, fragments: list[Fragment]) -> list[Any]:
        return [of_rows(rows, dict(zip(self.roster.agents, self._played, strict=True)), self._states)]

    def _sample_joint(self, steps: int, explore: bool, force_reset: bool) -> list[Any]:
        self._states = None
        return super()._sample_joint(steps, explore, force_reset)

    def _start(self) -> None:
        self._played = []
        super()._start()

    def _introduce(self, envs: np.ndarray, infos: Any) -> None:
        super()._introduce(envs, infos)
        assert self._acting is not None
        for row in envs.tolist():
            self._played = self._played or list(self._acting.modules[row])
            if self._acting.modules[row] != self._played:
                raise RosterError(f"{self.roster.name}: the policy of an agent changes between episodes")

    def _fragment(self, rows: JointRows, row: int, *, done: bool) -> Fragment:
        """As of every joint runner; without steps where no hook looks at them, since the sample is all rows at once."""
        if self._sees_end:
            return super()._fragment(rows, row, done=done)
        episode, length = self.current[row], int(rows.cursor[row] - rows.begin[row])
        self._count_modules(episode, length)
        return Fragment(episode.id_, int(self._chunk_starts[row]), length, {}, {}, done)

    def _again(self, finished: list[Fragment], steps: int, explore: bool) -> list[Any]:
        return self._sample_joint(steps, explore, force_reset=True)

    def _observe(self, rows: JointRows, envs: np.ndarray | None = None) -> None:
        super()._observe(rows, envs)
        if getattr(self.config, "critic_input", None) != "state":
            return
        chosen = rows.every if envs is None else envs
        found = np.stack([self._state(e) for e in chosen.tolist()])
        if self._states is None:
            self._states = np.zeros((*rows.rewards.shape[:2], found.shape[1]), np.float32)
        self._states[chosen, rows.cursor[chosen]] = found

    def _state(self, row: int) -> np.ndarray:
        """Return the global state of an environment, (S,)."""
        env = self.env.envs[row]
        state = getattr(getattr(env, "unwrapped", env), "state", None)
        if not callable(state):
            raise UsageError(
                f"{self.roster.name} has no state(), which critic_input: state reads; write critic_input: observations"
            )
        return np.asarray(state(), np.float32).reshape(-1)
