"""Words that users of RLlib know and that mean something else here, or nothing: each with what to write instead.

Most stand in scripts/rllib_words.py, and in the generated table; those of `rlkit migrate` stand here.
"""

from __future__ import annotations

from rlkit.recipe.signatures import table

_WORDS: dict[str, dict[str, str]] = table()["words"]
OLD_TOP_KEYS = _WORDS["OLD_TOP_KEYS"]
OLD_ALGORITHMS = _WORDS["OLD_ALGORITHMS"]
OLD_MODEL_KEYS = _WORDS["OLD_MODEL_KEYS"]
OLD_METRICS = _WORDS["OLD_METRICS"]
CLOSED_METHODS = _WORDS["CLOSED_METHODS"]
RENAMED = _WORDS["RENAMED"]
FOREIGN = _WORDS["FOREIGN"]
GONE = {  # key -> why nothing takes its place
    "framework": "RLlib's new API stack is torch",
    "eager_tracing": "of TensorFlow",
    "eager": "of TensorFlow",
    "tf_session_args": "of TensorFlow",
    "use_pytorch": "RLlib's new API stack is torch",
    "_fake_gpus": "not on the new API stack",
    "simple_optimizer": "not on the new API stack",
    "log_level": "give --verbose on the command line",
    "num_cpus_for_driver": "Tune gives a trial what its runners and learners ask for",
    "evaluation_num_workers": "evaluation steps its episodes as one batch",
    "evaluation_num_env_runners": "evaluation steps its episodes as one batch",
    "evaluation_parallel_to_training": "evaluation stands between iterations",
    "evaluation_duration_unit": "evaluation counts episodes",
    "custom_evaluation_function": "evaluation is rlkit's",
    "always_attach_evaluation_results": "metrics.csv has a value where an evaluation took place",
    "enable_rl_module_and_learner": "rlkit runs on the new API stack",
    "enable_env_runner_and_connector_v2": "rlkit runs on the new API stack",
    "_enable_rl_module_api": "rlkit runs on the new API stack",
    "_enable_learner_api": "rlkit runs on the new API stack",
    "_enable_new_api_stack": "rlkit runs on the new API stack",
    "in_evaluation": "private to RLlib",
    "disable_env_checking": "rlkit checks every step of an environment",
    "store_buffer_in_checkpoints": "the buffer is always saved",
    "soft_horizon": "an episode that is cut is reset",
    "no_done_at_end": "an episode that is cut is truncated, not terminated, and the learner knows the difference",
    "enable_connectors": "the new API stack has connectors always",
}
AGENTS = 'policies: {name: {agents: ["agent_*"]}}'
BY_HAND = {  # key -> what to write, where no program can
    "callbacks": "callbacks: [{name: …}], docs/callbacks.md",
    "callbacks_class": "callbacks: [{name: …}], docs/callbacks.md",
    "policy_mapping_fn": f"{AGENTS}, docs/recipe.md",
    "env_task_fn": "curriculum: {…}, docs/curriculum.md",
    "env_to_module_connector": "a connector cannot stand in a recipe; give the model what it needs",
    "rl_module_spec": "model: {name: …}, docs/models.md",
    "input_": "data: … of BC, MARWIL, CQL and IQL, docs/offline.md",
    "input": "data: … of BC, MARWIL, CQL and IQL, docs/offline.md",
    "output": "rlkit evaluate CHECKPOINT --record FILE.npz, docs/offline.md",
    "clip_rewards": "callbacks: [{name: RewardScale, …}]; RLlib 2.60 accepts the key and ignores it",
    "preprocessor_pref": "wrap the environment",
    "noisy": "exploration: {type: ParameterNoise}",
}
