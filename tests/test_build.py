"""Recipe to AlgorithmConfig: sections, policies, observations; and the tune section in Tune's words."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from case_envs import Two
from maddpg_envs import Sum
from ray import tune
from ray.tune.search import Searcher

from rlkit import recipe as recipes
from rlkit import registry
from rlkit.envs import checked_env
from rlkit.errors import EnvError, UsageError
from rlkit.launch import spaces
from rlkit.launch.build import build
from rlkit.launch.search import first_value, has_spaces, param_space, scheduler, searcher
from rlkit.launch.session import demand
from rlkit.recipe import PolicySection, Recipe
from rlkit.recipe.spaces import SearchSpace
from rlkit.roster import PolicyMapping, Roster, policy_map

BOX, DISCRETE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
TAG = Roster(
    {"adversary_0": (BOX, DISCRETE), "adversary_1": (BOX, DISCRETE), "agent_0": (BOX, gym.spaces.Discrete(5))}
)


def recipe(**values: object) -> recipes.Recipe:
    base = {"name": "r", "algorithm": "PPO", "env": "CartPole-v1", "stop": {"env_steps": 1000}}
    return recipes.from_mapping({**base, **values})


def test_sections_become_settings_of_the_algorithm_config() -> None:
    config = build(
        recipe(
            seed=7,
            config={"training": {"lr": 1e-3, "gamma": 0.9}, "env_runners": {"num_envs_per_env_runner": 3}},
            evaluation={"every": 1, "episodes": 6},
        )
    )
    assert (config.lr, config.gamma, config.num_envs_per_env_runner, config.seed) == (1e-3, 0.9, 3, 7)
    assert (config.evaluation_interval, config.evaluation_duration) == (1, 6)
    assert config.custom_evaluation_function is not None


def connectors(config: object, observation: gym.Space) -> list[str]:
    spaces = {"__env_single__": (observation, DISCRETE), "default_policy": (observation, DISCRETE)}
    return [type(piece).__name__ for piece in config.build_env_to_module_connector(spaces=spaces).connectors]


def test_discrete_observations_are_flattened_by_rllibs_connector() -> None:
    assert "FlattenObservations" in connectors(build(recipe(env="FrozenLake-v1")), gym.spaces.Discrete(16))
    assert "FlattenObservations" not in connectors(build(recipe()), BOX)


def test_one_policy_per_agent_shared_and_globs() -> None:
    assert policy_map(None, TAG) == {
        "adversary_0": ["adversary_0"],
        "adversary_1": ["adversary_1"],
        "agent_0": ["agent_0"],
    }
    chosen = policy_map(
        {"hunters": PolicySection(agents=["adversary_*"]), "prey": PolicySection(agents=["*"])}, TAG
    )
    mapping = PolicyMapping(chosen)
    assert [mapping(agent) for agent in TAG.spaces] == ["hunters", "hunters", "prey"]


def test_a_policy_per_agent_where_a_name_reads_like_a_glob() -> None:
    team = Roster(dict.fromkeys(["red[0]", "red[1]", "x*", "xy"], (BOX, gym.spaces.Discrete(2))))
    mapping = PolicyMapping(policy_map(None, team))
    assert [mapping(agent) for agent in team.spaces] == list(team.spaces)


@pytest.mark.parametrize("agent", ["team/a", "a:b", "y?", "", "a."])
def test_names_that_no_policy_can_have(agent: str) -> None:
    team = Roster({agent: (BOX, gym.spaces.Discrete(2))})
    with pytest.raises(UsageError, match=f"{re.escape(repr(agent))} cannot name a folder.*name the policies"):
        policy_map(None, team)
    with pytest.raises(UsageError, match=f"{re.escape(repr(agent))} cannot name a folder.*rename it"):
        policy_map({agent: PolicySection(agents=["*"])}, team)
    assert policy_map("shared", team) == {"shared": ["*"]}


@pytest.mark.parametrize("names", [[("red", 0), ("red", 1)], [0, "0"], [None, "a"]])
def test_agents_that_metrics_cannot_name(names: list, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Two):
        def __init__(self) -> None:
            super().__init__()
            self.possible_agents = names
            self.observation_spaces = dict.fromkeys(names, BOX)
            self.action_spaces = dict.fromkeys(names, gym.spaces.Discrete(2))

    monkeypatch.setitem(registry.TABLES["envs"], "it", registry.Entry("it", Odd))
    spaces.forget_rosters()
    with pytest.raises(
        UsageError, match=r"got the agents .*, expected names or whole numbers, all of one kind"
    ):
        spaces.read_roster(recipe(env="it"))


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"hunters": ["adversary_*"]}, "no policy plays agent 'agent_0'"),
        (
            {"hunters": ["adv*"], "rest": ["agent_0"], "prey": ["agent_9"]},
            r"policies.prey: no agent matches \['agent_9'\]; the agents are adversary_0",
        ),
        (
            {"all": ["*"]},
            r"one module cannot play adversary_0 and agent_0: adversary_0 acts in Discrete\(2\)",
        ),
    ],
)
def test_policies_that_do_not_fit_the_agents(policies: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        policy_map({name: PolicySection(agents=globs) for name, globs in policies.items()}, TAG)


def test_policies_for_a_single_agent_are_an_error() -> None:
    with pytest.raises(UsageError, match="CartPole-v1"):
        build(recipes.Recipe.from_dict({**recipe().to_dict(), "policies": "shared"}))


def test_shared_module_of_a_multi_agent_environment() -> None:
    config = build(recipe(env="pettingzoo/mpe2.simple_spread_v3", policies="shared"))
    assert set(config.policies) == {"shared"}
    assert config.policy_mapping_fn("agent_2") == "shared"


def test_policies_keep_their_order_and_with_it_their_initial_weights() -> None:
    """The order of a set of strings is another one in every process, see PYTHONHASHSEED."""
    spread = recipe(env="pettingzoo/mpe2.simple_spread_v3", env_config={"N": 9})
    assert list(build(spread).policies) == [f"agent_{i}" for i in range(9)]
    named = {f"p{k}": {"agents": [f"agent_{k}"]} for k in (3, 1, 4, 0, 5, 2, 8, 6, 7)}
    given = recipe(env="pettingzoo/mpe2.simple_spread_v3", env_config={"N": 9}, policies=named)
    assert list(build(given).policies) == list(named)


def test_seeds_and_grids_are_tunes_grid_search() -> None:
    space, samples = param_space(
        recipe(seed=5, tune={"samples": 3}, config={"training": {"lr": {"grid_search": [1e-3, 1e-4]}}})
    )
    assert samples == 1
    assert space["seed"] == {"grid_search": [5, 6, 7]}
    assert space["config"]["training"]["lr"] == {"grid_search": [1e-3, 1e-4]}


def test_a_recipe_with_spaces_is_built_once_with_their_first_values() -> None:
    values = {"a": {"grid_search": [3, 4]}, "b": [{"c": 1}]}
    assert has_spaces(values)
    assert first_value(values) == {"a": 3, "b": [{"c": 1}]}


def test_schedulers_by_name_with_their_options() -> None:
    asha = scheduler(
        recipe(tune={"samples": 2, "scheduler": {"type": "asha", "grace_period": 3, "max_t": 9}})
    )
    assert type(asha).__name__ == "AsyncHyperBand"
    pbt = scheduler(
        recipe(
            tune={
                "samples": 2,
                "scheduler": {
                    "type": "pbt",
                    "perturbation_interval": 2,
                    "mutations": {"config.training.lr": [1e-3, 1e-4]},
                },
            }
        )
    )
    assert pbt._hyperparam_mutations == {"config": {"training": {"lr": [1e-3, 1e-4]}}}
    assert scheduler(recipe()) is None
    assert type(searcher(recipe())).__name__ == "BasicVariantGenerator"


def test_the_seed_decides_what_is_drawn_from_search_spaces(tmp_path: Path) -> None:
    def draws(seed: int) -> list[float]:
        spaces = {"training": {"lr": SearchSpace("uniform", (0.1, 0.9))}}
        asked = recipe(seed=seed, config=spaces, tune={"samples": 4})
        space, samples = param_space(asked)
        experiment = tune.Experiment(
            "r", lambda config: None, config=space, num_samples=samples, storage_path=str(tmp_path)
        )
        variants = searcher(asked)
        variants.add_configurations(experiment)
        return [variants.next_trial().config["config"]["training"]["lr"] for _ in range(4)]

    assert draws(0) == draws(0)
    assert len({*draws(0), *draws(1)}) == 8


def test_embedded_ray_has_room_for_one_trial() -> None:
    assert demand(recipe(config={"env_runners": {"num_env_runners": 7}})) == 8
    assert demand(recipe()) >= 3  # RLlib's PPO starts two env runners by default
    learners = {"num_learners": 2, "num_cpus_per_learner": 4, "num_aggregator_actors_per_learner": 20}
    assert demand(recipe(config={"env_runners": {"num_env_runners": 0}, "learners": learners})) == 49
    runners = {"num_env_runners": 40, "num_cpus_per_env_runner": 1.5}
    assert demand(recipe(config={"env_runners": runners})) == 61


def test_a_searcher_does_not_talk_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("optuna")

    def create(kind: str, **options: Any) -> Searcher:
        logger.setLevel(logging.INFO)  # as Optuna does when it is imported
        return Searcher("eval/return_mean", "max")

    monkeypatch.setattr("ray.tune.search.create_searcher", create)
    values = {**recipe().to_dict(), "tune": {"search": {"type": "optuna"}}}
    assert searcher(Recipe.from_dict(values)) is not None
    assert not logger.isEnabledFor(logging.INFO)


class Masked(gym.Env):
    observation_space = gym.spaces.Dict(action_mask=gym.spaces.Box(0, 1, (2,)), obs=BOX)
    action_space = DISCRETE


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry.TABLES["envs"], "masked", registry.Entry("masked", Masked))
    return "masked"


def test_a_mask_that_the_default_network_would_ignore_is_refused(masked: str) -> None:
    with pytest.raises(UsageError, match=r"masked observes an 'action_mask'.*write model: \{name: mlp\}"):
        build(recipe(env=masked))
    build(recipe(env=masked, model={"name": "mlp"}))


def test_iterations_are_short_enough_to_stop_where_the_recipe_says() -> None:
    assert build(recipe(algorithm="IMPALA")).min_time_s_per_iteration == 1
    given = {"reporting": {"min_time_s_per_iteration": 5}}
    assert build(recipe(algorithm="IMPALA", config=given)).min_time_s_per_iteration == 5
    assert build(recipe()).min_time_s_per_iteration is None


@pytest.mark.parametrize(
    ("algorithm", "observation", "action", "message"),
    [
        ("DQN", BOX, BOX, r"DQN needs discrete actions, it acts in Box.*; SAC or PPO takes them"),
        ("DQN", BOX, gym.spaces.MultiDiscrete([2, 3]), r"DQN needs discrete actions.*; PPO takes them"),
        ("PPO", gym.spaces.Box(0, 255, (64, 64, 3), np.uint8), DISCRETE, r"uint8 .* model: \{name: cnn\}"),
        (
            "PPO",
            gym.spaces.Box(-5, 5, (3,), np.int8),
            DISCRETE,
            r"it observes int8 \(3,\).*model: \{name: mlp\}",
        ),
        (
            "DQN",
            gym.spaces.Discrete(3, start=2),
            DISCRETE,
            r"it observes Discrete\(3, start=2\).*counts from 0",
        ),
        (
            "PPO",
            gym.spaces.Dict(a=gym.spaces.MultiDiscrete([3, 2], start=[-1, 0]), b=BOX),
            DISCRETE,
            r"counts from 0; write model: \{name: mlp\}, or return MultiDiscrete\(\[3, 2\]\)",
        ),
        ("DQN", gym.spaces.MultiDiscrete([[3, 2], [2, 4]]), DISCRETE, r"reads one row.*\(\[3, 2, 2, 4\]\)"),
        ("PPO", gym.spaces.Box(-5, 5, (0,)), DISCRETE, r"observes \(0,\), which holds no number.*name: mlp"),
        ("PPO", gym.spaces.Box(-5, 5, (3,), np.float16), DISCRETE, r"observes float16 \(3,\).*name: mlp"),
        ("PPO", None, DISCRETE, r"it: its observation space is None, expected a gymnasium space"),
    ],
)
def test_spaces_that_fail_in_a_trial_are_refused_before_it(
    algorithm: str, observation: Any, action: gym.Space, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, forget_rosters = action, spaces.forget_rosters

    class Any_(gym.Env):
        observation_space, action_space = observation, space

    monkeypatch.setitem(registry.TABLES["envs"], "it", registry.Entry("it", Any_))
    monkeypatch.setattr(checked_env, "checked", lambda env: env)
    forget_rosters()
    asked = recipe(algorithm=algorithm, env="it", stop={"env_steps": 5000})
    with pytest.raises(UsageError, match=message):
        spaces.check_spaces(build(asked), asked)


def test_integers_in_a_dict_are_flattened_to_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    class Integers(gym.Env):
        observation_space = gym.spaces.Dict(a=gym.spaces.Box(-5, 5, (3,), np.int8))
        action_space = DISCRETE

    monkeypatch.setitem(registry.TABLES["envs"], "it", registry.Entry("it", Integers))
    spaces.forget_rosters()
    spaces.check_spaces(build(recipe(env="it")), recipe(env="it"))


def test_an_environment_that_cannot_be_made_is_named_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(**options: Any) -> gym.Env:
        raise KeyError("map")

    monkeypatch.setitem(registry.TABLES["envs"], "it", registry.Entry("it", make))
    spaces.forget_rosters()
    with pytest.raises(
        EnvError, match=r"it could not be made with env_config .*KeyError: 'map' .*test_build.py:\d+"
    ):
        build(recipe(env="it", env_config={"size": 3}))


def test_a_constructor_that_exits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(**options: Any) -> gym.Env:
        raise SystemExit(0)

    monkeypatch.setitem(registry.TABLES["envs"], "it", registry.Entry("it", make))
    spaces.forget_rosters()
    with pytest.raises(EnvError, match="it: the constructor raised SystemExit: 0"):
        build(recipe(env="it"))


def test_an_environment_that_raises_in_the_rehearsal_of_a_team_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Off(Sum):
        def step(self, actions: Any) -> Any:
            raise RuntimeError("the simulator is not running")

    monkeypatch.setitem(registry.TABLES["envs"], "it", registry.Entry("it", Off))
    spaces.forget_rosters()
    asked = recipe(algorithm="MADDPG", env="it", stop={"env_steps": 100000})
    with pytest.raises(EnvError, match=r"step\(\) in step 1 of episode 1 raised RuntimeError: the simulator"):
        spaces.check_spaces(build(asked), asked)


def test_atari_names_its_package() -> None:
    with pytest.raises(recipes.RecipeError, match=r"gymnasium\[atari\]"):
        recipe(env="ALE/Pong-v5")
