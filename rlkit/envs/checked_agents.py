"""A multi-agent environment whose every reset and step is checked (`rlkit.envs.checked`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.env.env_errors import StepFailedRecreateEnvError
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit.envs.contract import BROKEN, Contract, masked_actions
from rlkit.envs.observation_check import predicate
from rlkit.errors import did_you_mean


class CheckedMultiAgentEnv(MultiAgentEnv):
    """A multi-agent environment whose every reset and step is checked. `env` is the one inside."""

    def __init__(self, env: MultiAgentEnv, contract: Contract):
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
            self._last_observation(action_dict, observations, terminated, truncated)
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

    def _last_observation(
        self,
        acted: Mapping,
        observations: Mapping,
        terminated: Mapping[str, Any],
        truncated: Mapping[str, Any],
    ) -> None:
        for agent in acted:
            cut = (truncated.get(agent) or truncated.get("__all__")) and not terminated.get(agent)
            if agent not in observations and cut:
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

    @property
    def np_random(self) -> Any:
        """The environment's generator; gym.Env's own property would make another."""
        return self.env.np_random

    @np_random.setter
    def np_random(self, value: Any) -> None:
        self.env.np_random = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def __str__(self) -> str:
        return f"<checked {self.env}>"
