"""Recipe -> AlgorithmConfig, by calling RLlib's section methods, one recipe section after the other.

`AlgorithmConfig.from_dict` and `update_from_dict` accept any misspelt key; the section methods raise a TypeError.
That is why nothing here writes an attribute of the config.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from rlkit import registry, rllib
from rlkit.envs.make import env_creator
from rlkit.errors import UsageError
from rlkit.launch import faults
from rlkit.launch.spaces import read_roster, whom
from rlkit.roster import MASK_KEY, PolicyMapping, Roster, has_mask, policy_map

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from rlkit.recipe import Recipe


SECONDS = 1  # of an iteration, at least, where RLlib measures iterations in time


def build(recipe: Recipe) -> AlgorithmConfig:
    """Build the AlgorithmConfig of a recipe that holds no search spaces, its names known in this process.

    Args:
        recipe: checked by `rlkit.recipe`.

    Raises:
        UsageError: what the recipe asks for does not fit together, as far as it can be known before training.
    """
    config: AlgorithmConfig = registry.resolve("algorithms", recipe.algorithm)()
    rllib.register_env(recipe.env, env_creator(recipe.env, recipe.env_timeout_s))
    config.environment(env=recipe.env, env_config=dict(recipe.env_config))
    # no column comes of it, and a trial ends with a wait for the thread that measures (Trainable.stop, 2.60)
    config.debugging(seed=recipe.seed, log_sys_usage=False)
    faults.defaults(config, recipe.env_timeout_s)
    if config.min_time_s_per_iteration is not None:
        # IMPALA and APPO report every 10 s by default: `stop: {env_steps: …}`, read at a report, came four times late.
        config.reporting(min_time_s_per_iteration=min(SECONDS, config.min_time_s_per_iteration))
    for method, arguments in recipe.config.items():
        _call(config, method, arguments)
    if recipe.data is not None:
        config.offline_data(input_=[recipe.data])
    roster = read_roster(recipe)
    # A registered model takes observations as they are, masks included.
    if "name" not in (recipe.model or {}):
        _refuse_masks(config, recipe, roster)
        _flatten_observations(config, roster)
    _set_policies(config, recipe, roster)
    if recipe.exploration:
        from rlkit import exploration

        actions = {agent: action for agent, (_, action) in roster.spaces.items()}
        _named("exploration", exploration.configure, config, recipe.exploration, actions)
    _add_callbacks(config, [*recipe.callbacks, *_guard(config, recipe)])
    if recipe.curriculum:
        from rlkit import curriculum

        steps = recipe.stop.get("env_steps")
        _named("curriculum", curriculum.configure, config, recipe.curriculum, steps)
    _set_evaluation(config, recipe)
    try:
        config.validate()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{recipe.algorithm} refuses this configuration: {error}") from error
    _set_runner(config)
    return config


def _set_runner(config: AlgorithmConfig) -> None:
    """Sample with rlkit's runners where neither the algorithm nor the user has one, `rllib/…` included."""
    from rlkit.algos.sampling.episode_runner import default_runner

    if config.env_runner_cls is None and config.is_online:
        config.env_runners(env_runner_cls=default_runner(config))


def _call(config: AlgorithmConfig, method: str, arguments: Mapping[str, Any]) -> None:
    try:
        getattr(config, method)(**arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"config.{method}: {error}") from error


def _named(section: str, configure: Any, *args: Any) -> None:
    """Call a part; its ValueError becomes a recipe error that names the section."""
    try:
        configure(*args)
    except ValueError as error:
        raise UsageError(f"{section}: {error}") from error


def _set_policies(config: AlgorithmConfig, recipe: Recipe, roster: Roster) -> None:
    """Modules: one for a single agent; by `policies` for several (default one per agent); `model` for each."""
    from rlkit import models

    if roster.single:
        if recipe.policies:
            raise UsageError(f"policies: {recipe.env} has one agent; remove the section")
        if recipe.model:
            config.rl_module(rl_module_spec=_module(config, recipe.model, models))
        return
    mapping = policy_map(recipe.policies, roster)
    trained = [name for name in mapping if getattr(_policy(recipe.policies, name), "train", True)]
    if not trained:
        raise UsageError("policies: every policy has `train: false`; nothing is left to learn")
    config.multi_agent(
        policies=list(mapping),  # no set: the order decides who gets which initial weights
        policy_mapping_fn=PolicyMapping(mapping),
        policies_to_train=sorted(trained),
    )
    critics = {
        name: kind for name in mapping if (kind := getattr(_policy(recipe.policies, name), "critic", None))
    }
    if critics:
        _call(config, "training", {"critic": critics})
    if recipe.model:
        from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

        config.rl_module(
            rl_module_spec=MultiRLModuleSpec(
                rl_module_specs={name: _module(config, recipe.model, models) for name in mapping}
            )
        )


def _refuse_masks(config: AlgorithmConfig, recipe: Recipe, roster: Roster) -> None:
    """RLlib's default network reads a mask as numbers like others, and the algorithm takes illegal actions.

    Raises:
        UsageError: names the agent and the model that obeys the mask.
    """
    if _splits_masks(config):
        return
    for agent, (observation, _) in roster.spaces.items():
        if has_mask(observation):
            raise UsageError(
                f"{whom(recipe, agent)} observes an {MASK_KEY!r}, which RLlib's default network does not obey: it "
                "would take illegal actions; write model: {name: mlp}, or name: cnn for pictures"
            )


def _splits_masks(config: AlgorithmConfig) -> bool:
    """Whether the algorithm's own networks take the mask off their observations (MADDPG, DRON)."""
    module_class = getattr(config.get_default_rl_module_spec(), "module_class", None)
    return getattr(module_class, "takes_registered_models", False) or getattr(
        module_class, "splits_masks", False
    )


def _flatten_observations(config: AlgorithmConfig, roster: Roster) -> None:
    """Discrete, MultiDiscrete, Dict and Tuple observations become one-hot and flat vectors, as on the old stack.

    RLlib's own connector does it; without it RLlib has no encoder for these spaces (2.60, Catalog).
    """
    # a mask is taken off by the networks themselves, or there is none
    plain = [agent for agent, (observation, _) in roster.spaces.items() if not has_mask(observation)]
    if all(isinstance(roster.spaces[agent][0], gym.spaces.Box) for agent in plain):
        return
    agents = None if len(plain) == len(roster.spaces) else plain
    config.env_runners(env_to_module_connector=functools.partial(_flatten, not roster.single, agents))


def _flatten(
    multi_agent: bool,
    agents: list[Any] | None = None,
    env: Any = None,
    spaces: Any = None,
    device: Any = None,
) -> Any:
    from ray.rllib.connectors.env_to_module import FlattenObservations

    return FlattenObservations(multi_agent=multi_agent, agent_ids=agents)


def _module(config: AlgorithmConfig, model: Mapping[str, Any], models: Any) -> Any:
    try:
        return models.module_spec(config, model)
    except ValueError as error:
        raise UsageError(f"model: {error}") from error


def _policy(policies: Any, name: str) -> Any:
    return policies.get(name) if isinstance(policies, Mapping) else None


def _guard(config: AlgorithmConfig, recipe: Recipe) -> list[dict[str, Any]]:
    """NaN in a loss or gradient ends a run of RLlib's own learners too; rlkit's check for themselves."""
    from rlkit.algos.learning.learner import ColumnLearner

    named = any(entry["name"] == "NumericsGuard" for entry in recipe.callbacks)
    if named or issubclass(config.learner_class, ColumnLearner):
        return []
    return [{"name": "NumericsGuard", "observations": False, "rewards": False}]


def _add_callbacks(config: AlgorithmConfig, callbacks: Sequence[Mapping[str, Any]]) -> None:
    from rlkit.rllib import add_callbacks

    bound = []
    for entry in callbacks:
        options = dict(entry)
        name = options.pop("name")
        cls = registry.resolve("callbacks", name)
        bind = getattr(cls, "bind", None) or functools.partial(functools.partial, cls)
        try:
            bound.append(bind(**options))
        except (TypeError, ValueError) as error:
            raise UsageError(f"callbacks.{name}: {error}") from error
    add_callbacks(config, bound)


def _set_evaluation(config: AlgorithmConfig, recipe: Recipe) -> None:
    """Exact greedy evaluation on seeds of its own, in place of RLlib's, which repeats its first episodes."""
    if recipe.evaluation is None:
        return
    from rlkit.play.in_training import during_training

    config.evaluation(
        evaluation_interval=recipe.evaluation.every,
        evaluation_duration=recipe.evaluation.episodes,
        evaluation_num_env_runners=0,
        evaluation_config={"num_envs_per_env_runner": 1, "explore": False},
        custom_evaluation_function=during_training(recipe, episodes=recipe.evaluation.episodes),
    )
