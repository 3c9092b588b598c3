"""The on-policy training step: whole fragments from all env runners, one learner call, weights back.

`OnPolicy` goes before an RLlib algorithm class, `OnPolicyLearner` (see `rlkit.algos.onpolicy.learner`) before its
learner. Array runners return `ArrayFragment`s. Episodes, which every other runner returns, become the same arrays; so
callbacks, connectors in front of the module, trajectory postprocessors and several agents work as with RLlib. What
needs RLlib's own learner pipeline gets it, with episodes, and the log says why once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
    WEIGHTS_SEQ_NO,
)
from ray.rllib.utils.numpy import convert_to_numpy

from rlkit import rllib
from rlkit.algos.onpolicy.episodes import fragments_of
from rlkit.algos.onpolicy.kl import attach_kl_coeffs
from rlkit.algos.onpolicy.learner import OnPolicyLearner, check_finite
from rlkit.algos.onpolicy.reward_norm import attach_reward_norm
from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.algos.sampling.fragment import Patience, sample_fragment
from rlkit.algos.sampling.team_fragment import TeamFragment
from rlkit.errors import UsageError

logger = logging.getLogger(__name__)

SAMPLE = "sample"  # tag of the calls that sample ahead

Fragments = dict[str, list[Any]]  # by module: `ArrayFragment`s, or `TeamFragment`s for critics of teams


class OnPolicy(Algorithm):
    """Mixin for algorithms that learn from the newest fragments and forget them."""

    def setup(self, config: Any) -> None:
        super().setup(config)
        self._patience = Patience()
        self._reason: str | None = None
        self._decided = False
        self._states: dict[str, Any] = {}  # initial states of the modules that have one, numpy
        attach_kl_coeffs(self)
        self._reward_norm = attach_reward_norm(self)

    def training_step(self) -> None:
        """Sample, learn, sync: see the module's docstring."""
        if not self._decided:
            self._decided, self._reason = True, self.why_rllib()
            self.push_weights()
            if self._reason:
                logger.warning(
                    "%s learns with RLlib's own learner pipeline: %s", type(self).__name__, self._reason
                )
        before = self._steps(NUM_ENV_STEPS_SAMPLED_LIFETIME)
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            samples = self.sample()
        if not samples:
            return
        if self.config.overlap_sampling:
            self._sample_ahead()
        sampled = self._steps(NUM_ENV_STEPS_SAMPLED_LIFETIME) - before
        learn = self.learn_as_rllib if self._reason else self.learn
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            self.metrics.aggregate(learn(samples, sampled), key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.sync_weights()

    def restore_from_path(self, *args: Any, **kwargs: Any) -> None:
        super().restore_from_path(*args, **kwargs)
        self._decided = False

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        restored: list[int] = super().restore_env_runners(env_runner_group)
        if restored and env_runner_group is self.env_runner_group:
            self.push_weights()
        return restored

    def why_rllib(self) -> str | None:
        """Return why RLlib's learner pipeline has to be used, or None."""
        self._states = next(iter(self.learner_group.foreach_learner(_initial_states))).get()
        if self.config.num_learners > 1:
            return f"{self.config.num_learners} learners share each batch"
        answers = [answer.get() for answer in self.learner_group.foreach_learner(_why_rllib)]
        return next((reason for reason in answers if reason), None)

    # Sampling --------------------------------------------------------------------------------------------

    def sample(self) -> list[Any]:
        """Sample from all env runners, one round after the other, until the batch is full.

        Returns:
            Array fragments and episodes; empty if no runner has answered.
        """
        samples: list[Any] = []
        steps = 0
        by_agent = self.config.count_steps_by == "agent_steps"
        counted = NUM_AGENT_STEPS_SAMPLED_LIFETIME if by_agent else NUM_ENV_STEPS_SAMPLED_LIFETIME
        before = self._steps(counted)
        while steps < self.config.total_train_batch_size:
            answers = self._ask_runners()
            if not answers:
                self._patience.wait(self.env_runner_group, self.config.sample_timeout_s)
                break
            self._patience.answered()
            self.metrics.aggregate([metrics for _, metrics in answers], key=ENV_RUNNER_RESULTS)
            samples += [sample for found, _ in answers for sample in found]
            steps = self._steps(counted) - before
        return samples

    def _ask_runners(self) -> list[tuple[Any, Any]]:
        """Let every runner sample once; return what each sampled, and its metrics.

        With `overlap_sampling` they may have been asked before.
        """
        group, timeout = self.env_runner_group, self.config.sample_timeout_s
        if group.num_remote_env_runners() == 0:
            return [self._sample_job()(group.local_env_runner)]
        if self.config.overlap_sampling:
            if not group.num_in_flight_async_reqs(SAMPLE):
                self._sample_ahead()
            ready = group.fetch_ready_async_reqs(tags=SAMPLE, timeout_seconds=timeout)
            answers = [answer for _, answer in sorted(ready, key=lambda pair: pair[0])]
        else:
            answers = group.foreach_env_runner(
                self._sample_job(), local_env_runner=False, timeout_seconds=timeout
            )
        for _, metrics in answers:
            if isinstance(metrics, UsageError):
                raise metrics
        return list(answers)

    def _sample_ahead(self) -> None:
        """Ask all runners for a fragment and go on; they play it with the weights they have now."""
        self.env_runner_group.foreach_env_runner_async(self._sample_job(), tag=SAMPLE)

    def _sample_job(self) -> _Sample:
        return _Sample(self._steps(NUM_ENV_STEPS_SAMPLED_LIFETIME), bool(self._reason))

    def _steps(self, name: str) -> int:
        if name == NUM_ENV_STEPS_SAMPLED_LIFETIME:
            return int(self.metrics.peek((ENV_RUNNER_RESULTS, name), default=0))
        return int(sum(self.metrics.peek((ENV_RUNNER_RESULTS, name), default={}).values()))

    # Learning --------------------------------------------------------------------------------------------

    def learn(self, samples: list[Any], sampled: int) -> list[Any]:
        """Update every trained module in one learner call; return the learner's metrics."""
        fragments = self.by_module(samples)
        if self._reward_norm is not None:
            self._reward_norm.learn(samples, DEFAULT_MODULE_ID)
            fragments = {
                m: [self._reward_norm.scaled(part) for part in parts] for m, parts in fragments.items()
            }
            where = (LEARNER_RESULTS, DEFAULT_MODULE_ID, "reward_deviation")
            self.metrics.log_value(where, self._reward_norm.deviation, window=1)
        given = fragments if self.learner_group.is_local else ray.put(fragments)
        job = _Update(given, sampled, self._timesteps())
        answers = [answer.get() for answer in self.learner_group.foreach_learner(job)]
        for answer in answers:
            if isinstance(answer, Exception):  # of a remote learner
                raise answer
        return answers

    def by_module(self, samples: Sequence[Any]) -> Fragments:
        """Return what each module learns from: array fragments, of one agent or of a team, and episodes as such."""
        fragments: Fragments = {}
        for sample in samples:
            if isinstance(sample, ArrayFragment):
                fragments.setdefault(DEFAULT_MODULE_ID, []).append(sample)
            elif isinstance(sample, TeamFragment):
                for module in sample.modules:
                    found = sample.of_module(module)
                    if found is not None:
                        fragments.setdefault(module, []).append(found)
        episodes = [sample for sample in samples if not isinstance(sample, ArrayFragment | TeamFragment)]
        if episodes:
            states = self._states.get if self._states else None
            for module, fragment in fragments_of(
                episodes, default_module=DEFAULT_MODULE_ID, initial_state=states
            ).items():
                fragments.setdefault(module, []).append(fragment)
        return fragments

    def learn_as_rllib(self, samples: list[Any], sampled: int) -> list[Any]:
        """Update from episodes, through RLlib's learner pipeline and its minibatches."""
        config = self.config
        for episode in samples:
            check_rewards(episode)
        before = self._steps(NUM_ENV_STEPS_SAMPLED_LIFETIME) - sampled
        self.learner_group.foreach_learner(functools.partial(_set_schedules, timestep=before))
        results: list[Any] = self.learner_group.update(
            episodes=samples,
            timesteps=self._timesteps(),
            num_epochs=config.num_epochs,
            minibatch_size=config.minibatch_size,
            shuffle_batch_per_epoch=config.shuffle_batch_per_epoch,
        )
        return results

    def _timesteps(self) -> dict[str, int]:
        names = (NUM_ENV_STEPS_SAMPLED_LIFETIME, NUM_AGENT_STEPS_SAMPLED_LIFETIME)
        return {name: self._steps(name) for name in names}

    def sync_weights(self) -> None:
        """Give the env runners the learner's weights.

        Runners of modules with a state also get the critic's: they compute its states. RLlib (2.60) leaves those
        weights at their first values, since `get_state(inference_only=True)` drops what `_forward` calls.
        """
        group = self.env_runner_group
        acting = not self._states
        if group.num_remote_env_runners():
            group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=acting)
            return
        # RLlib's sync puts the weights into the object store even for the runner of this process
        weights = self.learner_group.get_state(components="learner/rl_module", inference_only=acting)[
            "learner"
        ]
        group.local_env_runner.set_state(
            {k: v for k, v in weights.items() if k in (COMPONENT_RL_MODULE, WEIGHTS_SEQ_NO)}
        )

    def push_weights(self) -> None:
        """Give the env runners the learner's weights, whatever number they have.

        RLlib's runners (2.60, `set_state`) drop weights that are not newer by their count of updates. So a runner keeps
        its own critic until the first update, and after a restore its own weights where it has seen as many updates.
        """
        state = self.learner_group.get_state(components="learner/rl_module", inference_only=not self._states)
        weights = state["learner"][COMPONENT_RL_MODULE]
        remote = self.env_runner_group.num_remote_env_runners()
        self.env_runner_group.foreach_env_runner(_Take(ray.put(weights) if remote else weights))


class _Take:
    """Set a runner's weights: a job for `foreach_env_runner`."""

    def __init__(self, weights: Any):
        self.weights = weights

    def __call__(self, env_runner: Any) -> None:
        env_runner.set_state({COMPONENT_RL_MODULE: self.weights})


class _Sample:
    """Sample one fragment on a runner: a job for `foreach_env_runner`."""

    def __init__(self, env_steps: int, episodes: bool):
        self.env_steps, self.episodes = env_steps, episodes

    def __call__(self, env_runner: Any) -> tuple[Any, Any]:
        if self.episodes and env_runner.config.array_fragments:
            env_runner.config = env_runner.config.copy(copy_frozen=False)
            env_runner.config.array_fragments = False
        return sample_fragment(env_runner, self.env_steps)


class _Update:
    """Update a learner: a job for `foreach_learner`."""

    def __init__(self, fragments: Any, sampled: int, timesteps: Mapping[str, Any]):
        self.fragments, self.sampled, self.timesteps = fragments, sampled, timesteps

    def __call__(self, learner: Any) -> Any:
        fragments: Mapping[str, Sequence[ArrayFragment]] = self.fragments
        if isinstance(fragments, ray.ObjectRef):
            fragments = ray.get(fragments)
        return learner.update_from_fragments(fragments, env_steps=self.sampled, timesteps=self.timesteps)


def check_rewards(episode: Any) -> None:
    """Refuse an episode with a reward that is NaN or inf; RLlib's pipeline makes a number of it and goes on.

    Raises:
        RunFailed: names the module.
    """
    parts = getattr(episode, "agent_episodes", None)
    for part in parts.values() if parts is not None else (episode,):
        check_finite(
            part.module_id or DEFAULT_MODULE_ID, "reward", np.asarray(part.get_rewards(), np.float64)
        )


def _set_schedules(learner: Any, *, timestep: int) -> None:
    """Set what is scheduled to its value when a call begins; RLlib does it when one ends."""
    if isinstance(learner, OnPolicyLearner):
        learner.set_schedules(timestep)


def _initial_states(learner: Any) -> dict[str, Any]:
    modules = {m: learner.module[m].unwrapped() for m in learner.module.keys()}  # noqa: SIM118
    return {m: convert_to_numpy(x.get_initial_state()) for m, x in modules.items() if x.is_stateful()}


def _why_rllib(learner: Any) -> str | None:
    if not isinstance(learner, OnPolicyLearner):
        return f"the learner {type(learner).__name__} has no update_from_fragments"
    if not learner.config.add_default_connectors_to_learner_pipeline:
        return "add_default_connectors_to_learner_pipeline is off"
    pieces = rllib.extra_learner_pieces(learner)
    if pieces:
        return f"the learner connector {', '.join(type(p).__name__ for p in pieces)} reads episodes"
    for module_id in learner.module.keys():  # noqa: SIM118 (a MultiRLModule is no dict)
        module = learner.module[module_id].unwrapped()
        if learner.should_module_be_updated(module_id):
            if not isinstance(module, ValueFunctionAPI):
                return f"module {module_id!r} has no value function"
            if module.is_stateful() and not (module.model_config or {}).get("max_seq_len"):
                return f"module {module_id!r} keeps a state and its model_config has no max_seq_len"
    return None
