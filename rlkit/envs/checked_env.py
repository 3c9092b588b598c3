"""`checked(env)`: an environment that breaks its contract says so within the step in which it does.

RLlib 2.60 accepts a NaN reward and an observation out of bounds, turns a None reward into 0.0, and lets a NaN
observation fail far away inside torch. The wrapper raises an `EnvError` (`rlkit.envs.contract`). What it costs is in
docs/environments.md (benchmarks/env_check_cost.py): every value is first put to a cheap test that is exact when it
passes; only a value that fails it is looked at closely.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv
from ray.rllib.env.env_errors import StepFailedRecreateEnvError
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit.envs.checked_agents import CheckedMultiAgentEnv
from rlkit.envs.checked_vector import CheckedVectorEnv
from rlkit.envs.contract import BROKEN, Contract, masked_actions
from rlkit.envs.observation_check import predicate


def checked(
    env: gym.Env | VectorEnv,
    *,
    bounds: bool | None = None,
    name: str | None = None,
    run: str | None = None,
    limit_s: float | None = None,
) -> Any:
    """Wrap an environment, single- or multi-agent, so that it is checked in every step.

    Args:
        env: a `gym.Env` or a `MultiAgentEnv`; or Gymnasium's `VectorEnv`, whose arrays are checked as a whole.
        bounds: also require observations to lie within their space's bounds (up to 1e-5, relative). None: of all
            but Gymnasium's own environments, which nobody here can mend: LunarLander-v3 leaves its bounds (1.2). Of
            those too where a wrapper that is not Gymnasium's declares another space.
        name: how messages call it; default: its id, its metadata's name, or its class.
        run: whose failures are counted, in this process: after three with no finished episode in between no other
            environment of this run is made. RLlib's `restart_failed_sub_environments` alone would build for ever one
            that always fails. None: nothing is counted.
        limit_s: seconds that one `reset` or `step` may take (`rlkit.envs.watchdog`); None: any time.

    Returns:
        A wrapper with the attributes and methods of `env`, `unwrapped` and `render()` included. For a
        `MultiAgentEnv` it is a `MultiAgentEnv`.

    Raises:
        EnvError: the run has used up its environments; later, from `reset` and `step`, a broken contract
            or an exception of the environment.
    """
    if name is None:
        name = (
            env.spec.id
            if env.spec is not None
            else (env.metadata or {}).get("name") or type(env.unwrapped).__name__
        )
    if bounds is None:
        entry = env.spec.entry_point if env.spec is not None else None
        bounds = not (isinstance(entry, str) and entry.startswith("gymnasium.envs.")) or _own_space(env)
    if isinstance(env, VectorEnv):
        return CheckedVectorEnv(env, Contract(name, bounds, run, limit_s, "round"))
    contract = Contract(name, bounds, run, limit_s)
    if isinstance(env.unwrapped, MultiAgentEnv):
        return CheckedMultiAgentEnv(env, contract)
    return CheckedEnv(env, contract)


def _own_space(env: gym.Env | VectorEnv) -> bool:
    """Whether a wrapper that is not Gymnasium's declares another observation space than what it wraps."""
    name = "single_observation_space" if isinstance(env, VectorEnv) else "observation_space"
    while env is not env.unwrapped:
        foreign = not type(env).__module__.startswith("gymnasium.")
        if foreign and getattr(env, name) != getattr(env.env, name):
            return True
        env = env.env
    return False


class CheckedEnv(gym.Wrapper):
    """A single-agent environment whose every reset and step is checked."""

    def __init__(self, env: gym.Env, contract: Contract):
        super().__init__(env)
        self.contract, self._call = contract, contract.call
        self._fits = predicate(env.observation_space, contract.bounds)
        self._masked = masked_actions(env.observation_space, env.action_space)

    def close(self) -> None:
        self.contract.close(self.env)

    def render(self) -> Any:
        return self.contract.render(self.env)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        result = self.contract.begin(self.env, seed, options, "observation, info")
        if not self._fits(result[0]):
            self.contract.observation(self.observation_space, result[0])
        if result[1].__class__ is not dict:
            self.contract.info(result[1])
        if self._masked is not None:
            self.contract.mask(self._masked, result[0])
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        contract, call = self.contract, self._call
        contract.step += 1
        call.calls += 1
        call.busy = "step"
        try:
            result = self.env.step(action)
        except StepFailedRecreateEnvError:
            call.busy = ""
            raise
        except BROKEN as error:
            contract.raised(error)
        call.busy = ""
        if result.__class__ is not tuple or len(result) != 5:
            contract.unpack(result, "observation, reward, terminated, truncated, info")
        observation, reward, terminated, truncated, info = result
        if not self._fits(observation):
            contract.observation(self.observation_space, observation)
        if reward.__class__ is not float or reward - reward != 0.0:
            contract.reward(reward)
        if info.__class__ is not dict:
            contract.info(info)
        if (terminated is not False and contract.flag("terminated", terminated)) | (
            truncated is not False and contract.flag("truncated", truncated)
        ):
            contract.finished()
        elif self._masked is not None:
            contract.mask(self._masked, observation)
        return result

    def set_wrapper_attr(self, name: str, value: Any, *, force: bool = True) -> bool:
        """Set an attribute of the environment inside: what `__getattr__` reads from there is not the wrapper's own."""
        return self.env.set_wrapper_attr(name, value, force=force)

    def __getattr__(self, name: str) -> Any:  # Gymnasium 1 forwards no attributes
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.env, name)
