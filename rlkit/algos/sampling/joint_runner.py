"""An env runner for fixed teams: modules run once per step on all agents and environments, steps become columns.

RLlib's `MultiAgentEnvRunner` (2.60) passes every observation and action of every agent through two pipelines of
connectors and appends each to an episode object: 1 ms and more per env step with three agents. `JointEnvRunner`
stacks the observations of all environments, calls each module once, and writes what came of it into the columns of
joint replay. `sample()` returns `rlkit.replay.ring.Fragment`s, equal to what `joint_fragments` makes of RLlib's
episodes (tests/test_joint_runner.py).

Where somebody needs episodes (see `short_way`), when whole episodes or random actions are asked for, and in
evaluation, it is RLlib's runner and returns MultiAgentEpisodes. The first time it says why. With
`env_runners(sampling="episodes")` (`JointSampling`) RLlib's runner is taken from the start.

Episode hooks: `on_episode_created`, `on_episode_start` and `on_episode_end` are called as RLlib calls them. The
episode they see is filled when they look: with the first observation at the start, with all steps at the end.

Legend: E environments, N agents, T steps of a sample, B rows of a module's batch.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.metrics import (
    ENV_RESET_TIMER,
    ENV_STEP_TIMER,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    RLMODULE_INFERENCE_TIMER,
)

from rlkit import rllib
from rlkit.algos.sampling.connectors import PerEpisode
from rlkit.algos.sampling.episode_runner import EpisodeRunner
from rlkit.algos.sampling.joint_acting import Acting
from rlkit.algos.sampling.joint_envs import Copies, JointEnvs, NativeBatch, RosterError, Step, copies
from rlkit.algos.sampling.joint_rows import JointRows, Leaves, TeamLayout
from rlkit.algos.sampling.short_way import UNKNOWN, ShortWay, named, reads, team_needs_episodes
from rlkit.errors import did_you_mean
from rlkit.replay.ring import Fragment

JOINT, EPISODES = "joint", "episodes"
SAMPLING = (JOINT, EPISODES)
EPISODE_HOOKS = ("on_episode_created", "on_episode_start", "on_episode_end")


@dataclass
class _Finished:
    """An episode for the metrics."""

    length: int
    seconds: float
    returns: dict[str, float]
    modules: dict[str, float]


class JointEnvRunner(ShortWay, EpisodeRunner):
    """RLlib's multi-agent runner, on arrays where that is possible.

    Attributes:
        roster: the agents and the layout of their values.
    """

    roster: TeamLayout
    keeps_outputs = False  # see `Acting`
    _acting: Acting | None = None

    def __init__(self, config: Any, **kwargs: Any):
        self._finished: list[_Finished] = []
        self._module_steps: dict[str, int] = defaultdict(int)
        super().__init__(config, **kwargs)

    def make_env(self) -> None:
        super().make_env()
        env = self.env.envs[0].unwrapped
        agents = list(env.possible_agents)
        self.roster = TeamLayout(
            str(self.config.env),
            {agent: env.get_observation_space(agent) for agent in agents},
            {agent: env.get_action_space(agent) for agent in agents},
        )
        self._envs: JointEnvs | None = None
        self.needs_reset = True
        self.why_episodes = UNKNOWN

    def short_way(self) -> str | None:
        return "evaluation" if self.config.in_evaluation else team_needs_episodes(self)

    def forget(self) -> None:
        if self._envs is not None:  # RLlib's loop has no episodes to go on with
            self._envs, self.needs_reset = None, True

    def sample_short(self, num_timesteps: int, explore: bool, force_reset: bool) -> list[Any]:
        steps = num_timesteps / self.num_envs
        if self.config.count_steps_by == "agent_steps":
            steps /= len(self.roster.agents)
        with torch.no_grad():
            return self._sample_joint(math.ceil(steps), explore, force_reset)

    # Environments ------------------------------------------------------------------------------------------

    def _make_envs(self) -> JointEnvs:
        if any(reads(self, hook, "env") for hook in EPISODE_HOOKS):
            return Copies(self.env, self.roster)
        native = getattr(self.env.envs[0].unwrapped, "batched", None)
        if native is None:
            return copies(self.env, self.roster)
        return NativeBatch(native(self.num_envs), self.roster)

    def _start(self) -> None:
        """Start all environments anew, as `_reset_envs_and_episodes` does."""
        self.current = [None] * self.num_envs
        self.earlier_chunks.clear()
        self.begin_shared_data()
        for row in range(self.num_envs):
            self.begin_episode(row)
        if self._envs is None:
            self._envs = self._make_envs()
        begin = time.perf_counter()
        infos = self.try_env(self._envs.reset, self.start_seeds(anew=self.needs_reset))
        if infos is None:
            self._start()
            return
        self.metrics.log_value(ENV_RESET_TIMER, time.perf_counter() - begin, reduce="ema")
        self.needs_reset = False
        # explorations are put in front of modules by on_episode_created and may ask whose row is which
        self._maps_rows, self._sees_start, self._sees_end = (named(self, name) for name in EPISODE_HOOKS)
        self._constants = [piece for piece in self.pipelines[0].connectors if isinstance(piece, PerEpisode)]
        self._acting = Acting(
            self.config, self.module, self.roster, self.num_envs, self.torch_device, self._constants,
            self.keeps_outputs,
        )  # fmt: skip
        self._returns = np.zeros((self.num_envs, len(self.roster.agents)))
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._chunk_starts = np.zeros(self.num_envs, np.int64)
        self._began = [time.perf_counter()] * self.num_envs
        self._infos: list[list[Any]] = [[] for _ in range(self.num_envs)]
        self._introduce(np.arange(self.num_envs), infos)

    def _introduce(self, envs: np.ndarray, infos: Any) -> None:
        """New episodes have their first observation: tell the hooks, and who plays whom."""
        assert self._acting is not None
        assert self._envs is not None
        for row, info in zip(envs.tolist(), infos, strict=True):
            episode = self.current[row]
            self._acting.assign(row, episode)
            self._infos[row] = [info]
            if self._sees_start:
                episode.add_env_reset(
                    observations={
                        agent: self.roster.observation(agent, [leaf[row] for leaf in self._envs.obs])
                        for agent in self.roster.agents
                    },
                    infos=info,
                )
                self.call_hook("on_episode_start", row)
        if self._maps_rows:
            self.map_rows(self._acting.keys([episode.id_ for episode in self.current]))

    # The loop ----------------------------------------------------------------------------------------------

    def _sample_joint(self, steps: int, explore: bool, force_reset: bool) -> list[Any]:
        if force_reset or self.needs_reset or self._envs is None:
            self._start()
        assert self._envs is not None
        assert self._acting is not None
        rows = JointRows(self.roster, self.num_envs, steps)
        self._observe(rows)
        self._acting.prepare(self.module, explore)
        fragments: list[Fragment] = []
        acting = stepping = 0.0
        for taken in range(steps):
            begin = time.perf_counter()
            actions, for_env = self._acting(self._envs.obs, self._time(taken))
            acted = time.perf_counter()
            step: Step | None = self.try_env(self._envs.step, for_env)
            if step is None:
                return self._again(fragments, steps, explore)
            acting += acted - begin
            stepping += time.perf_counter() - acted
            ended = self._record(rows, actions, step)
            if len(ended):
                fragments += [self._finish(rows, row) for row in ended.tolist()]
                infos = self.try_env(self._envs.reset_where, ended)
                if infos is None:
                    return self._again(fragments, steps, explore)
                self._observe(rows, ended)
                self._introduce(ended, infos)
        fragments += [self._pause(rows, row) for row in np.flatnonzero(rows.cursor > rows.begin).tolist()]
        self.metrics.log_value(RLMODULE_INFERENCE_TIMER, acting / steps, reduce="ema")
        self.metrics.log_value(ENV_STEP_TIMER, stepping / steps, reduce="ema")
        self._count(fragments)
        return self._collected(rows, fragments)

    def _collected(self, rows: JointRows, fragments: list[Fragment]) -> list[Any]:
        """Return what `sample` does, from the rows of a whole sample or from their fragments."""
        return fragments

    def _again(self, finished: list[Fragment], steps: int, explore: bool) -> list[Any]:
        """Sample from new environments after a failure; as with RLlib, episodes that were going on are lost."""
        self._count(finished)
        return finished + self._sample_joint(steps, explore, force_reset=True)

    def _observe(self, rows: JointRows, envs: np.ndarray | None = None) -> None:
        """Write the observations, of all environments or of `envs`, where the cursors are."""
        assert self._envs is not None
        rows.observe(self._envs.obs, envs)

    def _time(self, taken: int) -> int:
        """Env steps of all runners, as RLlib estimates them for schedules."""
        runners = self.config.num_env_runners or 1
        return (self.num_env_steps_sampled_lifetime // runners + taken * self.num_envs) * runners

    def _record(self, rows: JointRows, actions: Leaves, step: Step) -> np.ndarray:
        """Write a step; return which environments ended with it."""
        assert self._envs is not None
        assert self._acting is not None
        rows.step(actions, step.rewards, step.terminateds, step.truncateds, self._acting.outputs)
        self._observe(rows)
        self._returns += step.rewards
        self._lengths += 1
        if self._sees_end:
            for row, known in enumerate(self._infos):
                known.append(step.infos[row] if step.infos is not None else {})
        return np.flatnonzero(step.over)

    def _finish(self, rows: JointRows, row: int) -> Fragment:
        """End an episode: its fragment, its metrics, the hooks; then the next one is created."""
        episode = self.current[row]
        fragment = self._fragment(rows, row, done=True)
        modules: dict[str, float] = defaultdict(float)
        returns = dict(zip(self.roster.agents, self._returns[row].tolist(), strict=True))
        for agent, value in returns.items():
            modules[episode.module_for(agent)] += value
        seconds = time.perf_counter() - self._began[row]
        self._finished.append(_Finished(int(self._lengths[row]), seconds, returns, modules))
        if self._sees_end:
            self._fill(episode, rows, row, fragment, seconds)
            self.call_hook("on_episode_end", row)
            self.earlier_chunks.pop(episode.id_, None)
        rows.cut(row)
        self._returns[row] = 0.0
        self._lengths[row] = self._chunk_starts[row] = 0
        self._began[row] = time.perf_counter()
        self.begin_episode(row)
        return fragment

    def _pause(self, rows: JointRows, row: int) -> Fragment:
        """The sample is over, the episode goes on."""
        fragment = self._fragment(rows, row, done=False)
        if self._sees_end:
            episode = self.current[row]
            self._fill(episode, rows, row, fragment, 0.0)
            self.earlier_chunks[episode.id_].append(episode)
            following = MultiAgentEpisode(
                episode.id_,
                observation_space=episode.observation_space,
                action_space=episode.action_space,
                agent_to_module_mapping_fn=episode.agent_to_module_mapping_fn,
                agent_module_ids={agent: episode.module_for(agent) for agent in self.roster.agents},
            )
            rllib.share_custom_data(episode, following)
            self.current[row] = following
            self._infos[row] = self._infos[row][-1:]
        self._chunk_starts[row] = self._lengths[row]
        return fragment

    def _fragment(self, rows: JointRows, row: int, *, done: bool) -> Fragment:
        episode = self.current[row]
        fragment = rows.fragment(row, episode.id_, int(self._chunk_starts[row]), done=done)
        for piece in self._constants:
            fragment = piece.mark(fragment, episode.id_, episode.custom_data)
        self._count_modules(episode, fragment.length)
        return fragment

    def _count_modules(self, episode: Any, steps: int) -> None:
        for agent in self.roster.agents:
            self._module_steps[episode.module_for(agent)] += steps

    def _fill(self, episode: Any, rows: JointRows, row: int, fragment: Fragment, seconds: float) -> None:
        """Give a hook's episode the steps of a fragment."""
        first, last = int(rows.begin[row]), int(rows.cursor[row])
        ended = fragment.done and bool(rows.terminateds[row, last - 1].all())
        rllib.fill_episode(
            episode,
            agents={
                agent: {
                    "observations": fragment.states[Columns.OBS][agent],
                    "observation_space": self.roster.observation_spaces[agent],
                    "infos": [info.get(agent, {}) for info in self._infos[row]],
                    "actions": fragment.steps[Columns.ACTIONS][agent],
                    "action_space": self.roster.action_spaces[agent],
                    "rewards": rows.rewards[row, first:last, i],
                    "terminated": bool(rows.terminateds[row, last - 1, i]) and fragment.done,
                    "truncated": bool(rows.truncateds[row, last - 1, i]) and fragment.done,
                }
                for i, agent in enumerate(self.roster.agents)
            },
            started=fragment.start,
            length=fragment.length,
            terminated=ended,
            truncated=fragment.done and not ended,
            seconds=seconds,
        )

    # Metrics -----------------------------------------------------------------------------------------------

    def _count(self, fragments: list[Fragment]) -> None:
        """Log what `_increase_sampled_metrics` logs item by item."""
        if not fragments:
            return
        log = self.metrics.log_value
        env_steps = sum(fragment.length for fragment in fragments)
        log(NUM_ENV_STEPS_SAMPLED, env_steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps, reduce="lifetime_sum", with_throughput=True)
        episodes = sum(fragment.done for fragment in fragments)
        if episodes:
            log(NUM_EPISODES, episodes, reduce="sum")
            log(NUM_EPISODES_LIFETIME, episodes, reduce="lifetime_sum")
        for agent in map(str, self.roster.agents):  # as RLlib's
            log((NUM_AGENT_STEPS_SAMPLED, agent), env_steps, reduce="sum")
            log((NUM_AGENT_STEPS_SAMPLED_LIFETIME, agent), env_steps, reduce="lifetime_sum")
        for module_id, steps in self._module_steps.items():
            log((NUM_MODULE_STEPS_SAMPLED, module_id), steps, reduce="sum")
            log((NUM_MODULE_STEPS_SAMPLED_LIFETIME, module_id), steps, reduce="lifetime_sum")
        self._module_steps.clear()
        self.count_env_steps(env_steps)

    def get_metrics(self) -> Any:
        self.log_episodes(
            [
                (
                    done.length,
                    sum(done.returns.values()),
                    done.seconds,
                    {str(agent): value for agent, value in done.returns.items()},
                    done.modules,
                    dict.fromkeys(map(str, done.returns), done.length),
                )
                for done in self._finished
            ]
        )
        self._finished.clear()
        return super().get_metrics()


class JointSampling(AlgorithmConfig):
    """Mixin for configs of algorithms whose replay takes joint fragments; stands before the RLlib config class."""

    env_runner_cls: Any

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        self.sampling = JOINT

    def env_runners(
        self, *, sampling: Literal["joint", "episodes"] = NotProvided, **kwargs: Any
    ) -> JointSampling:
        """Set the env runner options.

        Args:
            sampling: `joint` runs each module once per step for all agents and environments and returns columns;
                `episodes` is RLlib's runner, for rosters that change.
            **kwargs: Those of RLlib.
        """
        super().env_runners(**kwargs)
        if sampling is not NotProvided:
            if sampling not in SAMPLING:
                raise ValueError(
                    f"sampling: got {sampling!r}{did_you_mean(sampling, SAMPLING)}; expected {' or '.join(SAMPLING)}"
                )
            self.sampling = sampling
        return self

    def validate(self) -> None:
        if self.env_runner_cls in (None, JointEnvRunner):
            joint = self.sampling == JOINT and self.is_multi_agent
            self.env_runner_cls = JointEnvRunner if joint else None
        super().validate()


__all__ = ["JointEnvRunner", "JointSampling", "RosterError"]
