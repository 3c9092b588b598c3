"""Who plays whom: the agents of an environment, their spaces, and the policies (RLModules) that play them."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from rlkit.errors import UsageError

Spaces = tuple[gym.Space, gym.Space]


def leaves(space: gym.Space) -> list[gym.Space]:
    """Return the spaces inside nested Dict and Tuple spaces, in their order."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else space.spaces
        return [leaf for part in parts for leaf in leaves(part)]
    return [space]


@dataclass(frozen=True)
class Roster:
    """The agents of an environment, in its own order, with (observation space, action space) of each.

    A single-agent environment has one agent, the name `None`.
    """

    spaces: dict[Any, Spaces]

    @property
    def single(self) -> bool:
        return list(self.spaces) == [None]

    @classmethod
    def of(cls, env: Any) -> Roster:
        """Read it off an environment."""
        # An environment of RLlib's class has imported it; for others it stays unimported.
        rllibs = sys.modules.get("ray.rllib.env.multi_agent_env")
        if rllibs is None or not isinstance(env.unwrapped, rllibs.MultiAgentEnv):
            return cls({None: (env.observation_space, env.action_space)})
        inner = env.unwrapped
        return cls(
            {
                agent: (inner.get_observation_space(agent), inner.get_action_space(agent))
                for agent in inner.possible_agents
            }
        )


def matches(agent: Any, globs: Iterable[str]) -> bool:
    """Whether one of the globs fits an agent's name, upper and lower case told apart."""
    return any(fnmatch.fnmatchcase(str(agent), glob) for glob in globs)


class PolicyMapping:
    """RLlib's `policy_mapping_fn` from globs: the first policy with a matching glob plays the agent."""

    def __init__(self, policies: Mapping[str, Sequence[str]]):
        self.policies = {name: tuple(globs) for name, globs in policies.items()}

    def __call__(self, agent_id: Any, *args: Any, **kwargs: Any) -> str:
        for name, globs in self.policies.items():
            if matches(agent_id, globs):
                return name
        raise UsageError(f"no policy plays agent {agent_id!r}; policies: {self.policies}")


def policy_map(policies: Any, roster: Roster) -> dict[str, list[str]]:
    """Return {policy: globs of the agents it plays}; each agent is played by exactly one policy.

    Args:
        policies: the recipe's section: None (one policy per agent), one name (shared by all), or {name: Policy}.
        roster: of a multi-agent environment.

    Raises:
        UsageError: an agent that no policy plays, a policy that plays nobody, or agents with different spaces
            under one policy.
    """
    agents = list(roster.spaces)
    if policies is None:
        return {str(agent): [str(agent)] for agent in agents}
    mapping = (
        {policies: ["*"]} if isinstance(policies, str) else {n: list(p.agents) for n, p in policies.items()}
    )
    choose = PolicyMapping(mapping)
    players: dict[str, list[Any]] = {name: [] for name in mapping}
    for agent in agents:
        players[choose(agent)].append(agent)
    for name, played in players.items():
        if not played:
            raise UsageError(
                f"policies.{name}: no agent matches {mapping[name]}; the agents are {', '.join(map(str, agents))}"
            )
        first = played[0]
        for agent in played[1:]:
            for what, ours, theirs in zip(
                ("observes", "acts in"), roster.spaces[agent], roster.spaces[first], strict=True
            ):
                if ours != theirs:
                    raise UsageError(
                        f"policies.{name}: one module cannot play {first} and {agent}: {first} {what} {theirs}, "
                        f"{agent} {what} {ours}; give them a policy each"
                    )
    return mapping
