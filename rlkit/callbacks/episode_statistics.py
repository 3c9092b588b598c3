"""The classic example of RLlib's callbacks, on the new API stack: one line per hook."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlkit.callbacks.base import Callback


class EpisodeStatistics(Callback):
    """Follows one entry of the observation, on CartPole by default the pole angle, and logs what each hook sees.

    | metric | from |
    |---|---|
    | `env_runners/<name>_mean`, `_max` | every step of an episode, logged when it ends |
    | `env_runners/sample_size` | environment steps in each `sample()` |
    | `learners/<module>/mean_action` | each train batch; not with MADDPG and MATD3, which have no batch per module |
    | `callback_ok` | the result of each iteration |

    Args:
        entry: index into the flattened observation of a single agent.
        name: what to call it.
    """

    optional_hooks = ("on_learn_on_batch",)

    def __init__(self, entry: int = 2, name: str = "pole_angle"):
        self.entry, self.name = entry, name
        self._values: dict[str, list[float]] = {}

    def on_episode_start(self, *, episode: Any, **kwargs: Any) -> None:
        self._values[episode.id_] = []

    def on_episode_step(self, *, episode: Any, **kwargs: Any) -> None:
        observation = np.asarray(episode.get_observations(-1)).reshape(-1)
        self._values[episode.id_].append(float(observation[self.entry]))

    def on_episode_end(self, *, episode: Any, env_runner: Any, metrics_logger: Any, **kwargs: Any) -> None:
        values = np.abs(self._values.pop(episode.id_))
        window = env_runner.config.metrics_num_episodes_for_smoothing
        metrics_logger.log_value(f"{self.name}_mean", float(values.mean()), window=window)
        metrics_logger.log_value(f"{self.name}_max", float(values.max()), reduce="max", window=window)

    def on_sample_end(self, *, metrics_logger: Any, samples: list[Any], **kwargs: Any) -> None:
        metrics_logger.log_value("sample_size", sum(episode.env_steps() for episode in samples), window=1)

    def on_learn_on_batch(
        self, *, module_id: str, train_batch: Any, metrics_logger: Any, learner: Any, **kwargs: Any
    ) -> None:
        mean = float(train_batch["actions"].float().mean())
        metrics_logger.log_value((module_id, "mean_action"), mean, window=1)

    def on_train_result(
        self, *, result: dict, algorithm: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        result["callback_ok"] = True
