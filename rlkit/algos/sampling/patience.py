"""How long a training step waits for env runners that died, before it ends the run."""

from __future__ import annotations

import time
from typing import Any

from rlkit.errors import RunFailed

PAUSE_S = 0.2


class Patience:
    """Of one algorithm; its clock begins with it, and anew with each answer of a runner."""

    def __init__(self) -> None:
        self.answered()

    def answered(self) -> None:
        """A runner has answered."""
        self._last = time.monotonic()

    def wait(self, group: Any, timeout: float | None) -> None:
        """Give runners that died time to come back; RLlib restores them before the next training step.

        Args:
            group: RLlib's EnvRunnerGroup.
            timeout: `sample_timeout_s` in seconds; None counts as 60.

        Raises:
            RunFailed: none has answered for twice the timeout.
        """
        timeout = timeout or 60.0
        silent = time.monotonic() - self._last
        if silent > 2 * timeout:
            raise RunFailed(
                f"no env runner has answered for {silent:.0f} s ({group.num_healthy_remote_env_runners()} of "
                f"{group.num_remote_env_runners()} are alive); raise env_runners(sample_timeout_s={timeout:g}) for a "
                f"slow environment, or lower rollout_fragment_length"
            )
        time.sleep(PAUSE_S)
