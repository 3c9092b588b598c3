"""A fragment from an env runner: how it is asked for, and how long a training step waits for runners that died."""

from __future__ import annotations

import time
from typing import Any

import torch

from rlkit.errors import RunFailed, UsageError

PAUSE_S = 0.2


def sample_fragment(env_runner: Any, env_steps: int) -> tuple[Any, Any]:
    """Sample on a runner; return what it played, and its metrics.

    A remote runner returns the error of a configuration that cannot work in place of its metrics.

    Args:
        env_runner: RLlib's, or one of this package.
        env_steps: those of all runners, for epsilon and other schedules (RLlib tells them once per iteration).
    """
    env_runner.num_env_steps_sampled_lifetime = env_steps
    if isinstance(env_runner.module, torch.nn.Module):
        # RLlib's DQN and SAC record gradients while they explore, and switch modes back and forth at each step.
        env_runner.module.eval()
    try:
        with torch.no_grad():
            return env_runner.sample(), env_runner.get_metrics()
    except UsageError as error:
        # raised in a remote runner it would kill the actor, and RLlib would restart that up to 1,000 times
        if env_runner.worker_index:
            return [], error
        raise


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
