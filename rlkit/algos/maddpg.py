"""MADDPG and MATD3: actors that see their own observation, critics that see everybody's.

Papers: Lowe, Wu, Tamar, Harb, Abbeel, Mordatch, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
Environments", NeurIPS 2017 (arXiv 1706.02275v3); Ackermann et al., "Reducing Overestimation Bias in Multi-Agent
Domains Using Double Centralized Critics" (MATD3, arXiv 1910.01465). Reference code: github.com/openai/maddpg.

    update          rlkit.algos.maddpg_update     equations   rlkit.algos.maddpg_losses
    actors, critics rlkit.algos.maddpg_module     options     rlkit.algos.maddpg_config

Deviations from the reference code:
1. Box actions are deterministic, tanh-squashed, with Gaussian noise for exploration; the code samples a Gaussian.
2. Discrete actions are integers for the environment and one-hot for the critics; the code sends soft vectors.
3. Termination stops the bootstrap, truncation does not; in the code's environments nothing ever terminates.
4. All agents take the same rows in an update, as in the code; policies of equal shape are computed as one.
5. A policy may play several agents; its critic then sees the judged agent first, and which one it is.
6. Absent agents (dead, not there yet) are zeros in the joint row and masked out of their own losses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlkit.algos.maddpg_config import MADDPGConfig, MATD3Config
from rlkit.algos.maddpg_joint import Joint
from rlkit.algos.maddpg_learner import JOINT
from rlkit.algos.offpolicy import OffPolicy
from rlkit.replay import Fragment, Replay
from rlkit.replay.buffer import ACTIONS, OBS, REWARDS, TERMINATEDS, TRUNCATEDS
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
        self.joint = next(iter(self.learner_group.foreach_learner(_joint_of))).get()
        agents, spaces = self.joint.agents, self.joint.spaces
        seen = {a: spaces[self.joint.module_of[a]][0] for a in agents}
        done = {a: spaces[self.joint.module_of[a]][1] for a in agents}
        self.columns = joint_columns(agents, seen, done)
        buffer = config.replay_buffer_config
        self.replays[JOINT] = Replay(
            int(buffer["capacity"]),
            *self.columns,
            agents=len(agents),
            alpha=float(buffer.get("alpha", 0.6)) if config.prioritized else None,
            seed=config.seed,
        )

    def add_to_replay(self, samples: list[Any]) -> None:
        """Add a sample: episodes, or joint fragments that a runner has made already."""
        fragments = [s for s in samples if isinstance(s, Fragment)]
        teams = [s for s in samples if isinstance(s, MultiAgentEpisode)]
        fragments += joint_fragments(teams, self.joint.agents, *self.columns)
        alone = [s for s in samples if isinstance(s, SingleAgentEpisode)]
        for parts in agent_fragments(alone, default_module=JOINT).values():
            fragments += [_as_joint(part, self.joint.agents[0]) for part in parts]
        self.replays[JOINT].add(fragments)


class MATD3(MADDPG):
    """MADDPG with twin critics, delayed policies and smoothed targets."""

    @classmethod
    def get_default_config(cls) -> MADDPGConfig:
        return MATD3Config()


def _joint_of(learner: Any) -> Joint:
    module = next(iter(learner.module.values())).unwrapped()
    joint: Joint = module.options["joint"]
    return joint


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
