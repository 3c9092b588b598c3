"""A vector environment of its own (`gym_env_vectorize_mode: vector_entry_point`), checked as whole arrays."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import iterate
from ray.rllib.env.env_errors import StepFailedRecreateEnvError

from rlkit.envs.contract import BROKEN, Contract
from rlkit.envs.observation_check import explain, predicate


class CheckedVectorEnv(VectorWrapper):
    """A vector environment whose every reset and step is checked: one test looks at all of its environments.

    Steps are counted from its last `reset`, which begins a round. Masks are not looked at.
    """

    def __init__(self, env: VectorEnv, contract: Contract):
        super().__init__(env)
        self.contract, self._call = contract, contract.call
        self._fits = predicate(env.observation_space, contract.bounds)
        self._shape = (env.num_envs,)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        result = self.contract.begin(self.env, seed, options, "observations, infos")
        if not self._fits(result[0]):
            self._observations(result[0])
        self.contract.info(result[1])
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        contract, call = self.contract, self._call
        contract.step += 1
        call.calls += 1
        call.busy = "step"
        try:
            result = self.env.step(actions)
        except StepFailedRecreateEnvError:
            call.busy = ""
            raise
        except BROKEN as error:
            contract.raised(error)
        call.busy = ""
        contract.unpack(result, "observations, rewards, terminations, truncations, infos")
        observations, rewards, terminations, truncations, infos = result
        if not self._fits(observations):
            self._observations(observations)
        self._rewards(rewards)
        ended, cut = self._flags("terminations", terminations), self._flags("truncations", truncations)
        contract.info(infos)
        if ended or cut:
            contract.finished()
        return result

    def _observations(self, observations: Any) -> None:
        """Look closely at observations that failed the cheap test."""
        space, bounds = self.env.observation_space, self.contract.bounds
        problem = explain(space, observations, bounds, "observations")
        if problem is None:
            return
        try:
            rows = list(iterate(space, observations))
        except Exception:  # not even a batch
            rows = []
        for index, row in enumerate(rows if len(rows) == self._shape[0] else []):
            if found := explain(self.env.single_observation_space, row, bounds):
                self._fail(index, *found)
        self.contract.fail(*problem)

    def _rewards(self, rewards: Any) -> None:
        given = np.asarray(rewards)
        if given.shape != self._shape or given.dtype.kind not in "fiub":
            self._other("rewards", given, "numbers", "np.asarray(rewards, np.float64)")
        good = np.isfinite(given)
        if not good.all():
            index = int(np.flatnonzero(~good)[0])
            fix = "look for a division by zero or an overflow"
            self._fail(index, "reward", str(given[index]), "one finite number", fix)

    def _flags(self, field: str, flags: Any) -> bool:
        given = np.asarray(flags)
        if given.shape != self._shape or given.dtype.kind != "b":
            self._other(field, given, "bool", f"np.asarray({field}, bool)")
        return bool(given.any())

    def _other(self, field: str, given: np.ndarray, kind: str, fix: str) -> NoReturn:
        got = f"an array of {given.dtype} with shape {given.shape}"
        self.contract.fail(field, got, f"one of {kind} with shape {self._shape}", f"return {fix}")

    def _fail(self, index: int, field: str, got: str, expected: str, fix: str) -> NoReturn:
        self.contract.fail(f"environment {index}: {field}", got, expected, fix)

    def __getattr__(self, name: str) -> Any:  # Gymnasium 1 forwards no attributes
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)
