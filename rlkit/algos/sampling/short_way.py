"""What rlkit's env runners share: a short way on arrays, and RLlib's own loop where somebody needs it.

A runner looks once per environment whether the short way is possible, and says why if it is not. Whole episodes and
random actions are asked for in single calls; those go RLlib's way without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME

from rlkit import rllib
from rlkit.errors import UsageError

logger = logging.getLogger(__name__)

UNKNOWN = "not looked at yet"


class ShortWay(rllib.RunnerInside):
    """Mixin for env runners, before RLlib's class.

    Attributes:
        why_episodes: why RLlib's loop samples; None where the short way does.
    """

    why_episodes: str | None = UNKNOWN

    def short_way(self) -> str | None:
        """Return why the short way is impossible, None if it is possible."""
        raise NotImplementedError

    def sample_short(self, num_timesteps: int, explore: bool, force_reset: bool) -> list[Any]:
        """Sample at least `num_timesteps` env steps."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drop what the short way knows of the environments; they start anew."""
        raise NotImplementedError

    def collect(self, *, num_timesteps: int | None = None, random_actions: bool = False, **asked: Any) -> Any:
        if self.why_episodes == UNKNOWN:
            self.why_episodes = self.short_way()
            if self.why_episodes is not None and not self.config.in_evaluation:
                logger.warning(
                    "sampling on arrays is not possible here, RLlib's loop samples episodes: %s",
                    self.why_episodes,
                )
        if num_timesteps is None or random_actions or self.why_episodes is not None:
            self.forget()
            return self.collect_episodes(num_timesteps=num_timesteps, random_actions=random_actions, **asked)
        return self.sample_short(num_timesteps, asked["explore"], asked.get("force_reset", False))

    def try_env(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call the environments; after a failure that may be repaired build them anew and return None.

        As `EnvRunner._try_env_step`, which raises a RuntimeError without a message (2.60).
        """
        try:
            return call(*args)
        except UsageError:
            raise
        except Exception:
            self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
            if not self.config.restart_failed_sub_environments:
                raise
            logger.exception("an environment failed; all environments of this runner are built anew")
            self.make_env()
            return None
