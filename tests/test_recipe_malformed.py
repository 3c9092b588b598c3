"""Recipes that are wrong in one value each: refused with a reason and a fix, and nothing is run."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rlkit import recipe as recipes
from rlkit.recipe import RecipeError

BASE: dict[str, dict[str, Any]] = {
    "DQN": {"algorithm": "DQN", "env": "CartPole-v1"},
    "PPO": {"algorithm": "PPO", "env": "CartPole-v1"},
    "SAC": {"algorithm": "SAC", "env": "Pendulum-v1"},
    "MADDPG": {"algorithm": "MADDPG", "env": "pettingzoo/mpe2.simple_spread_v3"},
}
# algorithm -> [(where, a value that is wrong there)]
WRONG: dict[str, list[tuple[str, Any]]] = {
    "DQN": [
        ("config.training.replay_buffer_config", {"capacity": 10**12}),
        ("config.env_runners.num_env_runners", 10**9),
        ("config.env_runners.num_env_runners", 10**400),
        ("config.env_runners.num_envs_per_env_runner", 10**9),
        ("config.env_runners", {"num_env_runners": 2000, "num_envs_per_env_runner": 2000}),
        ("config.evaluation", {"evaluation_num_env_runners": 10**9}),
        ("config.training.gamma", -0.1),
        ("config.training.gamma", 1.5),
        ("config.training.lr", 0),
        ("config.training.lr", -1),
        ("config.training.lr", [[0, 0.001], [100, -1]]),
        ("config.training.lr", [[100, 0.001], [0, 0.0001]]),
        ("config.training.lr", [[5, 0.001]]),
        ("config.training.train_batch_size_per_learner", 0),
        ("config.training.train_batch_size", -4),
        ("config.training.tau", 2.0),
        ("config.training.n_step", 0),
        ("config.training.n_step", [3, 1]),
        ("config.training.n_step", 10**12),
        ("config.training.target_network_update_freq", -1),
        ("config.training.num_steps_sampled_before_learning_starts", -5),
        ("config.training.grad_clip", -1),
        ("config.training.grad_clip", 0),
        ("config.training.grad_clip_by", "foo"),
        ("config.training.adam_epsilon", -1),
        ("config.training.num_atoms", 0),
        ("config.training", {"v_min": 10, "num_atoms": 51}),
        ("config.training.sigma0", -1),
        ("config.training.replay_buffer_config", {"type": "Nope"}),
        ("config.training.replay_buffer_config", {"capacity": 0}),
        ("config.training.replay_buffer_config", {"capacity": -1}),
        (
            "config.training.replay_buffer_config",
            {"capacity": 8, "type": "PrioritizedEpisodeReplayBuffer", "alpha": -1},
        ),
        ("config.training.training_intensity", -1),
        ("config.training.training_intensity", 10**12),
        ("config.training.double_q", "maybe"),
        ("config.training.epsilon", [[0, 2.0], [100, 0.1]]),
        ("config.env_runners.num_env_runners", -1),
        ("config.env_runners.num_envs_per_env_runner", 0),
        ("config.env_runners.num_envs_per_env_runner", -2),
        ("config.env_runners.rollout_fragment_length", 0),
        ("config.env_runners.rollout_fragment_length", "x"),
        ("config.env_runners.batch_mode", "some"),
        ("config.env_runners.sample_timeout_s", -1),
        ("config.env_runners.num_cpus_per_env_runner", -1),
        ("config.env_runners.num_env_runners", 1000000000),
        ("config.env_runners.num_envs_per_env_runner", 1000000000),
        ("config.env_runners.explore", "x"),
        ("config.env_runners.gym_env_vectorize_mode", "x"),
        ("exploration", {"type": "EpsilonGreedy", "initial_epsilon": 3.0}),
        ("exploration", {"type": "EpsilonGreedy", "final_epsilon": -0.5}),
        ("exploration", {"type": "EpsilonGreedy", "epsilon_timesteps": -1}),
        ("exploration", {"type": "EpsilonGreedy", "epsilon_timesteps": 0}),
        ("exploration", {"type": "EpsilonGreedy", "warmup_timesteps": -1}),
        ("exploration", {"type": "RND", "embed_dim": 0}),
        ("exploration", {"type": "Curiosity", "eta": -1}),
        ("exploration", {"type": "CountBased", "bins": 0}),
        ("exploration", {"type": "SoftQ", "temperature": 0}),
        ("exploration", {"type": "SoftQ", "temperature": -1}),
        ("model", {"name": "mlp", "hiddens": []}),
        ("model", {"name": "mlp", "hiddens": [1000000000]}),
        ("model", {"name": "mlp", "hiddens": 64}),
        ("model", {"fcnet_hiddens": [0]}),
        ("model", {"fcnet_hiddens": [-64]}),
        ("model", {"fcnet_activation": "foo"}),
        ("model", {"name": "gru", "hidden": 0}),
        ("model", {"name": "gru", "cell": 0}),
        ("model", {"name": "attention", "heads": 0}),
        ("model", {"name": "attention", "size": 10**9}),
        ("model", {"name": "cnn", "filters": [[16, 8, 0]]}),
        ("model", {"use_lstm": True, "lstm_cell_size": 0}),
        ("model", {"use_lstm": True, "max_seq_len": 0}),
        ("model", {"head_fcnet_hiddens": [-1]}),
        ("stop", {"return/ghost": 1}),
        ("stop", {"loss/ghost/x": 1}),
        ("stop", {"env_steps": -1}),
        ("stop", {"iterations": 0.5}),
        ("stop", {"iterations": 0}),
        ("stop", {"time_s": 0}),
        ("stop", {"env_steps": 0}),
        ("stop", {"a/b/c/d": 1}),
        ("stop", {"eval/return/ghost": 1}),
        ("checkpoint", {"every": -1}),
        ("checkpoint", {"keep": 0}),
        ("checkpoint", {"best": "return/ghost"}),
        ("checkpoint", {"best": ""}),
        ("checkpoint", {"best": "env_steps_x"}),
        ("evaluation", {"every": 1, "episodes": 1000000000}),
        ("evaluation", {"every": 0}),
        ("evaluation", {"episodes": 0}),
        ("tune", {"samples": 0}),
        ("tune", {"samples": 1000000000000}),
        ("tune", {"concurrent": 0}),
        ("tune", {"metric": "return/ghost"}),
        ("tune", {"max_failures": -1}),
        ("tune", {"samples": 100000}),
        ("seed", -1),
        ("seed", 1099511627776),
        ("seed", "a"),
        ("seed", True),
        ("name", "../x"),
        ("name", "a/b"),
        ("name", ""),
        ("name", "-x"),
        ("name", "a\nb"),
        (
            "name",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ),
        ("env", "CartPole-v99"),
        ("env", "cartpole"),
        ("env", "CartPol"),
        ("env", ""),
        ("env_config", {"max_episode_steps": 0}),
        ("env_config", {"max_episode_steps": -1}),
        ("env_config", {"foo": 1}),
        ("env_config", {"render_mode": "foo"}),
        ("env_timeout_s", 0),
        ("env_timeout_s", -1),
        ("env_timeout_s", None),
        ("env_timeout_s", "x"),
        ("config.fault_tolerance", {"num_consecutive_env_runner_failures_tolerance": -1}),
        ("config.learners", {"num_learners": -1}),
        ("config.learners", {"num_gpus_per_learner": -1}),
        ("config.reporting", {"min_sample_timesteps_per_iteration": -1}),
        ("config.reporting", {"min_time_s_per_iteration": -1}),
        ("config.reporting", {"metrics_num_episodes_for_smoothing": 0}),
        ("config.debugging", {"seed": 3}),
        ("config.environment", {"env": "x"}),
        ("config.framework", {"framework": "tf2"}),
        ("config.resources", {"num_gpus": 1}),
        ("config.evaluation", {"evaluation_interval": 1}),
        ("config.evaluation", {"evaluation_duration": -1}),
        ("config.multi_agent", {"policies": {"a": 1}}),
        ("config.callbacks", {"callbacks_class": "x"}),
        ("config.checkpointing", {"export_native_model_files": True}),
        ("config.offline_data", {"input_": "/x"}),
        ("config.api_stack", {"enable_rl_module_and_learner": False}),
        ("callbacks", [{"name": "nope"}]),
        ("callbacks", [{}]),
        ("init_from", ""),
        ("policies", {"a": {"agents": ["*"]}}),
    ],
    "PPO": [
        ("config.training.clip_param", -1),
        ("config.training.clip_param", 0),
        ("config.training.lambda_", 2),
        ("config.training.lambda_", -1),
        ("config.training.minibatch_size", 0),
        ("config.training.num_epochs", 0),
        ("config.training.num_epochs", 10**12),
        ("config.training.kl_coeff", -1),
        ("config.training.kl_target", -1),
        ("config.training.entropy_coeff", -1),
        ("config.training.entropy_coeff", [[0, 0.1], [10, -0.1]]),
        ("config.training.vf_loss_coeff", -1),
        ("config.training.vf_clip_param", -1),
        ("config.training.minibatch_size", 1000000),
        ("config.training.train_batch_size_per_learner", 1.0e15),
        ("config.training.train_batch_size_per_learner", 10**15),
        ("config.learners", {"num_learners": 10**9}),
        ("config.training.train_batch_size", 0),
        ("config.training.train_batch_size", -1),
    ],
    "SAC": [
        ("config.training.alpha_lr", -1),
        ("config.training.initial_alpha", -1),
        ("config.training.initial_alpha", 0),
        ("config.training.target_entropy", "foo"),
        ("config.training.twin_q", "x"),
        ("config.training.tau", -1),
        ("config.training.actor_lr", 0),
        ("config.training.n_step", [1, 0]),
    ],
    "MADDPG": [
        ("env", "CartPole-v1"),
        ("policies", {"a": {"agents": ["ghost*"]}}),
        ("policies", {"a": {"agents": []}}),
        ("policies", {}),
        ("stop", {"return/ghost": 1}),
        ("checkpoint", {"best": "return/agent_9"}),
        ("stop", {"loss/ghost/critic": 1}),
        ("env_config", {"max_cycles": 0}),
        ("config.training.tau", 5),
        ("config.training.actor_lr", -1),
        ("config.training.gumbel_temperature", 0),
        ("policies", {"": {"agents": ["*"]}}),
        ("policies", {"a/b": {"agents": ["*"]}}),
    ],
}


def put(recipe: dict[str, Any], where: str, value: Any) -> None:
    *path, last = where.split(".")
    for key in path:
        recipe = recipe.setdefault(key, {})
    recipe[last] = value


CASES = [(algorithm, where, value) for algorithm, rows in WRONG.items() for where, value in rows]


def test_there_are_many() -> None:
    assert len(CASES) >= 160


@pytest.mark.parametrize(("algorithm", "where", "value"), CASES, ids=lambda part: str(part)[:40])
def test_a_wrong_value_is_refused(algorithm: str, where: str, value: Any) -> None:
    given = {"name": "wrong", **copy.deepcopy(BASE[algorithm]), "stop": {"env_steps": 50_000}}
    recipes.from_mapping(given)
    put(given, where, value)
    with pytest.raises(RecipeError) as caught:
        recipes.from_mapping(given)
    assert any(where.split(".")[0] in str(problem) for problem in caught.value.problems)
    assert all(problem.fix for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("path", "beside"), [("model.name", {"hiddens": [8]}), ("exploration.type", {"temperature": 1.0})]
)
def test_a_name_that_decides_on_the_keys_beside_it_takes_no_search_space(path: str, beside: Any) -> None:
    section, key = path.split(".")
    given = {section: {key: recipes.SearchSpace("grid", ("mlp", "lstm")), **beside}}
    with pytest.raises(RecipeError) as caught:
        recipes.from_mapping({**BASE["PPO"], "stop": {"iterations": 3}, **given})
    (problem,) = caught.value.problems
    assert (problem.path, problem.message) == (path, "a search space cannot stand here")
    assert problem.fix == f"write a recipe for each, or give {path}=… on the command line"


@pytest.mark.parametrize("failures", [1, 2, 1000])
@pytest.mark.parametrize("algorithm", BASE)
def test_max_failures_without_checkpoints_is_refused(algorithm: str, failures: int) -> None:
    values = {**BASE[algorithm], "checkpoint": {"every": 0}, "stop": {"iterations": 3}}
    with pytest.raises(RecipeError, match=rf"max_failures {failures} without checkpoints .*checkpoint: "):
        recipes.from_mapping({**values, "tune": {"max_failures": failures}})
    recipes.from_mapping({**values, "tune": {"max_failures": 0}})


def test_a_size_that_no_machine_has_is_said_in_bytes() -> None:
    given = {**BASE["PPO"], "config": {"training": {"train_batch_size_per_learner": 10**15}}}
    with pytest.raises(RecipeError) as caught:
        recipes.from_mapping(given)
    said = str(caught.value)
    assert (
        "train_batch_size_per_learner 1e+15 cannot be: that many steps, at least 16,000,000 GB fit nowhere"
        in said
    )
    assert "write at most 1,000,000,000" in said
