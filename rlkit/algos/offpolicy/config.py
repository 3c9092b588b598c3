"""Configuration of the off-policy step, in RLlib's words.

`OffPolicyConfig` goes before an RLlib config class (`class DQNConfig(OffPolicyConfig, RLlibDQNConfig)`). What
the words mean in `rlkit.algos.offpolicy.step`:

- `training_intensity`: steps drawn from replay per env step sampled, so K = intensity * env steps / batch
  size. Fractions are carried to the next step, not rounded away. None: RLlib's natural value, one update for
  every `rollout_fragment_length` steps of all environments.
- `rollout_fragment_length: auto`: RLlib samples `n_step` steps per environment and updates once. Here a step
  samples fragments long enough for at least 64 env steps in total, and does as many updates as RLlib would
  for them.
- `num_steps_sampled_before_learning_starts`, `target_network_update_freq`, `tau`, `epsilon`, learning-rate
  schedules: counted in env steps sampled by all runners.
- `train_batch_size_per_learner`: rows per update of each module.
- `replay_buffer_config`: `type` (EpisodeReplayBuffer draws uniformly, PrioritizedEpisodeReplayBuffer by
  priority; the MultiAgent names mean the same), `capacity` (steps per module), `alpha`, `beta`; and, new
  here, `columns`: further step columns for the loss, such as `infos/label` or `extra/action_logp`.
- `overlap_sampling`, new here: see `OffPolicy.sample`.
- `store_buffer_in_checkpoints`: True here, so that a resumed run has its buffer back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided

from rlkit.algos.offpolicy.rules import BUFFERS, MIN_ENV_STEPS_PER_CALL, OF_ALL, ColumnarBuffer
from rlkit.algos.rules import refuse_overrides
from rlkit.algos.sampling.episode_runner import default_runner
from rlkit.errors import did_you_mean
from rlkit.replay.buffer import NStep

BUFFER_KEYS = tuple(ColumnarBuffer.model_fields)
NO_BUFFER = "no_local_replay_buffer"


class OffPolicyConfig(AlgorithmConfig):
    """Mixin for configs of algorithms that learn from columnar replay."""

    replay_buffer_config: dict[str, Any]
    env_runner_cls: Any
    of_all_modules: ClassVar[tuple[str, ...]] = OF_ALL

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        self.store_buffer_in_checkpoints = True
        self.overlap_sampling = True
        # RLlib drops the other keys of the section when its `type` changes
        self.replay_buffer_defaults = dict(self.replay_buffer_config)

    def training(self, *, overlap_sampling: bool = NotProvided, **kwargs: Any) -> OffPolicyConfig:
        """Set the training options.

        Args:
            overlap_sampling: Remote env runners sample the next fragment while the learner updates, with
                weights one training step old.
            **kwargs: Those of RLlib's algorithm.
        """
        super().training(**kwargs)
        if overlap_sampling is not NotProvided:
            self.overlap_sampling = overlap_sampling
        return self

    def of_module(self, module_id: str, name: str) -> Any:
        """Return an attribute as it is for a module; RLlib's `get_config_for_module` fails on a frozen config."""
        own = self.algorithm_config_overrides_per_module.get(module_id, {})
        return own.get(name, getattr(self, name))

    @property
    def env_copies(self) -> int:
        """Environments that are sampled in one step, over all runners."""
        return self.num_envs_per_env_runner * max(1, self.num_env_runners)

    def get_rollout_fragment_length(self, worker_index: int = 0) -> int:
        """Return the steps per environment in one training step."""
        if self.rollout_fragment_length != "auto":
            return int(self.rollout_fragment_length)
        return max(_largest(self.n_step), math.ceil(MIN_ENV_STEPS_PER_CALL / self.env_copies))

    @property
    def updates_per_env_step(self) -> float:
        """Updates of each module for one env step."""
        if self.training_intensity:
            return self.training_intensity / self.total_train_batch_size
        length = self.rollout_fragment_length
        return 1 / (self.env_copies * (_largest(self.n_step) if length == "auto" else length))

    @property
    def prioritized(self) -> bool:
        """Whether replay draws by priority."""
        return BUFFERS[_type_name(self.replay_buffer_config)]

    def validate(self) -> None:
        """Check what RLlib's own `validate` lets pass.

        Raises:
            ValueError: a setting that cannot work; the message gives both numbers.
        """
        refuse_overrides(self.algorithm_config_overrides_per_module, self.of_all_modules)
        if self.env_runner_cls is None:
            self.env_runner_cls = default_runner(self)
        buffer: dict[str, Any] = {**self.replay_buffer_defaults, **self.replay_buffer_config}
        buffer.pop(NO_BUFFER, None)
        buffer.pop("metrics_num_episodes_for_smoothing", None)
        name = _type_name(buffer)
        if name not in BUFFERS:
            raise ValueError(
                f"replay_buffer_config: unknown type {name!r}{did_you_mean(name, BUFFERS)}; accepted: "
                f"{', '.join(BUFFERS)}"
            )
        for key in buffer:
            if key not in BUFFER_KEYS:
                raise ValueError(
                    f"replay_buffer_config: unknown key {key!r}{did_you_mean(key, BUFFER_KEYS)}; accepted: "
                    f"{', '.join(BUFFER_KEYS)}"
                )
        # RLlib builds its own buffer of Python objects from this section unless told not to
        self.replay_buffer_config = {**buffer, "type": name, NO_BUFFER: True}
        super().validate()
        capacity, batch = int(buffer.get("capacity", 0)), self.total_train_batch_size
        if capacity < batch:
            raise ValueError(
                f"replay_buffer_config: capacity {capacity} is smaller than one batch "
                f"(train_batch_size_per_learner x num_learners = {batch}); raise one or lower the other"
            )
        starts = self.num_steps_sampled_before_learning_starts
        if (
            not self.in_evaluation
            and starts > 0
            and capacity < self.env_copies * self.get_rollout_fragment_length()
        ):
            raise ValueError(
                f"replay_buffer_config: capacity {capacity} is smaller than what one step samples "
                f"({self.env_copies} environments x {self.get_rollout_fragment_length()} steps)"
            )


def _type_name(buffer: Mapping[str, Any]) -> str:
    kind = buffer.get("type")
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def _largest(n_step: NStep | list[int]) -> int:
    return n_step if isinstance(n_step, int) else n_step[1]
