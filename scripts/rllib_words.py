"""Arguments that RLlib 2.60 accepts and that a recipe sets elsewhere or in vain: what to write instead.

scripts/generate_signatures.py puts them into the rows of the table. Sources: the migration guide to the new API stack,
and a search of RLlib's source for readers of each argument (`tests/test_recipe_signatures.py` repeats that search).
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
