"""The off-policy training step: sample whole fragments, add columns, update many times in one learner call.

`OffPolicy` goes before an RLlib algorithm class, `OffPolicyConfig` before its config, and `ColumnLearner`
(see `rlkit.algos.learning.learner`) before its learner. One training step is

    fragments from all env runners -> columns -> K updates in one learner call -> weights to the env runners

What RLlib's words mean here is in `rlkit.algos.offpolicy.config`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    REPLAY_BUFFER_ADD_DATA_TIMER,
    REPLAY_BUFFER_RESULTS,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
    WEIGHTS_SEQ_NO,
)
from ray.rllib.utils.numpy import convert_to_numpy

from rlkit import rllib, seeds, state
from rlkit.algos.learning.minibatches import arrays_of, map_arrays, shard
from rlkit.algos.offpolicy.config import OffPolicyConfig
from rlkit.algos.offpolicy.sequences import check_sequences
from rlkit.algos.rules import SEQUENCE
from rlkit.algos.sampling.fragment import Patience, sample_fragment
from rlkit.errors import RunFailed, UsageError
from rlkit.replay import Replay
from rlkit.replay.buffer import ACTIONS, OBS, STATE_IN, WEIGHTS, NStep
from rlkit.replay.columns import Column
from rlkit.replay.episodes import agent_fragments
from rlkit.replay.ring import Ring
from rlkit.replay.saving import SavedReplay

if TYPE_CHECKING:
    from ray.rllib.core.learner.learner import Learner

# rows drawn at once for uniform replay, in bytes of columns
MAX_CHUNK_BYTES = 64 * 2**20
SAMPLE = "sample"

__all__ = ["OffPolicy", "OffPolicyConfig"]


class NotYet(Exception):
    """A module has nothing to learn from until its episodes have gone on."""


class OffPolicy(Algorithm):
    """Mixin for algorithms that learn from columnar replay. `self.replays` holds one buffer per module."""

    def setup(self, config: Any) -> None:
        super().setup(config)
        self.replays: dict[str, Replay] = {}
        self._carry = 0.0
        self._patience = Patience()
        self.recurrent, self.sequences = self._states()
        if self.recurrent and getattr(self.config, "num_atoms", 1) != 1:
            raise ValueError(
                f"num_atoms: got {self.config.num_atoms} with the recurrent modules {sorted(self.recurrent)}, expected "
                "1: RLlib's distributional loss reads single steps"
            )
        ahead = {m: self.config.of_module(m, "n_step") for m in self.recurrent}
        if self.recurrent and (self.config.prioritized or any(n != 1 for n in ahead.values())):
            raise ValueError(
                f"the recurrent modules {sorted(self.recurrent)} learn from sequences, drawn uniformly and one step "
                f"ahead: got replay_buffer_config type {self.config.replay_buffer_config['type']!r} and n_step "
                f"{ahead}, expected type 'EpisodeReplayBuffer' and n_step 1"
            )
        for module_id, length in self.sequences.items():
            each = self.config.total_train_batch_size // max(1, self.config.num_learners)
            check_sequences(module_id, length, self.burn_in, each)
        self.make_replays()
        saved = SavedReplay(self.replays, keep=self.config.store_buffer_in_checkpoints)
        state.attach(self, "replay", saved)
        state.attach(self, "offpolicy", state.Values(self._progress, self._put_progress))

    def _progress(self) -> dict[str, Any]:
        return {"carry": self._carry}

    def _put_progress(self, saved: Mapping[str, Any]) -> None:
        self._carry = saved["carry"]

    @property
    def burn_in(self) -> int:
        """First steps of every sequence that only warm the recurrent state up."""
        return int(getattr(self.config, "burn_in_len", 0))

    def _states(self) -> tuple[dict[str, Any], dict[str, int]]:
        """Return of each recurrent module its initial state, as numpy, and the length of its sequences."""

        def found(learner: Learner) -> tuple[dict[str, Any], dict[str, int]]:
            modules = {mid: learner.module[mid].unwrapped() for mid in learner.module.keys()}  # noqa: SIM118
            keep = {mid: module for mid, module in modules.items() if module.is_stateful()}
            lengths = {mid: module.model_config.get("max_seq_len") for mid, module in keep.items()}
            return (
                {mid: convert_to_numpy(module.get_initial_state()) for mid, module in keep.items()},
                {mid: int(length or SEQUENCE) for mid, length in lengths.items()},
            )

        return next(iter(self.learner_group.foreach_learner(found))).get()

    # Replay ----------------------------------------------------------------------------------------------

    def make_replays(self) -> None:
        """Build one buffer per module that plays in the environment and learns, from the module's own spaces."""
        config = self.config
        buffer = config.replay_buffer_config
        modules = sorted(m for m in self.spaces if not m.startswith("__") and _is_trained(config, m))
        self.extras = {module_id: self.columns_of(module_id) for module_id in modules}
        for module_id in modules:
            obs_space, action_space = self.spaces[module_id]
            states: dict[str, Any] = {OBS: obs_space}
            if module_id in self.recurrent:
                states[STATE_IN] = Column.like(STATE_IN, self.recurrent[module_id])
            self.replays[module_id] = Replay(
                int(buffer["capacity"]),
                states,
                {ACTIONS: action_space, **dict.fromkeys(self.extras[module_id])},
                alpha=float(buffer.get("alpha", 0.6)) if config.prioritized else None,
                seed=seeds.stream(config.seed, "replay", module_id),
            )

    def columns_of(self, module_id: str) -> tuple[str, ...]:
        """Return the further columns of a module's buffer: `replay_buffer_config.columns`."""
        return tuple(self.config.replay_buffer_config.get("columns") or ())

    def add_to_replay(self, episodes: list[Any]) -> None:
        """Add the episodes of one sample to the buffers."""
        fragments = agent_fragments(
            episodes,
            default_module=DEFAULT_MODULE_ID,
            extras=self.extras,
            initial_state=self.recurrent.get if self.recurrent else None,
        )
        for module_id, parts in fragments.items():
            if module_id in self.replays:
                self.replays[module_id].add(parts)

    def draw(self, module_id: str, updates: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw `updates` (K) minibatches of one module; return their rows (K, B) and their columns (K, B, ...)."""
        config, replay = self.config, self.replays[module_id]
        size = config.total_train_batch_size
        if module_id in self.recurrent:
            return self.draw_sequences(replay, self.sequences[module_id], updates)
        rows = replay.draw(size, updates)
        n_step, gamma = (config.of_module(module_id, name) for name in ("n_step", "gamma"))
        batch = replay.transitions(rows, n_step=_n_step(n_step), gamma=gamma)
        batch[WEIGHTS] = replay.weights(rows, float(config.replay_buffer_config.get("beta") or 0.0))
        return rows, batch

    def draw_sequences(self, replay: Replay, length: int, updates: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw K minibatches of sequences; return their first rows (K, B) and their columns (K, B, T, ...).

        Raises:
            NotYet: no episode has more steps than the burn-in, and one that goes on may come to have them.
            RunFailed: no episode has, and none may.
        """
        learners = max(1, self.config.num_learners)  # each gets an equal part of every minibatch
        count = learners * max(1, self.config.total_train_batch_size // learners // length)
        rows = replay.draw_starts(count, updates, self.burn_in)
        steps, _ = _steps_from(replay.ring, rows, self.burn_in + 1)
        missed = (steps <= self.burn_in).all(axis=1)
        if missed.any():  # minibatches without a step behind the burn-in
            rows[missed] = replay.rng.choice(_long_rows(replay.ring, self.burn_in), (missed.sum(), count))
        flat = replay.sequences(rows.reshape(-1), length)
        return rows, map_arrays(flat, lambda a: a.reshape(*rows.shape, *a.shape[1:]))

    def draw_all(self, modules: list[str], updates: int) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
        """Draw for every module but those whose episodes are still shorter than the burn-in."""
        drawn = {}
        for module_id in modules:
            with contextlib.suppress(NotYet):
                drawn[module_id] = self.draw(module_id, updates)
        return drawn

    # The step ----------------------------------------------------------------------------------------------

    def training_step(self) -> None:
        """Sample, add, update, sync: see the module's docstring."""
        before = self._env_steps()
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            episodes, results = self.sample()
        if not results:
            self._patience.wait(self.env_runner_group, self.config.sample_timeout_s)
            return
        self._patience.answered()
        self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        with self.metrics.log_time((TIMERS, REPLAY_BUFFER_ADD_DATA_TIMER)):
            self.add_to_replay(episodes)
        for module_id, replay in self.replays.items():
            self.metrics.log_dict(
                {"rows": len(replay), "megabytes": replay.nbytes / 1e6},
                key=(REPLAY_BUFFER_RESULTS, module_id),
                window=1,
            )
        sampled = self._env_steps() - before
        updates = self._updates_due(sampled)
        if not updates:
            return
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            self.metrics.aggregate(self.learn(updates, sampled), key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.sync_weights()

    def _env_steps(self) -> int:
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    def _agent_steps(self) -> int:
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_AGENT_STEPS_SAMPLED_LIFETIME), default={})
        return int(sum(steps.values()))

    def _updates_due(self, sampled: int) -> int:
        """Return how many updates the env steps just sampled call for; the fraction is kept for the next step."""
        by_agent = self.config.count_steps_by == "agent_steps"
        steps = self._agent_steps() if by_agent else self._env_steps()
        if steps < self.config.num_steps_sampled_before_learning_starts or not any(
            map(len, self.replays.values())
        ):
            return 0
        self._carry += sampled * self.config.updates_per_env_step
        # 0.1 * 3 * 10 is a hair under 3
        updates = int(self._carry + 1e-6)
        self._carry -= updates
        return updates

    def sample(self) -> tuple[list[Any], list[Any]]:
        """Sample one fragment from every environment of every runner.

        Remote runners are asked for the next fragment before this one is learned from (`overlap_sampling`):
        they play while the learner works, with the weights of the step before.

        Returns:
            The episodes of all runners, and the metrics of each.
        """
        group = self.env_runner_group
        if group.num_remote_env_runners() == 0:
            answers = [self._sample_job()(group.local_env_runner)]
        else:
            if not group.num_in_flight_async_reqs(SAMPLE):
                group.foreach_env_runner_async(self._sample_job(), tag=SAMPLE)
            ready = group.fetch_ready_async_reqs(tags=SAMPLE, timeout_seconds=self.config.sample_timeout_s)
            answers = [answer for _, answer in ready]
            for _, metrics in answers:
                if isinstance(metrics, UsageError):
                    raise metrics
            if self.config.overlap_sampling:
                group.foreach_env_runner_async(self._sample_job(), tag=SAMPLE)
        return [episode for episodes, _ in answers for episode in episodes], [
            metrics for _, metrics in answers
        ]

    def _sample_job(self) -> Callable[[Any], tuple[list[Any], Any]]:
        return functools.partial(sample_fragment, env_steps=self._env_steps())

    def learn(self, updates: int, sampled: int) -> list[Any]:
        """Run `updates` updates of every trained module in one call per learner; return the learners' metrics.

        The local learner is fed as it goes: a chunk is drawn when it is needed, and prioritized replay sees
        the TD errors of each update before it draws the next. Remote learners get all minibatches in one
        message, and their TD errors come back together.
        """
        modules = [m for m, replay in self.replays.items() if len(replay)]
        timesteps = {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self._env_steps(),
            NUM_AGENT_STEPS_SAMPLED_LIFETIME: self._agent_steps(),
        }
        job = functools.partial(_update, num_updates=updates, env_steps=sampled, timesteps=timesteps)
        if self.learner_group.is_local:
            rows: dict[str, np.ndarray] = {}
            chunks = self._chunks(modules, updates, rows)
            feedback = functools.partial(self._set_priorities, rows) if self.config.prioritized else None
            answers = self.learner_group.foreach_learner(
                functools.partial(job, chunks=chunks, feedback=feedback)
            )
            return [answer.get()[0] for answer in answers]
        drawn = self.draw_all(modules, updates)
        if not drawn:
            return []
        count = self.config.num_learners
        shards = [
            ray.put(
                {
                    m: map_arrays(batch, functools.partial(shard, i=i, count=count))
                    for m, (_, batch) in drawn.items()
                }
            )
            for i in range(count)
        ]
        answers = [a.get() for a in self.learner_group.foreach_learner(functools.partial(job, shards=shards))]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        if self.config.prioritized:
            for m, (rows_of_m, _) in drawn.items():
                errors = np.concatenate([td_errors[m] for _, td_errors in answers], axis=1)
                self.replays[m].update_priorities(rows_of_m, errors)
        return [metrics for metrics, _ in answers]

    def _chunks(
        self, modules: list[str], updates: int, rows: dict[str, np.ndarray]
    ) -> Iterator[dict[str, Any]]:
        """Draw minibatches for the local learner, as many at once as the kind of replay allows."""
        at_once = 1 if self.config.prioritized else updates
        done = 0
        while done < updates:
            drawn = self.draw_all(modules, min(at_once, updates - done))
            done += min(at_once, updates - done)
            if not drawn:
                return
            rows.update({m: rows_of_m for m, (rows_of_m, _) in drawn.items()})
            chunk = {m: batch for m, (_, batch) in drawn.items()}
            yield chunk
            # columns of images are drawn in pieces that fit the cache of a small machine
            size = sum(a.nbytes for batch in chunk.values() for a in arrays_of(batch)) / at_once
            at_once = 1 if self.config.prioritized else max(1, int(MAX_CHUNK_BYTES / max(size, 1)))

    def _set_priorities(self, rows: dict[str, np.ndarray], td_errors: dict[str, np.ndarray]) -> None:
        for module_id, errors in td_errors.items():
            self.replays[module_id].update_priorities(rows[module_id], errors)

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


def _update(
    learner: Any,
    *,
    num_updates: int,
    env_steps: int,
    timesteps: dict[str, Any],
    chunks: Iterator[Any] | None = None,
    shards: list[Any] | None = None,
    feedback: Any = None,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Run the updates on a learner, local (`chunks`) or remote (`shards`, one per learner)."""
    td_errors: dict[str, np.ndarray] = {}
    if chunks is None:
        chunks = iter([ray.get((shards or [])[rllib.learner_index(learner)])])
        feedback = td_errors.update
    results = learner.update_from_columns(
        chunks, num_updates=num_updates, env_steps=env_steps, timesteps=timesteps, feedback=feedback
    )
    return results, td_errors


def _steps_from(ring: Ring, rows: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many steps of their episode begin at rows, counted up to `most`, and the last row counted."""
    last, steps = rows, np.ones(rows.shape, np.int64)
    for _ in range(most - 1):
        link = ring.link[last]
        steps += link >= 0
        last = np.where(link >= 0, link, last)
    return steps, last


def _long_rows(ring: Ring, burn_in: int) -> np.ndarray:
    """Return the rows that more steps than the burn-in begin at.

    Raises:
        NotYet: there are none, but an episode that goes on is longer than all that ended, and there is room for it.
        RunFailed: there are none.
    """
    steps, last = _steps_from(ring, np.arange(ring.size), burn_in + 1)
    rows = np.flatnonzero(steps > burn_in)
    if len(rows):
        return rows
    goes_on = np.isin(last, [row for row, _, _ in ring._open.values()])
    room = ring.size < ring.capacity
    if room and steps[goes_on].max(initial=0) > steps[~goes_on].max(initial=0):
        raise NotYet
    later = ", or raise num_steps_sampled_before_learning_starts if later ones are longer" if room else ""
    raise RunFailed(
        f"burn_in_len is {burn_in}, and no episode in the replay buffer has more steps than that: nothing is left to "
        f"learn from; lower burn_in_len below the length of the episodes{later}"
    )


def _is_trained(config: AlgorithmConfig, module_id: str) -> bool:
    trained = config.policies_to_train
    if trained is None:
        return True
    return bool(trained(module_id, None)) if callable(trained) else module_id in trained


def _n_step(n_step: Any) -> NStep:
    return n_step if isinstance(n_step, int) else (int(n_step[0]), int(n_step[1]))
