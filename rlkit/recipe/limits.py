"""Ranges and words that RLlib does not check: `lr=-1`, `gamma=5` and `num_epochs=0` pass its `validate()` (2.60)."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from rlkit.errors import did_you_mean
from rlkit.recipe.problems import Path, Report, instead
from rlkit.recipe.spaces import candidates

UNIT = "between 0 and 1"
POSITIVE = "above 0"
NOT_NEGATIVE = "at least 0"
ONE_UP = "at least 1"
SHARE = "above 0 and at most 1"

# argument -> its range, in whatever method it stands
RANGES: dict[str, str] = {
    **dict.fromkeys(("gamma", "lambda_", "epsilon", "smoothing", "beta"), UNIT),
    **dict.fromkeys(("tau",), SHARE),
    **dict.fromkeys(
        (
            "lr", "actor_lr", "critic_lr", "alpha_lr", "grad_clip", "clip_param", "vf_clip_param", "kl_target",
            "initial_alpha", "training_intensity", "vtrace_clip_rho_threshold", "vtrace_clip_pg_rho_threshold",
            "temperature", "updates_per_step", "stop_kl", "vf_clip_range",
        ),
        POSITIVE,
    ),
    **dict.fromkeys(
        (
            "num_epochs", "minibatch_size", "train_batch_size", "train_batch_size_per_learner",
            "num_envs_per_env_runner",
            "rollout_fragment_length", "n_step", "num_atoms", "n_quantiles", "n_critics", "capacity", "batch_size_B",
            "batch_length_T", "broadcast_interval", "circular_buffer_num_batches",
            "circular_buffer_iterations_per_batch",
            "simple_queue_size", "learner_queue_size", "metrics_num_episodes_for_smoothing", "num_gpu_loader_threads",
            "max_requests_in_flight_per_env_runner", "max_requests_in_flight_per_learner", "episode_lookback_horizon",
            "max_requests_in_flight_per_aggregator_actor", "env_runner_state_server_max_concurrency", "policy_delay",
            "ensemble_size", "infer_batch_size", "evaluation_error_after_n_consecutive_skips", "max_episode_steps",
            "max_cycles",
        ),
        ONE_UP,
    ),
    **dict.fromkeys(
        (
            "entropy_coeff", "kl_coeff", "vf_loss_coeff", "target_network_update_freq", "burn_in_len", "alpha",
            "top_quantiles_to_drop_per_net", "local_gpu_idx", "target_noise", "target_noise_clip", "exploration_noise",
            "logit_regularisation", "infer_entropy_coeff",
        ),
        NOT_NEGATIVE,
    ),
}  # fmt: skip
_COUNTS = re.compile(r"(num|min|max)_.*|.*_s")
SCHEDULES = {
    "lr", "actor_lr", "critic_lr", "alpha_lr", "epsilon", "entropy_coeff", "exploration_noise", "temperature",
    "clip_param",
}  # fmt: skip

# argument -> the words it takes, beside values of other types
CHOICES: dict[str, tuple[str, ...]] = {
    "grad_clip_by": ("value", "norm", "global_norm"),
    "batch_mode": ("truncate_episodes", "complete_episodes"),
    "count_steps_by": ("env_steps", "agent_steps"),
    "log_level": ("DEBUG", "INFO", "WARN", "ERROR"),
    "gym_env_vectorize_mode": ("sync", "async", "vector_entry_point"),
    "merge_env_runner_states": ("training_only",),
    "td_error_loss_fn": ("huber", "mse"),
    "rollout_fragment_length": ("auto",),
    "num_cpus_per_learner": ("auto",),
    "target_entropy": ("auto",),
    "offline_evaluation_type": ("eval_loss", "is", "pdis"),
    "input_filesystem": ("gcs", "s3", "abs"),
    "output_filesystem": ("gcs", "s3", "abs"),
    "output_write_method": ("write_parquet", "write_json", "write_csv", "write_numpy", "write_tfrecords"),
}
REPLAY_BUFFERS = (
    "EpisodeReplayBuffer", "PrioritizedEpisodeReplayBuffer", "MultiAgentEpisodeReplayBuffer",
    "MultiAgentPrioritizedEpisodeReplayBuffer",
)  # fmt: skip
# Activations and initializers that RLlib looks up in torch.nn and torch.nn.init.
ACTIVATIONS = (
    "relu", "tanh", "elu", "swish", "silu", "linear", "softmax", "ReLU", "Tanh", "ELU", "SiLU", "GELU",
    "LeakyReLU", "SELU",
    "CELU", "Mish", "Softplus", "Sigmoid", "Hardswish", "ReLU6", "PReLU", "Softsign", "Identity",
)  # fmt: skip
INITIALIZERS = (
    "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "orthogonal_", "normal_", "uniform_",
    "zeros_", "ones_", "constant_", "trunc_normal_", "sparse_", "eye_", "dirac_",
)  # fmt: skip


def in_range(value: float, limits: str) -> bool:
    """True if a number is inside one of the ranges above."""
    if limits == UNIT:
        return 0 <= value <= 1
    if limits == SHARE:
        return 0 < value <= 1
    if limits == POSITIVE:
        return value > 0
    return value >= (1 if limits == ONE_UP else 0)


def range_of(argument: str) -> str | None:
    """Return the range of an argument, by its name."""
    if argument in RANGES:
        return RANGES[argument]
    return NOT_NEGATIVE if _COUNTS.fullmatch(argument) else None


def choices_of(argument: str) -> tuple[str, ...]:
    """Return the words an argument takes, by its name; empty where any word may stand."""
    if argument.endswith("_activation"):
        return ACTIVATIONS
    if argument.endswith("_initializer"):
        return INITIALIZERS
    return CHOICES.get(argument, ())


def check_limits(argument: str, value: Any, path: Path, report: Report) -> None:
    """Report a number out of range, an unknown word, or a schedule that RLlib cannot read."""
    limits, choices = range_of(argument), choices_of(argument)
    for item in candidates(value):
        if isinstance(item, list) and argument in SCHEDULES:
            _check_schedule(argument, item, path, limits, report)
        elif isinstance(item, list) and argument == "n_step":
            for step in item:
                _check_number(argument, step, path, limits, report)
        else:
            _check_number(argument, item, path, limits, report)
        if choices and isinstance(item, str) and item not in choices:
            hint = did_you_mean(item, choices)
            report.add(path, f"unknown word for {argument}{hint}", got=item, fix=instead(hint, choices))


def _check_number(argument: str, item: Any, path: Path, limits: str | None, report: Report) -> None:
    if isinstance(item, bool) or not isinstance(item, int | float):
        return
    if not math.isfinite(item):
        report.add(path, f"{argument} must be a finite number", got=item, fix="write a number")
    elif limits and not in_range(item, limits):
        report.add(path, f"{argument} is out of range: must be {limits}", got=item, fix=_fix(limits))


def _check_schedule(argument: str, points: list[Any], path: Path, limits: str | None, report: Report) -> None:
    """RLlib's schedules: two or more [step, value], the first at step 0, steps increasing, linear in between."""
    example = f"{argument}: [[0, 1e-3], [100000, 1e-4]]"
    if len(points) < 2 or not all(isinstance(p, list | tuple) and len(p) == 2 for p in points):
        report.add(path, "a schedule needs two or more [step, value]", got=points, fix=f"write {example}")
        return
    steps, values = [p[0] for p in points], [p[1] for p in points]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in [*steps, *values]):
        return
    if steps[0] != 0:
        report.add(path, "a schedule begins at step 0", got=points, fix=f"write {example}")
    if any(a >= b for a, b in itertools.pairwise(steps)):
        report.add(path, "the steps of a schedule must increase", got=points, fix=f"write {example}")
    relaxed = NOT_NEGATIVE if limits == POSITIVE else limits  # a learning rate may end at 0
    for value in values:
        if relaxed and not in_range(value, relaxed):
            report.add(
                path,
                f"{argument} is out of range: must be {relaxed}",
                got=value,
                fix=_fix(relaxed),
            )


def _fix(limits: str) -> str:
    return {ONE_UP: "write 1 or more", NOT_NEGATIVE: "write 0 or more"}.get(
        limits, f"write a number {limits}"
    )


def section(data: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return a mapping inside plain data, or an empty one where it is something else."""
    here: Any = data
    for key in path:
        here = here.get(key) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else {}
