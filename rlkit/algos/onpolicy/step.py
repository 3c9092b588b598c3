"""The on-policy training step: whole fragments from all env runners, one learner call, weights back.

`OnPolicy` goes before an RLlib algorithm class, `OnPolicyLearner` (see `rlkit.algos.onpolicy.learner`) before its
learner. Array runners return `ArrayFragment`s. Episodes, which every other runner returns, become the same arrays; so
callbacks, connectors in front of the module, trajectory postprocessors and several agents work as with RLlib. What
needs RLlib's own learner pipeline gets RLlib's own training step, and the log says why once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
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

from rlkit import rllib, state
from rlkit.algos.onpolicy.episodes import fragments_of
from rlkit.algos.onpolicy.kl import attach_kl_coeffs
from rlkit.algos.onpolicy.learner import OnPolicyLearner
from rlkit.algos.sampling.fragment import ArrayFragment
from rlkit.errors import RunFailed, UsageError

logger = logging.getLogger(__name__)

Fragments = dict[str, list[ArrayFragment]]


class OnPolicy(Algorithm):
    """Mixin for algorithms that learn from the newest fragments and forget them."""

    def setup(self, config: Any) -> None:
        super().setup(config)
        self._samples = 0
        self._last_answer = time.monotonic()
        self._reason: str | None = None
        self._decided = False
        attach_kl_coeffs(self)
        state.attach(self, "onpolicy", state.Values(self._progress, self._put_progress))

    def _progress(self) -> dict[str, Any]:
        return {"samples": self._samples}

    def _put_progress(self, saved: Mapping[str, Any]) -> None:
        self._samples = saved["samples"]

    def training_step(self) -> None:
        """Sample, learn, sync: see the module's docstring."""
        if not self._decided:
            self._decided, self._reason = True, self.why_rllib()
            if self._reason:
                logger.warning("%s: RLlib's own training step, because %s", type(self).__name__, self._reason)
        if self._reason:
            super().training_step()
            return
        before = self._steps(NUM_ENV_STEPS_SAMPLED_LIFETIME)
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            fragments = self.sample()
        if not fragments:
            return
        sampled = self._steps(NUM_ENV_STEPS_SAMPLED_LIFETIME) - before
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            self.metrics.aggregate(self.learn(fragments, sampled), key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.sync_weights()

    def why_rllib(self) -> str | None:
        """Return why RLlib's own training step has to be used, or None."""
        if self.config.num_learners > 1:
            return f"{self.config.num_learners} learners share each batch"
        answers = [answer.get() for answer in self.learner_group.foreach_learner(_why_rllib)]
        return next((reason for reason in answers if reason), None)

    # Sampling --------------------------------------------------------------------------------------------

    def sample(self) -> Fragments:
        """Sample from all env runners, one round after the other, until the batch is full.

        Returns:
            {module: fragments}; empty if no runner has answered.
        """
        fragments: Fragments = {}
        steps = 0
        by_agent = self.config.count_steps_by == "agent_steps"
        counted = NUM_AGENT_STEPS_SAMPLED_LIFETIME if by_agent else NUM_ENV_STEPS_SAMPLED_LIFETIME
        before = self._steps(counted)
        while steps < self.config.total_train_batch_size:
            answers = self._ask_runners()
            if not answers:
                self._wait_for_runners()
                break
            self._last_answer = time.monotonic()
            self.metrics.aggregate([metrics for _, metrics in answers], key=ENV_RUNNER_RESULTS)
            for samples, _ in answers:
                self._add(fragments, samples)
            steps = self._steps(counted) - before
        return fragments

    def _ask_runners(self) -> list[tuple[Any, Any]]:
        """Let every runner sample once; return what each sampled, and its metrics."""
        group = self.env_runner_group
        job = _Sample(self._steps(NUM_ENV_STEPS_SAMPLED_LIFETIME), self.config.seed, self._samples)
        self._samples += 1
        if group.num_remote_env_runners() == 0:
            return [job(group.local_env_runner)]
        answers = group.foreach_env_runner(
            job, local_env_runner=False, timeout_seconds=self.config.sample_timeout_s
        )
        for _, metrics in answers:
            if isinstance(metrics, UsageError):
                raise metrics
        return list(answers)

    def _add(self, fragments: Fragments, samples: Any) -> None:
        """Sort what one runner sampled by module."""
        if isinstance(samples, ArrayFragment):
            fragments.setdefault(DEFAULT_MODULE_ID, []).append(samples)
            return
        for module, fragment in fragments_of(samples, default_module=DEFAULT_MODULE_ID).items():
            fragments.setdefault(module, []).append(fragment)

    def _wait_for_runners(self) -> None:
        """Give runners that died time to come back; RLlib restores them before the next training step.

        Raises:
            RunFailed: none has answered for twice `sample_timeout_s`.
        """
        group, timeout = self.env_runner_group, self.config.sample_timeout_s or 60.0
        silent = time.monotonic() - self._last_answer
        if silent > 2 * timeout:
            raise RunFailed(
                f"no env runner has answered for {silent:.0f} s ({group.num_healthy_remote_env_runners()} of "
                f"{group.num_remote_env_runners()} are alive); raise env_runners(sample_timeout_s={timeout:g}) for a "
                f"slow environment, or lower rollout_fragment_length"
            )
        time.sleep(0.2)

    def _steps(self, name: str) -> int:
        if name == NUM_ENV_STEPS_SAMPLED_LIFETIME:
            return int(self.metrics.peek((ENV_RUNNER_RESULTS, name), default=0))
        return int(sum(self.metrics.peek((ENV_RUNNER_RESULTS, name), default={}).values()))

    # Learning --------------------------------------------------------------------------------------------

    def learn(self, fragments: Fragments, sampled: int) -> list[Any]:
        """Update every trained module in one learner call; return the learner's metrics."""
        timesteps = {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self._steps(NUM_ENV_STEPS_SAMPLED_LIFETIME),
            NUM_AGENT_STEPS_SAMPLED_LIFETIME: self._steps(NUM_AGENT_STEPS_SAMPLED_LIFETIME),
        }
        if self.learner_group.is_local:
            job: Any = _Update(fragments, sampled, timesteps)
        else:
            job = _Update(ray.put(fragments), sampled, timesteps)
        return [answer.get() for answer in self.learner_group.foreach_learner(job)]

    def sync_weights(self) -> None:
        """Give the env runners the learner's weights."""
        group = self.env_runner_group
        if group.num_remote_env_runners():
            group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)
            return
        # RLlib's sync puts the weights into the object store even for the runner of this process
        weights = self.learner_group.get_state(components="learner/rl_module", inference_only=True)["learner"]
        group.local_env_runner.set_state(
            {k: v for k, v in weights.items() if k in (COMPONENT_RL_MODULE, WEIGHTS_SEQ_NO)}
        )


class _Sample:
    """Sample one fragment on a runner: a job for `foreach_env_runner`.

    Seeds differ between runners and between samples: RLlib gives runner i the seed `seed + i` and environment j of it
    `seed + i + j`, so that runners share streams, and a restored run repeats its first episodes.
    """

    def __init__(self, env_steps: int, seed: int | None, number: int):
        self.env_steps, self.seed, self.number = env_steps, seed, number

    def __call__(self, env_runner: Any) -> tuple[Any, Any]:
        env_runner.num_env_steps_sampled_lifetime = self.env_steps
        if isinstance(env_runner.module, torch.nn.Module):
            env_runner.module.eval()
        if self.seed is not None and (self.number or env_runner.worker_index):
            words = np.random.SeedSequence(
                [self.seed, env_runner.worker_index or 0, self.number]
            ).generate_state(1)
            rllib.seed_runner(env_runner, int(words[0]) >> 1)
        try:
            with torch.no_grad():
                return env_runner.sample(), env_runner.get_metrics()
        except UsageError as error:
            # raised in a remote runner it would kill the actor, and RLlib would restart that up to 1,000 times
            if env_runner.worker_index:
                return [], error
            raise


class _Update:
    """Update a learner: a job for `foreach_learner`."""

    def __init__(self, fragments: Any, sampled: int, timesteps: Mapping[str, Any]):
        self.fragments, self.sampled, self.timesteps = fragments, sampled, timesteps

    def __call__(self, learner: Any) -> Any:
        fragments: Mapping[str, Sequence[ArrayFragment]] = self.fragments
        if isinstance(fragments, ray.ObjectRef):
            fragments = ray.get(fragments)
        return learner.update_from_fragments(fragments, env_steps=self.sampled, timesteps=self.timesteps)


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
            if module.is_stateful():
                return f"module {module_id!r} is recurrent"
    return None
