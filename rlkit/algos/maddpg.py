"""MADDPG and MATD3: actors that see their own observation, critics that see everybody's.

Papers: Lowe, Wu, Tamar, Harb, Abbeel, Mordatch, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
Environments", NeurIPS 2017 (arXiv 1706.02275v3); Ackermann et al., "Reducing Overestimation Bias in Multi-Agent
Domains Using Double Centralized Critics" (MATD3, arXiv 1910.01465). Reference code: github.com/openai/maddpg.

    update          rlkit.algos.centralised.update     equations   rlkit.algos.centralised.losses
    actors, critics rlkit.algos.centralised.module     options     rlkit.algos.centralised.config

Deviations from the reference code:
1. Box actions are deterministic, tanh-squashed, with Gaussian noise for exploration; the code samples a Gaussian.
2. Discrete actions are integers for the environment and one-hot for the critics; the code sends soft vectors.
3. Termination stops the bootstrap, truncation does not; in the code's environments nothing ever terminates.
4. All agents take the same rows in an update, as in the code; policies of equal shape are computed as one.
5. A policy may play several agents; its critic then sees the judged agent first, and which one it is.
6. Absent agents (dead, not there yet) are zeros in the joint row and masked out of their own losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlkit import state
from rlkit.algos.centralised.config import MADDPGConfig, MATD3Config
from rlkit.algos.centralised.ensembles import INDEX, draw_rows, slots, with_index
from rlkit.algos.centralised.joint import Joint
from rlkit.algos.centralised.learner import JOINT, LATEST
from rlkit.algos.centralised.rewards import RewardStatistics
from rlkit.algos.learning.minibatches import map_arrays
from rlkit.algos.offpolicy.step import OffPolicy
from rlkit.replay import Fragment, Replay
from rlkit.replay.buffer import ACTIONS, N_STEP, OBS, REWARDS, TERMINATEDS, TRUNCATEDS, WEIGHTS
from rlkit.replay.columns import Column
from rlkit.replay.episodes import ACTED, PRESENT, agent_fragments, joint_columns, joint_fragments

__all__ = ["JOINT", "MADDPG", "MATD3", "MADDPGConfig", "MATD3Config"]


class MADDPG(OffPolicy):
    """Multi-agent DDPG on joint replay. `self.joint` says who plays whom."""

    joint: Joint

    @classmethod
    def get_default_config(cls) -> MADDPGConfig:
        return MADDPGConfig()

    # Replay ----------------------------------------------------------------------------------------------

    def make_replays(self) -> None:
        """Build one buffer of joint rows."""
        config = self.config
        self.extras = ()
        self.joint, self.sequence = next(iter(self.learner_group.foreach_learner(_facts_of))).get()
        agents, spaces = self.joint.agents, self.joint.spaces
        seen, done = ({a: spaces[self.joint.module_of[a]][i] for a in agents} for i in (0, 1))
        self.columns = joint_columns(agents, seen, done)
        states, steps = self.columns
        self.team_sizes: dict[str, int] = {}
        if config.has_ensembles:
            self.team_sizes = config.teams_and_sizes(list(agents))[1]
            steps = {**steps, INDEX: Column.of(INDEX, shape=(len(self.team_sizes),), dtype=np.int8)}
        buffer = config.replay_buffer_config
        self.replays[JOINT] = Replay(
            int(buffer["capacity"]),
            states,
            steps,
            agents=len(agents),
            alpha=float(buffer.get("alpha", 0.6)) if config.prioritized else None,
            seed=config.seed,
        )
        self.rewards = RewardStatistics(len(agents))
        state.attach(self, "rewards", state.Values(self.rewards.get_state, self.rewards.set_state))

    def add_to_replay(self, samples: list[Any]) -> None:
        """Add a sample: episodes, or joint fragments that a runner has made already."""
        fragments = [s for s in samples if isinstance(s, Fragment)]
        for episode in samples:
            if isinstance(episode, MultiAgentEpisode):
                made = joint_fragments([episode], self.joint.agents, *self.columns)
                if self.team_sizes:
                    facts = episode.id_, episode.custom_data, self.team_sizes
                    made = (with_index(part, *facts) for part in made)
                fragments += made
        alone = [s for s in samples if isinstance(s, SingleAgentEpisode)]
        for parts in agent_fragments(alone, default_module=JOINT).values():
            fragments += [_as_joint(part, self.joint.agents[0]) for part in parts]
        check_turns(fragments, self.joint.agents)
        if self.config.standardize_rewards:
            self.rewards.see(fragments)
        self.replays[JOINT].add(fragments)

    def draw(self, module_id: str, updates: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw minibatches: columns (K, B, ...), or with ensembles {slot: columns}; see `MADDPGLearner`."""
        config, replay = self.config, self.replays[JOINT]
        size = config.total_train_batch_size
        if self.team_sizes:
            drawn: dict[str, Any] = {}
            for team, index in slots(self.team_sizes):
                place = list(self.team_sizes).index(team)
                found = draw_rows(replay, place, index, size, updates)
                if found is not None:
                    drawn[f"{team}/{index}"] = self._columns(found)
            return np.zeros((updates, size), np.int64), drawn
        if self.recurrent:
            starts = replay.draw_starts(max(1, size // self.sequence), updates, config.burn_in_len)
            flat = replay.sequences(starts.reshape(-1), self.sequence)
            batch = map_arrays(flat, lambda a: a.reshape(*starts.shape, *a.shape[1:]))
            return starts, self._standardized(batch)
        rows = replay.draw(size, updates)
        batch = self._columns(rows)
        batch[WEIGHTS] = replay.weights(rows, float(config.replay_buffer_config.get("beta") or 0.0))
        if config.infer_policies:
            batch[LATEST] = self._columns(latest_rows(replay, updates, config.infer_batch_size))
        return rows, batch

    def _columns(self, rows: np.ndarray) -> dict[str, Any]:
        steps = self.config.n_step
        n_step = steps if isinstance(steps, int) else (int(steps[0]), int(steps[1]))
        batch = self.replays[JOINT].transitions(rows, n_step=n_step, gamma=self.config.gamma)
        return self._standardized(batch)

    def _standardized(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.config.standardize_rewards:
            batch[REWARDS] = self.rewards.standardized(batch[REWARDS], batch[N_STEP], self.config.gamma)
        return batch


class MATD3(MADDPG):
    """MADDPG with twin critics, delayed policies and smoothed targets."""

    @classmethod
    def get_default_config(cls) -> MADDPGConfig:
        return MATD3Config()


def _facts_of(learner: Any) -> tuple[Joint, int]:
    """The joint roster, and the length of training sequences."""
    module = next(iter(learner.module.values())).unwrapped()
    return module.options["joint"], int(module.model_config.get("max_seq_len", 20))


def latest_rows(replay: Replay, updates: int, size: int) -> np.ndarray:
    """Return the newest rows, oldest first, `size` for each update: (K, size). Few rows are repeated."""
    count = min(len(replay), updates * size)
    rows = (replay.ring.head - count + np.arange(count)) % replay.capacity
    return np.resize(rows, (updates, size))


def check_turns(fragments: Sequence[Fragment], agents: Sequence[str]) -> None:
    """Raise ValueError for agents that take turns: what follows an action is then not in the next joint row."""
    if not fragments:
        return
    turns = np.concatenate([f.steps[ACTED] for f in fragments])
    ended = np.concatenate([f.steps[TERMINATEDS] for f in fragments])
    there = np.concatenate([f.states[PRESENT][1:] for f in fragments])
    acted, followed = turns.sum(axis=0), (turns & (there | ended)).sum(axis=0)
    for agent, steps, seen in zip(agents, acted.tolist(), followed.tolist(), strict=True):
        if steps >= 32 and seen < steps / 2:
            raise ValueError(
                f"agent {agent!r} acted in {steps} steps and saw the next one in {seen} of them; MADDPG needs "
                "agents that act together, not in turns (env_config: {api: parallel} where the environment has it)"
            )


def _as_joint(part: Fragment, agent: str) -> Fragment:
    """The fragment of a single agent as a joint row of one."""
    flags = {name: np.asarray(part.steps[name])[:, None] for name in (REWARDS, TERMINATEDS, TRUNCATEDS)}
    ones = np.ones((part.length + 1, 1), bool)
    return Fragment(
        part.key,
        part.start,
        part.length,
        {OBS: {agent: part.states[OBS]}, PRESENT: ones},
        {ACTIONS: {agent: part.steps[ACTIONS]}, ACTED: ones[:-1], **flags},
        part.done,
    )
