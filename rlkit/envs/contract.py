"""The contract of an environment: where in its episodes it is, and the errors that name what broke it.

An `EnvError` names environment, agent, step, field, what was got, what was expected, and the fix.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from ray.rllib.env.env_errors import StepFailedRecreateEnvError

from rlkit.envs.observation_check import explain
from rlkit.envs.watchdog import Blocked, Watched, naming_close, watch
from rlkit.errors import EnvError
from rlkit.roster import MASK_KEY, check_mask, choices_of, has_mask

# Failures in a row, without a finished episode between them, after which no environment is made again.
REBUILDS = 3

# Failures in a row of each run. At module level, because RLlib unpickles the env creator for each rebuild.
_failures: dict[str, int] = {}

# What the call of an environment may end with: `sys.exit()` too, which would end a process of Ray without a word.
BROKEN = (Exception, SystemExit, Blocked)


class Contract:
    """Where an environment is (episode, step), and how its errors are raised.

    Args: those of `rlkit.envs.checked`, and
        unit: what begins with a reset: an episode, or a round of the environments of a vector.

    Raises:
        EnvError: the run has used up its environments.
    """

    def __init__(
        self, name: str, bounds: bool, run: str | None, limit_s: float | None, unit: str = "episode"
    ):
        if run is not None and _failures.get(run, 0) >= REBUILDS:
            raise EnvError(
                f"{name}: failed {_failures[run]} times in a row without finishing an episode; giving up"
            )
        self.name = name
        self.bounds, self.unit = bounds, unit
        self.run = run
        self.episode = 0
        self.step = 0
        self.call = Watched(name, limit_s or math.inf)
        if limit_s is not None:
            watch(self.call)

    def fail(self, field: str, got: str, expected: str, fix: str, agent: str | None = None) -> NoReturn:
        who = f"agent {agent!r}, " if agent is not None else ""
        where = f"{f'step {self.step}' if self.step else 'reset'} of {self.unit} {self.episode}"
        self._count()
        raise EnvError(f"{self.name}: {who}{where}: {field}: got {got}; expected {expected}. Fix: {fix}")

    def raised(self, error: BaseException) -> NoReturn:
        """Raise what a call of the environment ended with."""
        self.call.busy = ""
        self._count()
        if isinstance(error, Blocked):
            raise self.call.error() from error
        call = f"step() in step {self.step}" if self.step else "reset()"
        kind = type(error).__name__
        said = f"{kind}: {error}" if str(error) else kind
        raise EnvError(f"{self.name}: {call} of {self.unit} {self.episode} raised {said}") from error

    def close(self, env: Any) -> None:
        """Close an environment, watched as it is: Python may close it at its end, when no thread can start."""
        call = self.call
        call.here("")
        call.calls += 1
        call.busy = "close"
        try:
            with naming_close(self.name):
                env.close()
        except Blocked as error:
            raise call.error() from error
        finally:
            call.busy = ""

    def render(self, env: Any) -> Any:
        """Return a frame, watched as steps are."""
        call = self.call
        call.calls += 1
        call.busy = "render"
        try:
            return env.render()
        except Blocked as error:
            raise call.error() from error
        except (Exception, SystemExit) as error:
            where = f"step {self.step} of episode {self.episode}"
            raise EnvError(
                f"{self.name}: render() in {where} raised {type(error).__name__}: {error}"
            ) from error
        finally:
            call.busy = ""

    def _count(self) -> None:
        if self.run is not None:
            _failures[self.run] = _failures.get(self.run, 0) + 1

    def begin(self, env: Any, seed: int | list[int] | None, options: dict | None, fields: str) -> Any:
        """Reset an environment, and return what it gave."""
        self.episode, self.step = self.episode + 1, 0
        call = self.call
        call.here(f" of {self.unit} {self.episode}")
        call.calls += 1
        call.busy = "reset"
        try:
            result = env.reset(seed=seed, options=options)
        except StepFailedRecreateEnvError:
            call.busy = ""
            raise
        except BROKEN as error:
            self.raised(error)
        call.busy = ""
        self.unpack(result, fields)
        if result.__class__ is not tuple:
            result = tuple(result)
        return result

    def mapping(self, field: str, value: Any) -> None:
        """Check that what a multi-agent environment gave is a mapping by agent."""
        if not isinstance(value, Mapping):
            got = f"{type(value).__name__} {value!r:.60}"
            self.fail(
                field, got, "a dict {agent: value}", f"return {field} as a dict, {{}} where it is empty"
            )

    def info(self, value: Any, agent: str | None = None) -> None:
        if not isinstance(value, dict):
            got = f"{type(value).__name__} {value!r:.60}"
            self.fail("info", got, "a dict", "return {} where there is nothing to say", agent)

    def unpack(self, result: Any, fields: str) -> None:
        names = fields.split(", ")
        if not isinstance(result, tuple | list) or len(result) != len(names):
            got = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
            call = "step()" if self.step else "reset()"
            self.fail(call, got, f"({fields})", f"return these {len(names)} from {call}")

    def observation(self, space: gym.Space, value: Any, agent: str | None = None) -> None:
        """Look closely at an observation that failed the cheap test."""
        problem = explain(space, value, self.bounds)
        if problem is not None:
            self.fail(*problem, agent=agent)

    def mask(self, actions: gym.Space, value: Any, agent: str | None = None) -> None:
        """Refuse the observation of an agent that has to act, but may do nothing."""
        problem = check_mask(value, actions)
        if problem is not None:
            fix = "allow what can be done (a pass, say), or end the episode of this agent"
            self.fail(f"observation[{MASK_KEY!r}]", *problem, fix, agent)

    def reward(self, value: Any, agent: str | None = None) -> None:
        """Look closely at a reward that is not a finite float."""
        number = value.item() if isinstance(value, np.ndarray) and value.shape == () else value
        with contextlib.suppress(OverflowError):  # a whole number beyond every float
            if isinstance(number, int | float | np.integer | np.floating | np.bool_) and math.isfinite(
                number
            ):
                return
        got = f"{value!r}" if value is None or np.isscalar(value) else f"{type(value).__name__} {value!r:.60}"
        self.fail("reward", got, "one finite number", "return float(reward)", agent)

    def flag(self, field: str, value: Any, agent: str | None = None) -> bool:
        if not isinstance(value, bool | np.bool_):
            got = f"{value!r} ({type(value).__name__})"
            self.fail(field, got, "True or False", f"return bool({field})", agent)
        return bool(value)

    def finished(self) -> None:
        if self.run is not None:
            _failures.pop(self.run, None)


def masked_actions(observation_space: gym.Space, action_space: gym.Space) -> gym.Space | None:
    """Return the action space where observations say which of its actions they allow, else None."""
    return action_space if has_mask(observation_space) and choices_of(action_space) else None
