"""Whether an algorithm and a model can take a recipe's environment, found out before anything starts.

`read_roster` makes the environment once. `refuse` knows what can be said from its spaces without RLlib; `check_spaces`
builds the modules.
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from rlkit.envs.make import make_bare, make_env
from rlkit.envs.watchdog import close
from rlkit.errors import EnvError, RlkitError, UsageError
from rlkit.roster import Roster, Spaces, has_mask, leaves, module_space, random_action, split_mask

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from rlkit.recipe import Recipe

_ROSTERS: dict[str, Roster] = {}  # by environment and arguments


def forget_rosters() -> None:
    """A run begins: an environment may have changed since the last one of this process."""
    _ROSTERS.clear()


def read_roster(recipe: Recipe) -> Roster:
    """Return the agents and spaces of a recipe's environment; it is created once per run and process to know them."""
    key = json.dumps([recipe.env, recipe.env_config], default=repr, sort_keys=True)
    if key not in _ROSTERS:
        _ROSTERS[key] = _roster(recipe)
    return _ROSTERS[key]


def _roster(recipe: Recipe) -> Roster:
    """Make the environment and read its agents off it.

    Raises:
        EnvError: it cannot be made; names it, and the line that raised.
        UsageError: an agent without a declared space.
    """
    try:
        env = make_bare(recipe.env, recipe.env_config, recipe.env_timeout_s)
    except RlkitError:
        raise
    except Exception as error:
        at, given = traceback.extract_tb(error.__traceback__)[-1], dict(recipe.env_config)
        raise EnvError(
            f"{recipe.env} could not be made with env_config {given}: {type(error).__name__}: {error} "
            f"({at.filename}:{at.lineno})"
        ) from error
    declare = (
        "a MultiAgentEnv sets possible_agents, and observation_spaces and action_spaces as {agent: Space}"
    )
    try:
        roster = Roster.of(env)
    except Exception as error:
        raise UsageError(
            f"{recipe.env}: an agent has no declared space ({type(error).__name__}: {error}); {declare}"
        ) from error
    finally:
        close(env, recipe.env, recipe.env_timeout_s)
    if not roster.single and not any(all(isinstance(a, kind) for a in roster.spaces) for kind in (str, int)):
        raise UsageError(
            f"{recipe.env}: got the agents {', '.join(map(repr, roster.spaces))}, expected names or whole numbers, "
            "all of one kind: metrics and checkpoints are named after them; write them as str in possible_agents and "
            "in what step() returns"
        )
    for agent, pair in roster.spaces.items():
        for what, space in zip(("observation", "action"), pair, strict=True):
            if not isinstance(space, gym.Space):
                raise UsageError(
                    f"{whom(recipe, agent)}: its {what} space is {space!r}, expected a gymnasium space; {declare}"
                )
    return roster


FLAT = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)


# Config classes whose own networks read any observation, and those that take Discrete actions alone.
OWN_NETWORKS = ("rlkit.MADDPGConfig", "rlkit.DRONConfig")
DISCRETE_ALONE = "DQNConfig"
TQC = "TQCConfig"  # RLlib's own (2.60): its loss takes the batch size from an array of observations
BOX_ALONE = ("rlkit.CQLConfig", "rlkit.IQLConfig", TQC)


def refuse(recipe: Recipe) -> None:
    """Say in the user's words what would end in an error of torch inside a trial; needs no RLlib.

    Raises:
        UsageError: DQN on other actions than Discrete, observations that nothing can read, or that the default
            network cannot.
    """
    from rlkit.recipe.signatures import Config

    roster, line = read_roster(recipe), Config(recipe.algorithm).line
    default = "name" not in (recipe.model or {}) and not set(OWN_NETWORKS) & set(line)
    # Beside a Dict, Tuple or Discrete everything is flattened, which casts.
    plain = all(isinstance(observation, gym.spaces.Box) for observation, _ in roster.spaces.values())
    for agent, (observation, action) in roster.spaces.items():
        who = whom(recipe, agent)
        if has_mask(observation):
            try:
                split_mask(observation, action)
            except UsageError as error:
                raise UsageError(f"{recipe.algorithm}: {who}: {error}") from error
        _refuse_empty(observation, action, set(OWN_NETWORKS) & set(line), who)
        if DISCRETE_ALONE in line and not isinstance(action, gym.spaces.Discrete):
            other = "SAC or PPO" if isinstance(action, gym.spaces.Box) else "PPO"
            raise UsageError(
                f"{recipe.algorithm} needs discrete actions, {who} acts in {action}; {other} takes them"
            )
        if set(BOX_ALONE) & set(line) and not isinstance(action, gym.spaces.Box):
            others = "SAC and PPO" if TQC in line else "BC and MARWIL"
            raise UsageError(
                f"{recipe.algorithm} needs continuous actions, {who} acts in {action}; {others} take them"
            )
        if TQC in line and not default and isinstance(observation, gym.spaces.Dict | gym.spaces.Tuple):
            raise UsageError(
                f"{recipe.algorithm} reads one array through a model by name, {who} observes {observation}; leave out "
                "model: {name: …}, which flattens it, or use SAC"
            )
        for part in leaves(observation):
            if not isinstance(part, FLAT):
                raise UsageError(
                    f"{who} observes {observation}: {type(part).__name__} cannot become a vector; "
                    "wrap the environment so that it returns Box, Discrete, or Dict and Tuple of them"
                )
            if default:
                _refuse_default(part, plain, who)
            elif "name" not in (recipe.model or {}):
                _refuse_start(part, who, "")
    _refuse_idle_fields(recipe, roster)
    _refuse_window(recipe, roster)
    _refuse_vectors(recipe)


def _refuse_empty(observation: gym.Space, action: gym.Space, own: set[str], who: str) -> None:
    """Say where there is nothing to see or nothing to do."""
    seen, acts = leaves(observation), leaves(action)
    if not acts or any(_numbers(part) == 0 for part in acts):
        raise UsageError(
            f"{who} acts in {action}, which holds no action; expected at least one in each part; write Discrete(1) "
            "where there is nothing to choose"
        )
    if not seen or (own and not any(_numbers(part) for part in seen)):
        raise UsageError(
            f"{who} observes {observation}, which holds no number; expected at least one; return np.zeros(1, "
            "np.float32) in a Box(0, 1, (1,)) where there is nothing to see"
        )
    if own and isinstance(observation, gym.spaces.Box) and observation.shape == ():
        raise UsageError(
            f"{who} observes {observation}, a number without a dimension; expected a vector; return it in a Box of "
            "shape (1,)"
        )


def _numbers(space: gym.Space) -> int:
    return math.prod(space.shape) if space.shape is not None else 1


def _refuse_window(recipe: Recipe, roster: Roster) -> None:
    """An attention that sees more steps than any episode has computes with steps that never come."""
    model = recipe.model or {}
    window = model.get("window") if model.get("name") == "attention" else None
    if isinstance(window, int) and roster.longest is not None and window > roster.longest:
        raise UsageError(
            f"model.window: the attention sees {window} steps, episodes of {recipe.env} have at most {roster.longest}; "
            f"write window: {roster.longest} or less"
        )


def _refuse_vectors(recipe: Recipe) -> None:
    """`gym_env_vectorize_mode: vector_entry_point` asks an environment for all its copies at once."""
    if recipe.config.get("env_runners", {}).get("gym_env_vectorize_mode") != "vector_entry_point":
        return
    try:
        env = make_bare(recipe.env, {**recipe.env_config, "num_envs": 2}, recipe.env_timeout_s)
        close(env, recipe.env, recipe.env_timeout_s)
        given = "" if isinstance(env, gym.vector.VectorEnv) else f"its maker returned {type(env).__name__}"
    except Exception as error:
        given = f"{type(error).__name__}: {error}"
    if given:
        raise UsageError(
            f"config.env_runners.gym_env_vectorize_mode: vector_entry_point makes {recipe.env} with num_envs and "
            f"expects a gymnasium.vector.VectorEnv; {given}; write gym_env_vectorize_mode: sync, or give it such "
            "a maker"
        )


def _refuse_idle_fields(recipe: Recipe, roster: Roster) -> None:
    """Say which fields of `model` have no effect for what any agent observes and does."""
    from rlkit.recipe.without_effect import idle_fields

    found: list[dict[str, str]] = []
    for observation, action in roster.spaces.values():
        pictures = any(
            isinstance(part, gym.spaces.Box) and len(part.shape) == 3 for part in leaves(observation)
        )
        sees = "picture" if pictures and isinstance(observation, gym.spaces.Box) else "vector"
        acts = {gym.spaces.Box: "Box", gym.spaces.Dict: None, gym.spaces.Tuple: None}.get(
            type(action), "Discrete"
        )
        idle = idle_fields(recipe.algorithm, recipe.model or {}, sees, acts)
        found.append({field: f"model.{field}: {message}; {fix}" for field, message, fix in idle})
    for field in found[0] if found else ():
        if all(field in fields for fields in found):
            raise UsageError(found[0][field])


def _refuse_default(part: gym.Space, plain: bool, who: str) -> None:
    """Say what RLlib's default network cannot read of one part of an observation."""
    if plain and isinstance(part, gym.spaces.Box):
        name = "cnn" if len(part.shape) == 3 else "mlp"
        if part.dtype.kind != "f" or part.dtype.itemsize < 4:
            raise UsageError(
                f"{who} observes {part.dtype} {part.shape}, RLlib's default network computes with float32 and "
                f"float64 alone; write model: {{name: {name}}}, which casts, or return float32"
            )
        if 0 in part.shape:
            raise UsageError(
                f"{who} observes {part.shape}, which holds no number: RLlib's default network has nothing to read; "
                "write model: {name: mlp}, which learns one answer for all, or return np.zeros(1, np.float32)"
            )
        if len(part.shape) not in (1, 3):
            raise UsageError(
                f"{who} observes {part.shape}, RLlib's default networks read vectors (k,) and pictures "
                "(height, width, channels); write model: {name: mlp}, which flattens, or reshape it"
            )
    _refuse_start(part, who, "write model: {name: mlp}, or ")


def _refuse_start(part: gym.Space, who: str, otherwise: str) -> None:
    """RLlib's connector makes one-hots that count from 0, whatever `start` says (2.60, `FlattenObservations`)."""
    network = "RLlib's default network" if otherwise else "its network"
    if isinstance(part, gym.spaces.Discrete) and part.start != 0:
        raise UsageError(
            f"{who} observes {part}, {network} counts from 0; {otherwise}return Discrete({part.n})"
        )
    if isinstance(part, gym.spaces.MultiDiscrete) and (part.start.any() or part.nvec.ndim != 1):
        sizes = part.nvec.flatten().tolist()
        raise UsageError(
            f"{who} observes {part}, {network} reads one row that counts from 0; {otherwise}return "
            f"MultiDiscrete({sizes})"
        )


def check_spaces(config: AlgorithmConfig, recipe: Recipe) -> Any:
    """Build the modules once, to find spaces that the algorithm or the model cannot take before anything starts.

    Returns:
        The modules, a MultiRLModule; what only learners have, such as MADDPG's critics, may be missing.

    Raises:
        UsageError: names the agent, its space, and what can be done.
    """
    refuse(recipe)
    roster = read_roster(recipe)
    if recipe.data is not None and roster.single:
        from rlkit.algos.learning.recorded import read_data

        read_data(recipe.data).check_fit(recipe.env, *roster.spaces[None])
    if getattr(config, "sampling", None) == "joint" and not roster.single:
        _refuse_changing_roster(recipe)
    spaces, pieces = module_spaces(config, roster)
    for piece in pieces:
        if hasattr(piece, "check_infos"):
            _check_infos(recipe, piece)
    try:
        return config.get_multi_rl_module_spec(spaces=spaces).build()
    except UsageError:
        raise
    except Exception as error:
        shown = "; ".join(f"{name}: observes {o}, acts in {a}" for name, (o, a) in spaces.items())
        raise UsageError(
            f"{recipe.algorithm} cannot build its networks for {recipe.env} ({shown}): {error}; "
            "choose a `model:` that takes this space, or wrap the environment"
        ) from error


REHEARSED = 200  # env steps


def _refuse_changing_roster(recipe: Recipe) -> None:
    """Play one episode with random actions, at most `REHEARSED` steps, and see whether all agents act in each step.

    What shows only later is said by the runner, in the same words (`joint_envs.RosterError`).

    Raises:
        UsageError: names the step and who is there.
    """
    env = make_env(recipe.env, recipe.env_config, limit_s=recipe.env_timeout_s)
    spaces, act = read_roster(recipe).spaces, _random_actions(recipe)

    def refused(what: str) -> UsageError:
        return UsageError(
            f"{recipe.algorithm} with `sampling: joint` needs all agents in every step, and {what}; write "
            "config: {env_runners: {sampling: episodes}} for agents that come, go or take turns"
        )

    def shown(agents: Iterable[Any]) -> list[str]:
        return sorted(map(str, agents))

    try:
        seen, _ = env.reset(seed=0)
        for step in range(REHEARSED):
            if set(seen) != set(spaces):
                there = f"{shown(seen)} of {shown(spaces)} are there"
                raise refused(f"after {step} steps of {recipe.env} {there}")
            seen, _, terminated, truncated, _ = env.step({agent: act(agent, seen[agent]) for agent in spaces})
            gone = [agent for agent in spaces if terminated.get(agent) or truncated.get(agent)]
            over = terminated.get("__all__") or truncated.get("__all__")
            if gone and not over and len(gone) < len(spaces):
                raise refused(f"{shown(gone)} left {recipe.env} after {step + 1} steps while others go on")
            if over or gone:
                return
    finally:
        env.close()


def _random_actions(recipe: Recipe) -> Callable[[Any, Any], Any]:
    """Return `act(agent, observation)`, which draws legal actions, equal ones in every call of this function."""
    spaces = read_roster(recipe).spaces
    for _, space in spaces.values():
        space.seed(0)
    return lambda agent, seen: random_action(seen, *spaces[agent])


def _check_infos(recipe: Recipe, connector: Any) -> None:
    """Play one episode with random actions, until each agent has acted, and show the infos to a connector.

    Raises:
        UsageError: names the agent, the step, and what its infos lack.
    """
    env = make_env(recipe.env, recipe.env_config, limit_s=recipe.env_timeout_s)
    act, single = _random_actions(recipe), read_roster(recipe).single
    missing, acted = set(read_roster(recipe).spaces), set()
    try:
        seen, _ = env.reset(seed=0)
        for step in range(1, REHEARSED + 1):
            actions = (
                {None: act(None, seen)} if single else {agent: act(agent, seen[agent]) for agent in seen}
            )
            acted |= set(actions)
            seen, _, terminated, truncated, infos = env.step(actions[None] if single else actions)
            for agent in acted & ({None} if single else set(seen)):
                missing.discard(agent)
                try:
                    connector.check_infos(agent, infos if single else infos.get(agent, {}), step)
                except EnvError as error:
                    raise UsageError(f"{whom(recipe, agent)}, {error}") from None
            ends = (
                (terminated, truncated) if single else (terminated.get("__all__"), truncated.get("__all__"))
            )
            if any(ends) or not missing:
                return
    finally:
        env.close()


def module_spaces(config: AlgorithmConfig, roster: Roster) -> tuple[dict[str, Spaces], list[Any]]:
    """Return what each module observes and acts in behind the connectors, as an EnvRunner would see it, and these."""
    if roster.single:
        given = roster.spaces[None]
    else:
        given = tuple(
            gym.spaces.Dict({agent: pair[k] for agent, pair in roster.spaces.items()}) for k in (0, 1)
        )
    pipeline = config.build_env_to_module_connector(spaces={"__env_single__": given})
    if roster.single:
        spaces = {"default_policy": (pipeline.observation_space, module_space(given[1]))}
    else:
        spaces = {
            m: (pipeline.observation_space[m], module_space(pipeline.action_space[m]))
            for m in pipeline.observation_space.spaces
        }
    return spaces, list(pipeline.connectors)


def whom(recipe: Recipe, agent: object) -> str:
    return recipe.env if agent is None else f"agent {agent} of {recipe.env}"
