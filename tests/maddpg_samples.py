"""Configurations and learners of MADDPG for tests, without Ray where a learner is enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from maddpg_envs import Game

from rlkit.algos import MADDPGConfig

STEPS = "num_env_steps_sampled_lifetime"


def config_of(
    game: type[Any], cls: type[MADDPGConfig] = MADDPGConfig, shared: bool = False, **training: Any
) -> MADDPGConfig:
    """A small, quick configuration: one policy per agent, or one for all."""
    config = cls().environment(game, disable_env_checking=True)
    if issubclass(game, Game):
        policies = {"all"} if shared else set(game.agents_)
        config.multi_agent(
            policies=policies, policy_mapping_fn=lambda agent, episode: "all" if shared else agent
        )
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=5)
    config.rl_module(model_config={"fcnet_hiddens": [32, 32]})
    config.training(
        train_batch_size_per_learner=128,
        num_steps_sampled_before_learning_starts=200,
        **{"training_intensity": 16, "exploration_noise": 0.3, **training},
    )
    config.reporting(min_sample_timesteps_per_iteration=400, min_time_s_per_iteration=0)
    return config.debugging(seed=1, log_level="ERROR")


def learner_of(config: MADDPGConfig, seed: int = 0) -> Any:
    """A built learner, with seeded weights."""
    torch.manual_seed(seed)
    env = config.env(None)
    agents = getattr(env, "possible_agents", None)
    if agents is None:
        return config.build_learner(spaces={"default_policy": (env.observation_space, env.action_space)})
    shared = "all" in config.policies
    names = {"all": agents[0]} if shared else {a: a for a in agents}
    spaces = {m: (env.observation_spaces[a], env.action_spaces[a]) for m, a in names.items()}
    config.validate()
    return config.build_learner(spaces=spaces)


def columns_of(config: MADDPGConfig, updates: int, rows: int, seed: int = 0) -> dict[str, Any]:
    """Random joint columns (K, B, ...) of Box agents."""
    env, g = config.env(None), np.random.default_rng(seed)
    agents = sorted(env.possible_agents)

    def draw(spaces: Any) -> dict[str, np.ndarray]:
        return {a: g.uniform(-1, 1, (updates, rows, *spaces[a].shape)).astype(np.float32) for a in agents}

    yes = np.ones((updates, rows, len(agents)), bool)
    return {
        "obs": draw(env.observation_spaces),
        "new_obs": draw(env.observation_spaces),
        "actions": draw(env.action_spaces),
        "present": yes, "next_present": yes.copy(), "acted": yes.copy(),
        "rewards": g.normal(size=yes.shape).astype(np.float32),
        "terminateds": g.random(yes.shape) < 0.1,
        "truncateds": ~yes,
        "n_step": np.ones((updates, rows), np.float32),
        "weights": np.ones((updates, rows), np.float32),
    }  # fmt: skip


def update(learner: Any, columns: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Run the updates with columns, or {name: columns}; return the learner's metrics."""
    updates = columns.get("joint", columns)["rewards"].shape[0]
    found: dict[str, Any] = learner.update_from_columns(
        iter([{"joint": columns}]), num_updates=updates, env_steps=0, timesteps={STEPS: 0}, **kwargs
    )
    return found


def weights(learner: Any) -> dict[str, torch.Tensor]:
    """Every tensor of every module, by name."""
    return {
        f"{m}.{name}": value.clone()
        for m in sorted(learner.module.keys())
        for name, value in learner.module[m].unwrapped().state_dict().items()
    }
