"""What a trial does when a remote env runner raises, dies, or says nothing.

- An exception of the environment, a module or a connector: the run fails, with that traceback. With
  `fault_tolerance: {restart_failed_env_runners: true}` in the recipe the runner is started again.
- A process that ends without one (killed, out of memory, `os._exit`): the runner is started again.
- A runner that fails more than `num_consecutive_env_runner_failures_tolerance` times in a row, without an iteration
  between them that it came through: the run fails.
- No env step for twice `sample_timeout_s`: the run fails.

RLlib 2.60 restarts a runner in all of these cases, up to 1,000 times, 60 s apart, and counts an iteration without a
step as one.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

from rlkit import rllib
from rlkit.errors import EnvRunnerError, RunFailed

TOLERANCE = 3  # failures of a runner in a row, where the recipe says nothing
DEATHS = "env_runner_failures"  # in a result: one line for each failure since the last result
RESTARTS = "env_runner_restarts"  # in a result: how many failures were followed by a restart, since the start


def defaults(config: Any, env_timeout_s: float) -> None:
    """Set what rlkit wants where RLlib's defaults would hide a failure; called before the recipe's own words.

    Args:
        config: an AlgorithmConfig.
        env_timeout_s: of the recipe. The run ends after two `sample_timeout_s` without a step: later than that, because
            the environment's watchdog can say which call is blocked.
    """
    config.fault_tolerance(
        num_consecutive_env_runner_failures_tolerance=TOLERANCE, delay_between_env_runner_restarts_s=0.0
    )
    config.env_runners(sample_timeout_s=max(config.sample_timeout_s, env_timeout_s / 2 + 20))
    # RLlib's check of a MultiAgentEnv (2.60) blames the API for what an environment raises; `checked` says what it was.
    config.environment(disable_env_checking=True)
    if config.is_online and not config.min_sample_timesteps_per_iteration:
        config.reporting(min_sample_timesteps_per_iteration=1)  # no iteration without an env step


class RunnerFaults:
    """Follows the remote env runners of one Algorithm.

    Args:
        algorithm: set up.
        given: the recipe's `config.fault_tolerance`.
    """

    def __init__(self, algorithm: Any, given: Mapping[str, Any]):
        self.algorithm = algorithm
        self.tolerant = bool(
            given.get("restart_failed_env_runners") or given.get("ignore_env_runner_failures")
        )
        self.limit = int(algorithm.config.num_consecutive_env_runner_failures_tolerance)
        self.restarts = 0
        self.in_a_row: dict[tuple[str, int], int] = {}
        self._now: set[tuple[str, int]] = set()  # failed in this iteration
        self._lines: list[str] = []
        self._answered = time.monotonic()
        self._steps = 0
        self._groups = {
            kind: group
            for kind, group in (
                ("env runner", algorithm.env_runner_group),
                ("evaluation env runner", algorithm.eval_env_runner_group),
            )
            if group is not None
        }
        for kind, group in self._groups.items():
            rllib.guard_runners(
                group,
                on_raise=functools.partial(self._raised, kind),
                on_death=functools.partial(self._died, kind),
            )

    def _raised(self, kind: str, index: int, raised: rllib.Raised) -> Exception:
        error = EnvRunnerError(f"{kind} {index}: {raised.message}")
        error.__cause__ = _RemoteTraceback(raised.traceback)
        if not self.tolerant:
            raise error
        self._count(kind, index, raised.message, error)
        return error

    def _died(self, kind: str, index: int, error: Exception, gone: bool) -> None:
        reason = "its process ended"
        if gone:
            if "creation task" in str(error):
                reason = str(error).strip().splitlines()[-1]
            if (
                self.algorithm.config.restart_failed_env_runners
                or not self.tolerant
                or not self._others(kind)
            ):
                raise EnvRunnerError(f"{kind} {index} cannot be started again: {reason}") from error
        self._count(kind, index, reason, error)

    def _others(self, kind: str) -> bool:
        return self._groups[kind].num_healthy_remote_env_runners() > 0

    def _count(self, kind: str, index: int, reason: str, cause: Exception) -> None:
        key = (kind, index)
        self.in_a_row[key] = self.in_a_row.get(key, 0) + 1
        self._now.add(key)
        self.restarts += 1
        self._lines.append(f"{kind} {index} failed and is started again: {reason}")
        if self.in_a_row[key] > self.limit:
            word = "config.fault_tolerance.num_consecutive_env_runner_failures_tolerance"
            raise EnvRunnerError(
                f"{kind} {index} failed {self.in_a_row[key]} times in a row, the last time because: {reason}; "
                f"allowed are {self.limit} ({word}). Where a process ends without an exception, look for os._exit, a "
                f"crash in native code, or too little memory"
            ) from cause

    def after_training_step(self) -> None:
        """Notice runners that say nothing.

        Raises:
            RunFailed: there was no env step for twice `sample_timeout_s`, or no runner is left.
        """
        steps = rllib.sampled_env_steps(self.algorithm)
        now = time.monotonic()
        if steps > self._steps or not self.algorithm.config.is_online:
            self._steps, self._answered = steps, now
            return
        group, timeout = self.algorithm.env_runner_group, self.algorithm.config.sample_timeout_s or 60.0
        if group is None or group.num_remote_env_runners() == 0:
            return
        alive = f"{group.num_healthy_remote_env_runners()} of {group.num_remote_env_runners()} are alive"
        silent = now - self._answered
        if silent > 2 * timeout:
            raise RunFailed(
                f"no env runner has answered for {silent:.0f} s ({alive}); raise config.env_runners.sample_timeout_s "
                f"({timeout:g}) for a slow environment, or lower rollout_fragment_length"
            )

    def after_iteration(self, result: dict[str, Any]) -> None:
        """Put what happened into a result; a runner that came through an iteration starts to count anew."""
        for kind, group in self._groups.items():
            for index in group.healthy_env_runner_ids():
                if (kind, index) not in self._now:
                    self.in_a_row.pop((kind, index), None)
        self._now.clear()
        if self.restarts:
            result[RESTARTS] = self.restarts
        if self._lines:
            result[DEATHS] = list(self._lines)
            self._lines.clear()


class _RemoteTraceback(Exception):
    """Shows the traceback of another process where an exception names its cause."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"
