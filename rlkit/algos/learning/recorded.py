"""Recorded episodes as the columns that a learner updates from: what BC, MARWIL, CQL and IQL have in common.

The data are whole episodes in memory (`rlkit.replay.dataset`). One training step is

    K x B rows drawn from them -> K updates in one learner call

with K `dataset_num_iters_per_learner` and B `train_batch_size_per_learner`. No environment is stepped except by an
evaluation. RLlib counts the rows it learns from as env steps, and so does `env_steps` here.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.offline.offline_data import OfflineData
from ray.rllib.utils.metrics import (
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)

from rlkit import rllib, seeds, state
from rlkit.algos.learning.minibatches import map_arrays
from rlkit.algos.sampling.actions import ActionMap
from rlkit.algos.sampling.connectors import OBSERVING, Flatten, extras
from rlkit.algos.sampling.episode_runner import default_runner
from rlkit.errors import UsageError
from rlkit.replay.dataset import ACTIONS, OBSERVATIONS, Episodes, read_episodes
from rlkit.replay.minari import PREFIX, is_folder, read_minari

UPDATES = 100  # of a training step, where a recipe says nothing


def read_data(source: str) -> Episodes:
    """Read what `data:` of a recipe names: a recorded file, `minari/<id>`, or the folder of a Minari data set.

    Raises:
        UsageError: it is not there, cannot be fetched, or is something else.
    """
    return read_minari(source) if source.startswith(PREFIX) or is_folder(source) else read_episodes(source)


class OfflineColumns(OfflineData):
    """In place of RLlib's reader, which starts Ray Data: reads `input_` into memory."""

    def __init__(self, config: Any):
        source = config.input_ if isinstance(config.input_, str) else config.input_[0]
        self.episodes = read_data(source)


class OfflineConfig(AlgorithmConfig):
    """Mixin for configs of algorithms that learn from recorded episodes; put it before RLlib's class."""

    env_runner_cls: Any

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        rllib.take_offline(self)
        self.offline_data(offline_data_class=OfflineColumns, dataset_num_iters_per_learner=UPDATES)

    def build_learner_connector(self, *args: Any, **kwargs: Any) -> Any:
        """RLlib's default pipeline; what its offline algorithms add reads episodes, and here are columns."""
        return AlgorithmConfig.build_learner_connector(self, *args, **kwargs)

    def validate(self) -> None:
        """Check what RLlib's own `validate` lets pass.

        Raises:
            ValueError: no data, several agents, several learners, or a recurrent model.
        """
        super().validate()
        name = type(self).__name__.removesuffix("Config")
        if not self.is_offline:
            raise ValueError(f"{name} learns from recorded episodes; give them (recipe: `data: FILE.npz`)")
        if self.is_multi_agent:
            raise ValueError(
                f"{name} learns from the episodes of one agent (RLlib 2.60 has no multi-agent reader)"
            )
        if self.num_learners:
            raise ValueError(
                f"{name} learns in the trial's own process; got num_learners {self.num_learners}"
            )
        if not self.dataset_num_iters_per_learner:
            raise ValueError("dataset_num_iters_per_learner must be at least 1, updates of a training step")
        if self.env_runner_cls is None:  # of the evaluation, and it says what spaces the module has
            self.env_runner_cls = default_runner(self)


class _NoRunners:
    """An EnvRunnerGroup of nobody, as far as a restore asks."""

    local_env_runner = None

    def sync_weights(self, **_: Any) -> None: ...

    def num_remote_env_runners(self) -> int:
        return 0


class Offline(Algorithm):
    """Mixin that learns from recorded episodes; put it before RLlib's Algorithm class."""

    env_runner_group: Any
    columns: tuple[str, ...] = (Columns.OBS, Columns.ACTIONS)

    def setup(self, config: Any) -> None:
        super().setup(config)
        self.episodes: Episodes = self.offline_data.episodes
        spaces = (self.spaces or {}).get(INPUT_ENV_SINGLE_SPACES) or rllib.spaces_of_env(self.config)
        self.episodes.check_fit(str(self.config.env), *spaces)
        lengths = self.episodes.lengths
        episode = np.repeat(np.arange(len(lengths)), lengths)
        self.before = np.arange(len(self.episodes)) + episode  # row of each step's observation
        self.observations = self._for_module(self.episodes.values(OBSERVATIONS, spaces[0]), spaces[0])
        self.actions = self._module_actions(self.episodes.values(ACTIONS, spaces[1]), spaces[1])
        self.rewards = self.episodes.rewards.astype(np.float32)
        ends = np.cumsum(lengths) - 1
        self.terminated = np.zeros(len(self.episodes), bool)
        self.terminated[ends] = self.episodes.terminated
        self.generator = np.random.default_rng(seeds.stream(self.config.seed, "data"))
        self._learner().module.foreach_module(_refuse_memory)
        state.attach(self, "data", state.Values(self._progress, self._put_progress))

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """RLlib's restore, which asks for the training env runners that there are none of (2.60)."""
        group, self.env_runner_group = self.env_runner_group, _NoRunners()
        try:
            super().restore_from_path(path, *args, **kwargs)
        finally:
            self.env_runner_group = group

    def _learner(self) -> Any:
        """The learner of this process."""
        return next(iter(self.learner_group.foreach_learner(lambda learner: learner))).get()

    def _for_module(self, values: Any, space: gym.Space) -> Any:
        """Return observations as the module sees them: one float vector of a Dict, Tuple or Discrete."""
        pipeline = self.env_to_module_connector
        pieces = [] if pipeline is None else extras(pipeline, OBSERVING, False) or []
        for piece in pieces:
            if type(piece).__name__ != "FlattenObservations":
                raise UsageError(
                    f"recorded observations cannot pass the connector {type(piece).__name__}; do the same in a wrapper "
                    "of the environment, and record there"
                )
            return np.asarray(Flatten(piece)(values, [], np.empty(0), np.empty(0))[0], np.float32)
        return map_arrays(values, lambda a: _single(a.astype(space.dtype, copy=False) if space.dtype else a))

    def _module_actions(self, values: Any, space: gym.Space) -> Any:
        """Return recorded actions as the module gives them."""
        if isinstance(space, gym.spaces.Discrete):
            return values.astype(np.int64) - int(space.start)
        config = self.config
        way = ActionMap(space, config.normalize_actions, config.clip_actions)
        return _stacked([way.back(_row(values, k)) for k in range(len(self.episodes))])

    def training_step(self) -> None:
        """Draw rows, update: see the module's docstring."""
        config = self.config
        updates, size = config.dataset_num_iters_per_learner, config.train_batch_size_per_learner
        rows = self.generator.integers(len(self.episodes), size=(updates, size))
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, rows.size, reduce="lifetime_sum")
        done = int(self.metrics.peek(NUM_ENV_STEPS_SAMPLED_LIFETIME))
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self._learner().update_from_columns(
                iter([{DEFAULT_MODULE_ID: self.batch(rows)}]),
                num_updates=updates,
                env_steps=rows.size,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: done},
            )
            self.metrics.aggregate([results], key=LEARNER_RESULTS)

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the columns of rows (K, B)."""
        now = self.before[rows]
        found: dict[str, Any] = {
            Columns.OBS: map_arrays(self.observations, lambda a: a[now]),
            Columns.ACTIONS: map_arrays(self.actions, lambda a: a[rows]),
        }
        if Columns.NEXT_OBS in self.columns:
            found[Columns.NEXT_OBS] = map_arrays(self.observations, lambda a: a[now + 1])
            found[Columns.REWARDS] = self.rewards[rows]
            found[Columns.TERMINATEDS] = self.terminated[rows]
        return found

    def _progress(self) -> dict[str, Any]:
        return {"generator": self.generator.bit_generator.state}

    def _put_progress(self, saved: dict[str, Any]) -> None:
        self.generator.bit_generator.state = saved["generator"]


def _refuse_memory(name: str, module: Any) -> None:
    if module.is_stateful():
        raise UsageError(
            f"module {name!r} is recurrent, and offline algorithms learn from single steps; remove use_lstm, or stack "
            "frames in a wrapper of the environment"
        )


def _single(values: np.ndarray) -> np.ndarray:
    """Return float64 as float32, which is what runners give modules."""
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _row(values: Any, k: int) -> Any:
    if isinstance(values, dict):
        return {key: _row(part, k) for key, part in values.items()}
    return tuple(_row(part, k) for part in values) if isinstance(values, tuple) else values[k]


def _stacked(rows: list[Any]) -> Any:
    first = rows[0]
    if isinstance(first, dict):
        return {key: _stacked([row[key] for row in rows]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stacked([row[k] for row in rows]) for k in range(len(first)))
    return np.stack(rows)
