"""Words that users of RLlib know and that mean something else in a recipe, or nothing: each with what to write instead.

scripts/generate_signatures.py puts them into the table. Sources: RLlib 2.60's own deprecations, the migration guide to
the new API stack, and a search of its source for readers of each argument (`tests/test_recipe_signatures.py`).
"""

from __future__ import annotations

# method -> argument -> what to write instead, for arguments that the recipe sets elsewhere.
ELSEWHERE: dict[str, dict[str, str]] = {
    "environment": {
        "env": "write env: … at the top of the recipe",
        "env_config": "write env_config: {…} at the top of the recipe",
        "observation_space": "remove it; the environment says it",
        "action_space": "remove it; the environment says it",
    },
    "evaluation": {
        "evaluation_interval": "write evaluation: {every: …} at the top of the recipe",
        "evaluation_duration": "write evaluation: {episodes: …} at the top of the recipe",
        "evaluation_duration_unit": "write evaluation: {episodes: …} at the top of the recipe",
        "evaluation_config": "remove it; evaluation is greedy, on one environment per episode",
        "evaluation_num_env_runners": "remove it; evaluation steps all its episodes as one batch",
        "evaluation_parallel_to_training": "remove it; evaluation steps all its episodes as one batch",
        "custom_evaluation_function": "write evaluation: {every: …, episodes: …} at the top of the recipe",
        "off_policy_estimation_methods": "remove it; a recipe cannot name classes for RLlib to import",
    },
    "multi_agent": {
        "policies": "write policies: {name: {agents: [\"agent_*\"]}} at the top of the recipe",
        "policy_mapping_fn": "write policies: {name: {agents: [\"agent_*\"]}} at the top of the recipe",
        "policies_to_train": "write policies: {name: {train: false}} at the top of the recipe",
    },
    "rl_module": {
        "model_config": "write model: {…} at the top of the recipe",
        "rl_module_spec": "register the module and write model: {name: …} at the top of the recipe",
    },
    "debugging": {"seed": "write seed: … at the top of the recipe"},
    "env_runners": {"exploration_config": "write exploration: {type: EpsilonGreedy, …} at the top of the recipe"},
    "training": {"model": "write model: {…} at the top of the recipe"},
    "offline_data": {"input_read_method": "store the data as parquet, RLlib's default"},
}  # fmt: skip

# method -> argument -> what to write instead: RLlib 2.60 accepts these and does nothing with them on the new API stack.
IGNORED: dict[str, dict[str, str]] = {
    "environment": {
        "render_env": "use rlkit evaluate --video",
        "clip_rewards": "use callbacks: [{name: RewardScale, …}], or an environment wrapper",
        "is_atari": "wrap the environment",
        "action_mask_key": "use an environment whose observations hold action_mask",
    },
    "env_runners": {
        "compress_observations": "remove it",
        "use_worker_filter_stats": "use merge_env_runner_states",
        "update_worker_filter_stats": "use broadcast_env_runner_states",
        "remote_worker_envs": "use gym_env_vectorize_mode: async",
        "remote_env_batch_wait_ms": "remove it",
        "preprocessor_pref": "remove it; observations pass connectors",
        "observation_filter": "remove it; observations pass connectors",
        "enable_tf1_exec_eagerly": "remove it; the new API stack is torch",
        "sampler_perf_stats_ema_coef": "remove it",
        "sample_collector": "remove it",
    },
    "training": {
        "optimizer": "remove it; RLlib's learners use Adam with `lr`",
        "optimization_config": "use actor_lr, critic_lr and alpha_lr",
        "q_model_config": "write model: {…} at the top of the recipe",
        "policy_model_config": "write model: {…} at the top of the recipe",
        "store_buffer_in_checkpoints": "use algorithm: DQN or SAC, which save their buffer",
        "noisy": "write exploration: {type: ParameterNoise}",
        "sigma0": "write exploration: {type: ParameterNoise}",
        "hiddens": "write model: {head_fcnet_hiddens: […]} at the top of the recipe",
        "adam_epsilon": "remove it",
        "categorical_distribution_temperature": "remove it",
        "lr_schedule": "write lr: [[0, 1e-3], [100000, 1e-4]]",
        "entropy_coeff_schedule": "write entropy_coeff: [[0, 0.01], [100000, 0.0]]",
        "use_gae": "remove it; the new API stack always uses GAE",
        "target_worker_clipping": "remove it",
        "opt_type": "remove it; RLlib's learners use Adam",
        "decay": "remove it; RLlib's learners use Adam",
        "momentum": "remove it; RLlib's learners use Adam",
        "minibatch_buffer_size": "use circular_buffer_num_batches (APPO)",
        "replay_proportion": "use circular_buffer_iterations_per_batch (APPO)",
        "replay_buffer_num_slots": "use circular_buffer_num_batches (APPO)",
        "num_multi_gpu_tower_stacks": "use config: {learners: {num_learners: …, num_gpus_per_learner: 1}}",
        "learner_queue_timeout": "remove it",
        "timeout_s_aggregator_manager": "remove it",
    },
    "multi_agent": {
        "policy_map_capacity": "remove it",
        "policy_states_are_swappable": "remove it",
        "observation_fn": "use callbacks: [{name: MergeAgentObservations}]",
    },
    "reporting": {
        "keep_per_episode_custom_metrics": "remove it; rlkit evaluate --csv has one row per episode",
        "metrics_episode_collection_timeout_s": "remove it",
    },
    "debugging": {
        "log_sys_usage": "remove it",
        "fake_sampler": "remove it",
    },
    "offline_data": {
        "actions_in_input_normalized": "remove it",
        "postprocess_inputs": "remove it",
        "shuffle_buffer_size": "remove it",
        "offline_sampling": "remove it",
        "prelearner_module_synch_period": "remove it",
        "output_config": "use output_write_method_kwargs",
        "output_max_file_size": "use output_max_rows_per_file",
        "input_config": "use input_read_method_kwargs",
    },
    "evaluation": {
        "ope_split_batch_by_episode": "remove it",
        "dataset_num_iters_per_offline_eval_runner": "remove it",
        "broadcast_offline_eval_runner_states": "remove it",
    },
}

# config class -> the same for one algorithm alone: `epsilon` is a schedule for DQN and an option of Adam for IMPALA.
IGNORED_BY: dict[str, dict[str, str]] = {
    "IMPALAConfig": {"epsilon": "remove it; RLlib's learners use Adam"},
    "APPOConfig": {
        "epsilon": "remove it; RLlib's learners use Adam",
        "learner_queue_size": "use circular_buffer_num_batches",
    },
}

# config class -> arguments of the tables above that a class of rlkit brings back to life, with their types.
EFFECTIVE: dict[str, dict[str, str]] = {"rlkit.OffPolicyConfig": {"store_buffer_in_checkpoints": "bool"}}

# Keys at the top of an old recipe, and of AlgorithmConfig.
OLD_TOP_KEYS: dict[str, str] = {
    "run": "write algorithm: PPO",
    "algo": "write algorithm: PPO",
    "environment": "write env: CartPole-v1",
    "num_workers": "write config: {env_runners: {num_env_runners: …}}",
    "rollouts": "write config: {env_runners: {…}}",
    "env_runners": "write config: {env_runners: {…}}",
    "training": "write config: {training: {…}}",
    "learners": "write config: {learners: {…}}",
    "resources": "write config: {learners: {num_gpus_per_learner: …}} or {env_runners: {num_cpus_per_env_runner: …}}",
    "framework": "remove it; the new API stack is torch",
    "lr": "write config: {training: {lr: …}}",
    "gamma": "write config: {training: {gamma: …}}",
    "exploration_config": "write exploration: {type: EpsilonGreedy, …}",
    "explore": "write config: {env_runners: {explore: …}}",
    "multiagent": "write policies: {name: {agents: [\"agent_*\"]}}",
    "multi_agent": "write policies: {name: {agents: [\"agent_*\"]}}",
    "policy_mapping_fn": "write policies: {name: {agents: [\"agent_*\"]}}",
    "evaluation_interval": "write evaluation: {every: …, episodes: …}",
    "evaluation_duration": "write evaluation: {every: …, episodes: …}",
    "evaluation_config": "write evaluation: {every: …, episodes: …}",
    "checkpoint_freq": "write checkpoint: {every: …, keep: …}",
    "checkpoint_config": "write checkpoint: {every: …, keep: …}",
    "checkpoint_at_end": "remove it; the last checkpoint is always written",
    "checkpoints": "write checkpoint: {every: …, keep: …}",
    "num_samples": "write tune: {samples: …}",
    "samples": "write tune: {samples: …}",
    "scheduler": "write tune: {scheduler: {type: asha, …}}",
    "search_alg": "write tune: {search: {type: optuna, …}}",
    "max_failures": "write tune: {max_failures: …}",
    "metric": "write tune: {metric: …, mode: max}",
    "local_dir": "give --out on the command line",
    "storage_path": "give --out on the command line",
    "restore": "give --resume on the command line",
    "resume": "give --resume on the command line",
    "callbacks_class": "write callbacks: [{name: …}]",
    "rl_module": "write model: {name: …}",
    "num_gpus": "write config: {learners: {num_gpus_per_learner: …}}",
    "train_batch_size": "write config: {training: {train_batch_size_per_learner: …}}",
    "seeds": "write seed: 0 and tune: {samples: 5}, which runs seeds 0 to 4",
}  # fmt: skip

# Algorithms that RLlib no longer has.
OLD_ALGORITHMS: dict[str, str] = {
    "A2C": "use PPO",
    "A3C": "use IMPALA",
    "PG": "use PPO",
    "DDPG": "use MADDPG with one agent, or SAC",
    "ApexDDPG": "use MADDPG, or SAC",
    "TD3": "use MATD3 with one agent, or SAC",
    "SimpleQ": "use DQN",
    "ApexDQN": "use DQN",
    "APEX": "use DQN",
    "R2D2": "use DQN with model: {use_lstm: true}",
    "QMIX": "use MADDPG",
    "ES": "use PPO",
    "ARS": "use PPO",
}

# AlgorithmConfig methods that a recipe does not call.
CLOSED_METHODS: dict[str, str] = {
    "callbacks": "write callbacks: [{name: …}] at the top of the recipe",
    "resources": "use config: {learners: {num_gpus_per_learner: …}} or {env_runners: {num_cpus_per_env_runner: …}}",
    "rollouts": "use env_runners",
    "exploration": "write exploration: {type: …} at the top of the recipe",
    "framework": "remove it; the new API stack is torch",
    "api_stack": "remove it; rlkit runs on the new API stack",
    "experimental": "remove it; its settings are private to RLlib",
    "python_environment": "remove it; install what a run needs where it runs",
    "checkpointing": "write checkpoint: {every: …, keep: …}; RLlib ignores this method on the new API stack",
    "model": "write model: {…} at the top of the recipe",
    "resource": "use learners or env_runners",
    "stop": "write stop: {…} at the top of the recipe",
}

# argument -> what replaced it, whatever method it stands in.
RENAMED: dict[str, str] = {
    "algorithm_config_overrides_per_module": "rl_module.algorithm_config_overrides_per_module",
    "num_workers": "env_runners.num_env_runners",
    "num_rollout_workers": "env_runners.num_env_runners",
    "num_envs_per_worker": "env_runners.num_envs_per_env_runner",
    "num_cpus_per_worker": "env_runners.num_cpus_per_env_runner",
    "num_gpus_per_worker": "env_runners.num_gpus_per_env_runner",
    "num_gpus": "learners.num_gpus_per_learner",
    "num_learner_workers": "learners.num_learners",
    "num_gpus_per_learner_worker": "learners.num_gpus_per_learner",
    "num_cpus_per_learner_worker": "learners.num_cpus_per_learner",
    "num_sgd_iter": "training.num_epochs",
    "sgd_minibatch_size": "training.minibatch_size",
    "lambda": "training.lambda_",
    "buffer_size": "training.replay_buffer_config.capacity",
    "learning_starts": "training.num_steps_sampled_before_learning_starts",
    "prioritized_replay": "training.replay_buffer_config.type: PrioritizedEpisodeReplayBuffer",
    "target_update_frequency": "training.target_network_update_freq",
    "horizon": "env_config.max_episode_steps",
    "soft_horizon": "env_config.max_episode_steps",
    "validate_workers_after_construction": "env_runners.validate_env_runners_after_construction",
    "ignore_worker_failures": "fault_tolerance.ignore_env_runner_failures",
    "recreate_failed_workers": "fault_tolerance.restart_failed_env_runners",
    "recreate_failed_env_runners": "fault_tolerance.restart_failed_env_runners",
    "max_num_worker_restarts": "fault_tolerance.max_num_env_runner_restarts",
    "delay_between_worker_restarts_s": "fault_tolerance.delay_between_env_runner_restarts_s",
    "num_consecutive_worker_failures_tolerance": "fault_tolerance.num_consecutive_env_runner_failures_tolerance",
    "worker_health_probe_timeout_s": "fault_tolerance.env_runner_health_probe_timeout_s",
    "worker_restore_timeout_s": "fault_tolerance.env_runner_restore_timeout_s",
    "synchronize_filter": "env_runners.merge_env_runner_states",
    "max_requests_in_flight_per_sampler_worker": "env_runners.max_requests_in_flight_per_env_runner",
    "num_aggregation_workers": "learners.num_aggregator_actors_per_learner",
    "max_requests_in_flight_per_aggregator_worker": "learners.max_requests_in_flight_per_aggregator_actor",
    "timesteps_per_iteration": "reporting.min_sample_timesteps_per_iteration",
    "min_iter_time_s": "reporting.min_time_s_per_iteration",
    "metrics_smoothing_episodes": "reporting.metrics_num_episodes_for_smoothing",
    "evaluation_num_workers": "evaluation.every",
    "model_config_dict": "model",
    "vf_share_layers": "model.vf_share_layers",
    "exploration_config": "exploration",
    "initial_epsilon": "exploration.initial_epsilon",
    "final_epsilon": "exploration.final_epsilon",
    "epsilon_timesteps": "exploration.epsilon_timesteps",
    "fcnet_hiddens": "model.fcnet_hiddens",
    "fcnet_activation": "model.fcnet_activation",
}

# Words of other libraries -> the argument of the same method.
FOREIGN: dict[str, str] = {
    "learning_rate": "lr",
    "batch_size": "train_batch_size_per_learner",
    "discount": "gamma",
    "discount_factor": "gamma",
    "epochs": "num_epochs",
    "n_epochs": "num_epochs",
    "gae_lambda": "lambda_",
    "clip_range": "clip_param",
    "clip_coef": "clip_param",
    "ent_coef": "entropy_coeff",
    "vf_coef": "vf_loss_coeff",
    "max_grad_norm": "grad_clip",
    "target_update_interval": "target_network_update_freq",
    "polyak": "tau",
    "num_envs": "num_envs_per_env_runner",
    "n_envs": "num_envs_per_env_runner",
    "num_runners": "num_env_runners",
    "seed": "seed",
}

# Names of old results -> tidy names.
OLD_METRICS: dict[str, str] = {
    "timesteps_total": "env_steps",
    "num_env_steps_sampled": "env_steps",
    "num_env_steps_trained": "env_steps",
    "timesteps": "env_steps",
    "steps": "env_steps",
    "total_timesteps": "env_steps",
    "num_env_steps": "env_steps",
    "training_iterations": "iteration",
    "episode_reward_mean": "episode_return",
    "episode_return_mean": "episode_return",
    "episode_reward": "episode_return",
    "reward": "episode_return",
    "return": "episode_return",
    "mean_return": "episode_return",
    "episode_len_mean": "episode_length",
    "env_runners/episode_reward_mean": "episode_return",
    "sampler_results/episode_reward_mean": "episode_return",
    "evaluation/episode_reward_mean": "eval/episode_return",
    "evaluation/env_runners/episode_reward_mean": "eval/episode_return",
    "evaluation/sampler_results/episode_reward_mean": "eval/episode_return",
    "eval/return": "eval/episode_return",
    "time": "time_s",
    "seconds": "time_s",
    "episodes_total": "env_runners/num_episodes_lifetime",
    "episodes": "env_runners/num_episodes_lifetime",
}

# Keys of a model on the old API stack.
OLD_MODEL_KEYS: dict[str, str] = {
    "custom_model": "register the model and write name: … (docs/models.md)",
    "custom_model_config": "write the options beside name: …",
    "use_attention": "register a model of your own and write name: …",
    "post_fcnet_hiddens": "write head_fcnet_hiddens: […]",
    "post_fcnet_activation": "write head_fcnet_activation: …",
    "no_final_linear": "remove it",
    "framestack": "wrap the environment",
    "dim": "wrap the environment",
    "grayscale": "wrap the environment",
}
