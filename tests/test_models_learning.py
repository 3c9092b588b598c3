"""Custom models learn: updates of RLlib's and rlkit's algorithms change the user's own parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import model_samples
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.replay_buffers import PrioritizedEpisodeReplayBuffer
from ray.tune import register_env

from rlkit import registry
from rlkit.algos.dqn import DQNConfig as ColumnDQNConfig
from rlkit.algos.sac import SACConfig as ColumnSACConfig
from rlkit.envs import make_env
from rlkit.models import module_spec, register_model


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    known = dict(registry.TABLES["models"])
    register_model("tiny", model_samples.tiny)
    register_model("memory", model_samples.memory)
    yield
    registry.TABLES["models"].clear()
    registry.TABLES["models"].update(known)


def own_parameters(module: Any) -> dict[str, torch.Tensor]:
    """The user's parameters inside a module, target networks left out."""
    named = module.named_parameters()
    return {name: p.detach().clone() for name, p in named if ".own." in name and "target" not in name}


def configured(config: Any, env: str, model: dict) -> Any:
    config.environment(env).env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    config.debugging(seed=0)
    return config.rl_module(rl_module_spec=module_spec(config, model))


@pytest.mark.parametrize(
    ("config_class", "env", "model", "copies"),
    [
        (PPOConfig, "CartPole-v1", {"name": "tiny"}, 2),  # actor and critic
        (PPOConfig, "CartPole-v1", {"name": "tiny", "share": True}, 1),
        (PPOConfig, "CartPole-v1", {"name": "tiny", "use_lstm": True, "lstm_cell_size": 4}, 2),
        (PPOConfig, "CartPole-v1", {"name": "memory"}, 2),
        (DQNConfig, "CartPole-v1", {"name": "tiny"}, 1),
        # SAC: the policy and two Q functions.
        (SACConfig, "Pendulum-v1", {"name": "tiny", "fusionnet_hiddens": [16]}, 3),
    ],
    ids=["PPO", "PPO-shared", "PPO-lstm", "PPO-recurrent", "DQN", "SAC"],
)
def test_rllibs_learners_train_the_users_parameters(
    config_class: type, env: str, model: dict, copies: int
) -> None:
    config = configured(config_class(), env, model)
    if config_class is PPOConfig:
        config.training(train_batch_size_per_learner=32, minibatch_size=16, num_epochs=2)
    runner = SingleAgentEnvRunner(config=config.copy(copy_frozen=False))
    episodes = runner.sample(num_timesteps=32)
    if config_class is not PPOConfig:
        replay = PrioritizedEpisodeReplayBuffer(capacity=1000)
        replay.add(episodes)
        episodes = replay.sample(num_items=16, n_step=1, gamma=0.99, beta=0.4, sample_episodes=True)
    learner = config.build_learner(env=runner.env)
    module = learner.module["default_policy"].unwrapped()
    before = own_parameters(module)
    assert len({name.split(".own.")[0] for name in before}) == copies
    for _ in range(2):
        learner.update(episodes=episodes)
    after = own_parameters(module)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize(
    ("config_class", "env", "model"),
    [
        (ColumnDQNConfig, "CartPole-v1", {"name": "tiny"}),
        (ColumnSACConfig, "Pendulum-v1", {"name": "tiny", "fusionnet_hiddens": [16]}),
        (ColumnSACConfig, "Pendulum-v1", {"name": "mlp", "hiddens": [8], "fusionnet_hiddens": []}),
    ],
    ids=["DQN", "SAC", "SAC-joint"],
)
def test_rlkits_algorithms_train_and_save_the_users_model(
    ray_local: None, tmp_path: Path, config_class: type, env: str, model: dict
) -> None:
    config = configured(config_class(), env, model)
    config.training(num_steps_sampled_before_learning_starts=16, train_batch_size_per_learner=16)
    algorithm = config.build_algo()
    try:
        before = own_parameters(algorithm.get_module())
        for _ in range(2):
            algorithm.train()
        learned = algorithm.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"]
        learned = learned["default_policy"]
        acting = algorithm.get_module()
        assert all(not np.array_equal(before[name].numpy(), learned[name]) for name in before)
        # the env runner plays what was learned
        assert all(
            np.array_equal(value.numpy(), learned[name]) for name, value in own_parameters(acting).items()
        )
        algorithm.save_to_path(str(tmp_path))
    finally:
        algorithm.stop()
    loaded = RLModule.from_checkpoint(tmp_path / "learner_group" / "learner" / "rl_module" / "default_policy")
    observations = {"obs": torch.zeros(3, acting.observation_space.shape[0])}
    key = "actions" if "actions" in acting.forward_inference(observations) else "action_dist_inputs"
    assert torch.equal(
        loaded.forward_inference(observations)[key], acting.forward_inference(observations)[key]
    )


def test_masked_turn_based_games_are_sampled_legally_and_learned() -> None:
    register_env("tictactoe", lambda config: make_env("pettingzoo/classic.tictactoe_v3"))
    config = PPOConfig().environment("tictactoe").env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    config.multi_agent(policies={"both"}, policy_mapping_fn=lambda agent, episode, **kwargs: "both")
    config.training(train_batch_size_per_learner=32, minibatch_size=16, num_epochs=1)
    config.rl_module(rl_module_spec=module_spec(config, {"name": "mlp", "hiddens": [16]}))
    runner = MultiAgentEnvRunner(config=config.copy(copy_frozen=False))
    episodes = runner.sample(num_episodes=6)
    moves = 0
    for episode in episodes:
        for part in episode.agent_episodes.values():
            masks = part.get_observations()["action_mask"][:-1]
            for mask, action in zip(masks, part.get_actions(), strict=True):
                assert mask[action] == 1
                moves += 1
    assert moves > 6 * 4
    board = gym.spaces.Dict(episodes[0].observation_space["player_1"].spaces)
    learner = config.build_learner(spaces={"both": (board, gym.spaces.Discrete(9))})
    module = learner.module["both"]
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    learner.update(episodes=episodes)
    changed = [name for name, p in module.named_parameters() if not torch.equal(before[name], p)]
    assert any("actor_encoder" in name for name in changed)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_recipe_hands_masks_to_a_registered_model() -> None:
    from rlkit.launch.build import build
    from rlkit.launch.spaces import check_spaces
    from rlkit.recipe import Recipe

    recipe = Recipe.from_dict(
        {
            "name": "masked",
            "algorithm": "PPO",
            "env": "pettingzoo/classic.tictactoe_v3",
            "policies": "shared",
            "model": {"name": "mlp", "hiddens": [8]},
            "stop": {"iterations": 1},
        }
    )
    config = build(recipe)
    check_spaces(config, recipe)
    runner = MultiAgentEnvRunner(config=config.copy(copy_frozen=False).env_runners(num_env_runners=0))
    space = runner.module["shared"].observation_space
    assert isinstance(space, gym.spaces.Dict)
    assert runner.module["shared"].pi.size == 8  # the mask is handed on behind eight features
