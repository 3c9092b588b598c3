"""`checked(env)`: an environment that breaks its contract says so within the step in which it does.

RLlib 2.60 accepts a NaN reward and an observation out of bounds, turns a None reward into 0.0, and lets a NaN
observation fail far away inside torch. The wrapper raises an `EnvError` that names environment, agent, step, field,
what was got, what was expected, and the fix. What it costs is in docs/environments.md (benchmarks/env_check_cost.py):
every value is first put to a cheap test that is exact when it passes; only a value that fails it is looked at closely.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from ray.rllib.env.env_errors import StepFailedRecreateEnvError
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit.envs.observation_check import explain, predicate
from rlkit.envs.watchdog import Blocked, Watched, naming_close, watch
from rlkit.errors import EnvError, did_you_mean
from rlkit.roster import MASK_KEY, check_mask, choices_of, has_mask

# Failures in a row, without a finished episode between them, after which no environment is made again.
REBUILDS = 3

# Failures in a row of each run. At module level, because RLlib unpickles the env creator for each rebuild.
_failures: dict[str, int] = {}


def checked(
    env: gym.Env,
    *,
    bounds: bool | None = None,
    name: str | None = None,
    run: str | None = None,
    limit_s: float | None = None,
) -> gym.Env:
    """Wrap an environment, single- or multi-agent, so that it is checked in every step.

    Args:
        env: a `gym.Env` or a `MultiAgentEnv`.
        bounds: also require observations to lie within their space's bounds (up to 1e-5, relative). None: of all
            but Gymnasium's own environments, which nobody here can mend. LunarLander-v3 leaves its bounds (1.2).
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
    if run is not None and _failures.get(run, 0) >= REBUILDS:
        raise EnvError(
            f"{name}: failed {_failures[run]} times in a row without finishing an episode; giving up"
        )
    if bounds is None:
        entry = env.spec.entry_point if env.spec is not None else None
        bounds = not (isinstance(entry, str) and entry.startswith("gymnasium.envs."))
    contract = _Contract(name, bounds, run, limit_s)
    if isinstance(env.unwrapped, MultiAgentEnv):
        return CheckedMultiAgentEnv(env, contract)
    return CheckedEnv(env, contract)


# What the call of an environment may end with: `sys.exit()` too, which would end a process of Ray without a word.
BROKEN = (Exception, SystemExit, Blocked)


class _Contract:
    """Where an environment is (episode, step), and how its errors are raised."""

    def __init__(self, name: str, bounds: bool, run: str | None, limit_s: float | None):
        self.name = name
        self.bounds = bounds
        self.run = run
        self.episode = 0
        self.step = 0
        self.call = Watched(name, limit_s or math.inf)
        if limit_s is not None:
            watch(self.call)

    def fail(self, field: str, got: str, expected: str, fix: str, agent: str | None = None) -> NoReturn:
        who = f"agent {agent!r}, " if agent is not None else ""
        where = (
            f"step {self.step} of episode {self.episode}" if self.step else f"reset of episode {self.episode}"
        )
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
        raise EnvError(f"{self.name}: {call} of episode {self.episode} raised {said}") from error

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

    def begin(self, env: Any, seed: int | None, options: dict | None, fields: str) -> Any:
        """Reset an environment, and return what it gave."""
        self.episode, self.step = self.episode + 1, 0
        call = self.call
        call.here(f" of episode {self.episode}")
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


class CheckedEnv(gym.Wrapper):
    """A single-agent environment whose every reset and step is checked."""

    def __init__(self, env: gym.Env, contract: _Contract):
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

    def __getattr__(self, name: str) -> Any:  # Gymnasium 1 forwards no attributes
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.env, name)


class CheckedMultiAgentEnv(MultiAgentEnv):
    """A multi-agent environment whose every reset and step is checked. `env` is the one inside."""

    def __init__(self, env: MultiAgentEnv, contract: _Contract):
        self.env = env
        self._inner = inner = env.unwrapped
        self.agents = list(inner.agents)
        self.possible_agents = list(inner.possible_agents)
        super().__init__()
        self.observation_spaces, self.action_spaces = inner.observation_spaces, inner.action_spaces
        self.observation_space, self.action_space = inner.observation_space, inner.action_space
        self.render_mode, self.metadata = inner.render_mode, inner.metadata
        self.contract, self._call = contract, contract.call
        self._spaces = {agent: inner.get_observation_space(agent) for agent in self.possible_agents}
        self._fits = {agent: predicate(space, contract.bounds) for agent, space in self._spaces.items()}
        found = {a: masked_actions(space, inner.get_action_space(a)) for a, space in self._spaces.items()}
        self._masked = {agent: space for agent, space in found.items() if space is not None}
        self._known = frozenset(self.possible_agents)
        self._alive = dict.fromkeys([*self.possible_agents, "__all__"], False)
        self._seen: set[str] = set()
        self._done: set[str] = set()

    @property
    def unwrapped(self) -> Any:
        return self.env.unwrapped

    @property
    def spec(self) -> Any:
        """Of the environment inside: `gymnasium.make` sets it there and reads it here."""
        return self.env.unwrapped.spec

    @spec.setter
    def spec(self, value: Any) -> None:
        self.env.unwrapped.spec = value

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self._seen, self._done = set(), set()
        result = self.contract.begin(self.env, seed, options, "observations, infos")
        self._mappings(("observations", result[0]), ("infos", result[1]))
        if not result[0]:
            self.contract.fail(
                "observations", "none", "at least one agent's", "return the agents that act first"
            )
        self._observations(result[0])
        self._masks(result[0])
        self.agents = self._inner.agents
        return result

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        contract, call = self.contract, self._call
        contract.step += 1
        call.calls += 1
        call.busy = "step"
        try:
            result = self.env.step(action_dict)
        except StepFailedRecreateEnvError:
            call.busy = ""
            raise
        except BROKEN as error:
            contract.raised(error)
        call.busy = ""
        if result.__class__ is not tuple or len(result) != 5:
            contract.unpack(result, "observations, rewards, terminateds, truncateds, infos")
        observations, rewards, terminated, truncated, infos = result
        for value in result:
            if value.__class__ is not dict:
                names = ("observations", "rewards", "terminateds", "truncateds", "infos")
                self._mappings(*zip(names, result, strict=True))
        self._observations(observations)
        same = observations.keys() == rewards.keys()
        for reward in rewards.values():
            if reward.__class__ is not float or reward - reward != 0.0:
                self._rewards(rewards)
        if not same and not rewards.keys() <= self._known:
            self._unknown("rewards", rewards)
        for info in infos.values():
            if info.__class__ is not dict:
                self._mappings(("infos", infos))
        if self._done:
            self._revived(observations, rewards, infos)
        # what most steps return: the comparison is C's, and takes a 0 for the False that it means
        alive = self._alive
        if terminated == alive and truncated == alive:
            ended = cut = over = False
        else:
            if "__all__" not in terminated:
                contract.fail(
                    "terminateds",
                    f"{sorted(terminated)}",
                    "a key '__all__'",
                    "say whether the episode is over",
                )
            ended = self._flags("terminateds", terminated)
            cut = self._flags("truncateds", truncated)
            over = terminated["__all__"] or truncated.get("__all__", False)
        if not same:
            for agent in action_dict:
                if agent in observations and agent not in rewards:
                    contract.fail("rewards", "none", "the reward of the action it took", "return 0.0", agent)
        if cut:
            self._last_observation(action_dict, observations, truncated)
        if over:
            contract.finished()
        else:
            if self._masked:
                self._masks(observations)
            if (ended or cut) and self._seen <= self._done:
                contract.fail(
                    "terminateds['__all__'] and truncateds['__all__']",
                    "False",
                    "one of them True: no agent is left",
                    "set it when the last agent is done, also when some terminate and others are truncated",
                )
        self.agents = self._inner.agents
        return result

    def finished(self) -> None:
        """Note the end of an episode whose steps somebody else took, with the environment inside."""
        self.agents = self._inner.agents
        self.contract.finished()

    def _mappings(self, *given: tuple[str, Any]) -> None:
        for field, value in given:
            self.contract.mapping(field, value)
            if field == "infos":
                for agent, info in value.items():
                    self.contract.info(info, agent)

    def _observations(self, observations: Mapping[str, Any]) -> None:
        fits = self._fits
        for agent, observation in observations.items():
            test = fits.get(agent)
            if test is None:
                self._unknown("observations", observations)
            elif not test(observation):
                self.contract.observation(self._spaces[agent], observation, agent)
        if len(self._seen) < len(fits):
            self._seen.update(observations)

    def _rewards(self, rewards: Mapping[str, Any]) -> None:
        for agent, reward in rewards.items():
            if reward.__class__ is not float or reward - reward != 0.0:
                self.contract.reward(reward, agent)

    def _masks(self, observations: Mapping[str, Any]) -> None:
        """Look at the masks of agents that have to act."""
        for agent, space in self._masked.items():
            if agent in observations and agent not in self._done:
                self.contract.mask(space, observations[agent], agent)

    def _unknown(self, field: str, given: Mapping[str, Any]) -> None:
        agent = next(agent for agent in given if agent not in self._known and agent != "__all__")
        self.contract.fail(
            field,
            f"the unknown agent {agent!r}{did_you_mean(agent, self._known)}",
            f"one of {sorted(self._known)}",
            "list every agent that can appear in possible_agents",
            agent,
        )

    def _revived(self, *given: Mapping[str, Any]) -> None:
        for field, values in zip(("observations", "rewards", "infos"), given, strict=True):
            for agent in self._done.intersection(values):
                self.contract.fail(
                    field,
                    "a value for an agent that was done before",
                    "nothing",
                    "leave out agents that have terminated or been truncated until the next reset",
                    agent,
                )

    def _flags(self, field: str, flags: Mapping[str, Any]) -> bool:
        """Note who is done; True if anybody is."""
        any_done = False
        for agent, flag in flags.items():
            if flag is not False and self.contract.flag(field, flag, agent):
                any_done = True
                if agent != "__all__":
                    self._done.add(agent)
        if not flags.keys() <= self._known:
            for agent in flags:
                if agent not in self._known and agent != "__all__":
                    self._unknown(field, flags)
        return any_done

    def _last_observation(self, acted: Mapping, observations: Mapping, truncated: Mapping[str, Any]) -> None:
        for agent in acted:
            if agent not in observations and (truncated.get(agent) or truncated.get("__all__")):
                self.contract.fail(
                    "observations",
                    "none",
                    "the last observation of a truncated agent",
                    "return it: its value is what training bootstraps from",
                    agent,
                )

    def render(self) -> Any:
        return self.contract.render(self.env)

    def close(self) -> None:
        self.contract.close(self.env)

    def get_agent_ids(self) -> set[str]:
        return set(self.possible_agents)

    def get_observation_space(self, agent_id: str) -> gym.Space:
        return self.env.unwrapped.get_observation_space(agent_id)

    def get_action_space(self, agent_id: str) -> gym.Space:
        return self.env.unwrapped.get_action_space(agent_id)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def __str__(self) -> str:
        return f"<checked {self.env}>"


def masked_actions(observation_space: gym.Space, action_space: gym.Space) -> gym.Space | None:
    """Return the action space where observations say which of its actions they allow, else None."""
    return action_space if has_mask(observation_space) and choices_of(action_space) else None
