"""Checkpoints for the tests of agents and evaluation: four RLlib algorithms, trained for a moment, built once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlkit.runs import manifest

TAG = "pettingzoo/mpe2.simple_tag_v3"
EPISODES = 4  # of each evaluation during training


@dataclass
class Trained:
    """A checkpoint, what the training's own evaluation said of the same weights, and RLlib's."""

    path: Path
    evaluation: dict[str, Any]
    config: Any
    rllib_evaluation: dict[str, Any] = field(default_factory=dict)


_made: dict[str, Trained] = {}


def trained(name: str, folders: pytest.TempPathFactory) -> Trained:
    """Return a checkpoint by name (dqn, sac_filtered, ppo_lstm, ppo_tag), trained on first use. Needs Ray."""
    if name not in _made:
        _made[name] = globals()[f"_{name}"](folders.mktemp("trained"))
    return _made[name]


def _finish(config: Any, folder: Path, name: str, env: str, env_config: dict[str, Any]) -> Trained:
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
        path = folder / name
        algorithm.save_to_path(str(path))
        manifest.write(
            path,
            recipe={"env": env, "env_config": env_config},
            iteration=1,
            env_steps=int(result["num_env_steps_sampled_lifetime"]),
        )
        return Trained(path, result["evaluation"]["env_runners"], config)
    finally:
        algorithm.stop()


def _with_evaluation(config: Any) -> Any:
    from rlkit.play.evaluation import during_training

    return config.debugging(seed=0).evaluation(
        evaluation_interval=1,
        evaluation_num_env_runners=0,
        custom_evaluation_function=during_training(episodes=EPISODES),
    )


def _dqn(folder: Path) -> Trained:
    from ray.rllib.algorithms.dqn import DQNConfig

    config = (
        DQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .training(
            train_batch_size_per_learner=32,
            num_steps_sampled_before_learning_starts=32,
            num_atoms=11,
            lr=1e-3,
        )
        .reporting(min_sample_timesteps_per_iteration=64)
    )
    made = _finish(_with_evaluation(config), folder, "dqn", "CartPole-v1", {})
    # The same weights under RLlib's own evaluation.
    plain = config.copy(copy_frozen=False).evaluation(
        evaluation_duration=100,
        custom_evaluation_function=None,
        evaluation_config={"explore": False, "num_envs_per_env_runner": 10},
    )
    algorithm = plain.build_algo()
    try:
        algorithm.restore_from_path(str(made.path))
        made.rllib_evaluation = algorithm.evaluate()["env_runners"]
    finally:
        algorithm.stop()
    return made


def _sac_filtered(folder: Path) -> Trained:
    from ray.rllib.algorithms.sac import SACConfig
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    config = (
        SACConfig()
        .environment("Pendulum-v1")
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=4,
            env_to_module_connector=lambda env=None, spaces=None, device=None: MeanStdFilter(),
        )
        .rl_module(model_config={"head_fcnet_hiddens": [32], "fcnet_hiddens": [32]})
        .training(train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=32)
        .reporting(min_sample_timesteps_per_iteration=64)
    )
    return _finish(_with_evaluation(config), folder, "sac_filtered", "Pendulum-v1", {})


def _ppo_lstm(folder: Path) -> Trained:
    from ray.rllib.algorithms.ppo import PPOConfig

    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .rl_module(model_config={"use_lstm": True, "lstm_cell_size": 16, "max_seq_len": 10})
        .training(train_batch_size_per_learner=128, minibatch_size=64, num_epochs=1)
    )
    return _finish(_with_evaluation(config), folder, "ppo_lstm", "CartPole-v1", {})


def _ppo_tag(folder: Path) -> Trained:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env

    from rlkit.envs.make import env_creator
    from rlkit.roster import PolicyMapping

    register_env(TAG, env_creator(TAG))
    mapping = {"predators": ["adversary_*"], "prey": ["agent_*"]}
    config = (
        PPOConfig()
        .environment(TAG, env_config={"max_cycles": 25})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .multi_agent(policies=set(mapping), policy_mapping_fn=PolicyMapping(mapping))
        .training(train_batch_size_per_learner=100, minibatch_size=50, num_epochs=1)
    )
    return _finish(_with_evaluation(config), folder, "ppo_tag", TAG, {"max_cycles": 25})
