"""Env runners with random streams of their own, in place of sums of seed, runner and environment."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from rlkit import seeds


class RunnerSeeds:
    """Mixin for env runners, before RLlib's class: a random stream for each process and each environment.

    2.60 seeds the process of runner i with `seed + i` and resets its environment j with `seed + i + j`, so that runners
    and runs share streams; each sample of whole episodes, and each restored run, begins with the same streams again.
    """

    config: Any
    env: Any
    num_envs: int
    _env_to_module: Any
    worker_index: int | None
    num_env_steps_sampled_lifetime: int
    _starts = 0
    _seeded: Any = None  # the environments that have got seeds

    def _stream(self, purpose: str, *where: int) -> int:
        """The number of a stream of this runner at this point of the run."""
        purpose = f"evaluation {purpose}" if self.config.in_evaluation else purpose
        runner, steps = self.worker_index or 0, int(self.num_env_steps_sampled_lifetime)
        return seeds.number(self.config.seed, purpose, runner, steps, *where)

    @property
    def _seed(self) -> int | None:
        """What `EnvRunner.__init__` seeds the process with, and `_reset_envs` hands to `_try_env_reset`."""
        return None if self.config.seed is None else self._stream("runner")

    @_seed.setter
    def _seed(self, value: int | None) -> None:
        """RLlib's sum is not used."""

    def start_seeds(self, anew: bool) -> Any:
        """Return what `env.reset(seed=…)` takes now: seeds of all environments, or None where their streams go on.

        Args:
            anew: the streams begin anew: in the first sample, and in each sample of whole episodes. Environments that
                were built since the last reset begin new ones in any case, without a seed of the run too: RLlib's check
                of a MultiAgentEnv (2.60, `check_multiagent_environments`) has reset the first one with seed 42.
        """
        if not anew and self._seeded is self.env:
            return None
        if self._starts == 0:
            self._seed_connectors()
        resumed = self._starts == 0 and self.num_env_steps_sampled_lifetime > 0
        if resumed and self.config.seed is not None and not self.config.in_evaluation:
            seeds.seed_process(self._stream("runner"))
        made = [self._stream("environment", self._starts, row) for row in range(self.num_envs)]
        self._starts += 1
        self._seeded = self.env
        return made if _takes_seeds(self.env.unwrapped) else made[0]

    def _seed_connectors(self) -> None:
        """Give connectors that draw numbers (`seed_stream`) a stream of this runner's."""
        for number, piece in enumerate(self._env_to_module.connectors):
            if hasattr(piece, "seed_stream"):
                piece.seed_stream(np.random.default_rng(self._stream("connector", number)))

    def _try_env_reset(self, *, seed: Any = None, options: Any = None) -> Any:
        seed = self.start_seeds(anew=seed is not None)
        return super()._try_env_reset(seed=seed, options=options)  # type: ignore[misc]


def _takes_seeds(vector_env: Any) -> bool:
    """Whether a vector environment is made of copies with a seed each; others have one stream for all."""
    import gymnasium as gym
    from ray.rllib.env.vector.vector_multi_agent_env import VectorMultiAgentEnv

    return isinstance(vector_env, (gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv, VectorMultiAgentEnv))


@functools.cache
def seeded(runner: type) -> type:
    """Return an env runner class of RLlib with `RunnerSeeds` before it."""
    if issubclass(runner, RunnerSeeds):
        return runner
    return type(runner.__name__, (RunnerSeeds, runner), {"__module__": __name__})
