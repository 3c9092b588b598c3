"""Who plays whom: the agents of an environment, their spaces, and the policies (RLModules) that play them.

An observation may say which actions it allows. Its mask is 1 where an action is allowed and 0 elsewhere, and lies
beside one other key:

    Discrete(n)          Dict({observation | observations | obs}: anything, action_mask: Box or MultiBinary (n,))
    MultiDiscrete(nvec)  the masks of the choices side by side, (sum of nvec,), as in SB3's MaskablePPO, or a Tuple of
                         (n_i,), as Gymnasium's `MultiDiscrete.sample(mask=...)` takes it
"""

from __future__ import annotations

import fnmatch
import glob
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.errors import UsageError
from rlkit.files import FOLDERS, NO_FOLDER

Spaces = tuple[gym.Space, gym.Space]
OBSERVATION_KEYS = ("observation", "observations", "obs")  # PettingZoo's, and those of RLlib's examples
MASK_KEY = "action_mask"


def flat(space: gym.Space, value: Any) -> list[Any]:
    """Return what a nested value holds, one per leaf of a space in their order."""
    if isinstance(space, gym.spaces.Dict):
        return [leaf for key, part in space.spaces.items() for leaf in flat(part, value[key])]
    if isinstance(space, gym.spaces.Tuple):
        return [leaf for part, own in zip(space.spaces, value, strict=True) for leaf in flat(part, own)]
    return [value]


def leaves(space: gym.Space) -> list[gym.Space]:
    """Return the spaces inside nested Dict and Tuple spaces, in their order."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else space.spaces
        return [leaf for part in parts for leaf in leaves(part)]
    return [space]


def has_mask(observation_space: gym.Space) -> bool:
    """Return whether an observation says which actions it allows."""
    return isinstance(observation_space, gym.spaces.Dict) and MASK_KEY in observation_space.spaces


def choices_of(action_space: gym.Space) -> tuple[int, ...]:
    """Return how many actions each choice of a space has; () where it has no choices."""
    if isinstance(action_space, gym.spaces.Discrete):
        return (int(action_space.n),)
    if isinstance(action_space, gym.spaces.MultiDiscrete):
        return tuple(int(n) for n in action_space.nvec.flatten())
    return ()


def split_mask(
    observation_space: gym.Space, action_space: gym.Space | None
) -> tuple[gym.Space, str | None, tuple[int, ...]]:
    """Return the space beside the mask, the key it stands under, and the actions of each choice; (space, None, ()).

    Raises:
        UsageError: a mask of another shape, for actions that are no choices, or beside something else than one
            observation.
    """
    if action_space is None or not has_mask(observation_space):
        return observation_space, None, ()
    spaces = observation_space.spaces
    sizes = choices_of(action_space)
    if not sizes:
        raise UsageError(
            f"an {MASK_KEY!r} stands beside actions of {action_space}, expected Discrete or MultiDiscrete ones; give "
            "the key another name to make it an ordinary input"
        )
    keys = [key for key in OBSERVATION_KEYS if key in spaces]
    if len(spaces) != 2 or not keys:
        raise UsageError(
            f"got a Dict of {', '.join(map(repr, spaces))}; beside {MASK_KEY!r} a masked observation "
            f"has one key, {' or '.join(map(repr, OBSERVATION_KEYS))}: rename it, put the rest below it in a Dict of "
            "its own, or give the mask another name to make it an ordinary input"
        )
    mask = spaces[MASK_KEY]
    several = isinstance(action_space, gym.spaces.MultiDiscrete)
    if isinstance(mask, gym.spaces.Tuple):
        shapes = [part.shape for part in mask.spaces]
        fits, got = several and shapes == [(n,) for n in sizes], f"parts of shapes {shapes}"
    else:
        fits, got = mask.shape == (sum(sizes),), f"shape {mask.shape}"
    if not fits:
        in_parts = f", or a Tuple of {', '.join(f'({n},)' for n in sizes)}" if several else ""
        raise UsageError(
            f"the action mask has {got}, expected ({sum(sizes)},), one number for each action of {action_space}"
            f"{in_parts}"
        )
    return spaces[keys[0]], keys[0], sizes


def mask_parts(mask: Any, action_space: gym.Space) -> list[np.ndarray]:
    """Return which actions a mask of one observation allows, (n_i,) bool for each choice."""
    flat = np.concatenate([np.ravel(part) for part in mask]) if isinstance(mask, tuple) else np.ravel(mask)
    return np.split(flat > 0.5, np.cumsum(choices_of(action_space))[:-1])


def random_action(observation: Any, observation_space: gym.Space, action_space: gym.Space) -> Any:
    """Return a random action of a space, among those that the observation allows."""
    if not has_mask(observation_space) or not choices_of(action_space):
        return action_space.sample()
    masks = [part.astype(np.int8) for part in mask_parts(observation[MASK_KEY], action_space)]
    return action_space.sample(masks[0] if isinstance(action_space, gym.spaces.Discrete) else tuple(masks))


def check_mask(observation: Any, action_space: gym.Space) -> tuple[str, str] | None:
    """Return (what was got, what is expected) where a mask allows nothing in some choice, else None.

    Args:
        observation: one with a mask.
        action_space: of the same agent, with choices.
    """
    parts = mask_parts(observation[MASK_KEY], action_space)
    for i, part in enumerate(parts):
        if not part.any():
            which = f" in choice {i}" if len(parts) > 1 else ""
            return f"a mask that allows nothing{which}", f"at least one of {len(part)} actions allowed"
    return None


@dataclass(frozen=True)
class Roster:
    """The agents of an environment, in its own order, with (observation space, action space) of each.

    A single-agent environment has one agent, the name `None`.

    Attributes:
        longest: most steps of an episode, where the environment says so (Gymnasium's `max_episode_steps`).
    """

    spaces: dict[Any, Spaces]
    longest: int | None = None

    @property
    def single(self) -> bool:
        return list(self.spaces) == [None]

    @classmethod
    def of(cls, env: Any) -> Roster:
        """Read it off an environment."""
        # An environment of RLlib's class has imported it; for others it stays unimported.
        rllibs = sys.modules.get("ray.rllib.env.multi_agent_env")
        if rllibs is None or not isinstance(env.unwrapped, rllibs.MultiAgentEnv):
            spec = getattr(env, "spec", None)
            longest = getattr(spec, "max_episode_steps", None) or getattr(
                env.unwrapped, "max_episode_steps", None
            )
            return cls({None: (env.observation_space, env.action_space)}, longest)
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
        UsageError: a name that cannot be a folder's, an agent that no policy plays, a policy that plays nobody, or
            agents with different spaces under one policy.
    """
    agents = list(roster.spaces)
    if policies is None:
        for agent in agents:
            if NO_FOLDER.search(str(agent)):
                raise UsageError(
                    f"policies: without the section each agent's policy is named after it, but {str(agent)!r} cannot "
                    f"name a folder of checkpoints ({FOLDERS}); name the policies: "
                    f"{{name: {{agents: [{glob.escape(str(agent))!r}]}}, ...}}"
                )
        return {str(agent): [glob.escape(str(agent))] for agent in agents}
    mapping = (
        {policies: ["*"]} if isinstance(policies, str) else {n: list(p.agents) for n, p in policies.items()}
    )
    for name in mapping:
        if NO_FOLDER.search(name):
            raise UsageError(f"policies: {name!r} cannot name a folder of checkpoints ({FOLDERS}); rename it")
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


def fixed_policies(
    agents: Iterable[Any], mapping: Callable[..., str], policies: Collection[str]
) -> dict[str, str]:
    """Return the policy of each agent, in the order of their names, where it is the same in every episode.

    Args:
        agents: their ids.
        mapping: RLlib's `policy_mapping_fn`.
        policies: those there are.

    Raises:
        ValueError: a policy that depends on the episode, or does not exist; ids that are not text.
    """
    found: dict[str, str] = {}
    agents = list(agents)
    if numbers := [agent for agent in agents if not isinstance(agent, str)]:
        raise ValueError(
            f"got the agents {', '.join(map(repr, numbers))}, expected names: rows of all agents and their metrics are "
            "named after them; write them as str in possible_agents and in what reset() and step() return"
        )
    for agent in sorted(agents):
        try:
            found[agent] = mapping(agent, None)
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"the policy of agent {agent!r} depends on the episode ({error}); a centralised critic needs a "
                "fixed one: give a policy_mapping_fn that reads the agent's id alone"
            ) from error
        if found[agent] not in policies:
            raise ValueError(
                f"agent {agent!r} is mapped to the policy {found[agent]!r}, which does not exist; policies: "
                f"{sorted(policies)}"
            )
    return found


def module_space(space: gym.Space) -> gym.Space:
    """Return the space that a module acts in; the same object where the module can take it as it is."""
    if isinstance(space, gym.spaces.Discrete):
        return gym.spaces.Discrete(space.n) if space.start else space
    if isinstance(space, gym.spaces.MultiDiscrete):
        plain = space.nvec.ndim == 1 and not np.any(space.start)
        return space if plain else gym.spaces.MultiDiscrete(space.nvec.reshape(-1))
    if isinstance(space, gym.spaces.MultiBinary):
        return gym.spaces.MultiDiscrete(np.full(int(np.prod(space.shape)), 2))
    if isinstance(space, gym.spaces.Box):
        single = space.dtype.kind != "f" or space.dtype.itemsize < 4  # networks compute in float32
        if len(space.shape) == 1 and not single:
            return space
        low, high = bounds_of(space)
        dtype = np.float32 if single else space.dtype
        return gym.spaces.Box(low.reshape(-1).astype(dtype), high.reshape(-1).astype(dtype), dtype=dtype)
    if isinstance(space, gym.spaces.Dict):
        parts = {key: module_space(part) for key, part in space.spaces.items()}
        same = all(parts[key] is part for key, part in space.spaces.items())
        return space if same else gym.spaces.Dict(parts)
    if isinstance(space, gym.spaces.Tuple):
        parts_ = [module_space(part) for part in space.spaces]
        same = all(new is part for new, part in zip(parts_, space.spaces, strict=True))
        return space if same else gym.spaces.Tuple(parts_)
    return space


def bounds_of(space: gym.spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds as floats; infinite where integers have none."""
    kind = space.dtype if np.issubdtype(space.dtype, np.floating) else np.float64
    low, high = space.low.astype(kind), space.high.astype(kind)
    return np.where(space.bounded_below, low, -np.inf).astype(kind), np.where(
        space.bounded_above, high, np.inf
    ).astype(kind)
