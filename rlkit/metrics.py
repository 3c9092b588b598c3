"""Tidy metric names: one table from RLlib's nested results to the names that recipes, files and plots use.

RLlib nests its results and renames them between versions (#45547, #49138, #47865). `tidy` turns one result
into a flat row, `path_of` turns a tidy name into RLlib's path (for Tune); `rlkit.runs.metrics_csv` keeps the
rows. docs/metrics.md explains every name. Checked against ray 2.60.0.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlkit.errors import UsageError, did_you_mean

# Tidy name -> path in RLlib's result, joined by "/". `tidy` computes `agent_steps` and `steps_per_s`: their
# paths are the nearest thing RLlib has.
PATHS: dict[str, str] = {
    "iteration": "training_iteration",
    "env_steps": "num_env_steps_sampled_lifetime",
    "agent_steps": "env_runners/num_agent_steps_sampled_lifetime",
    "updates": "learners/__all_modules__/num_updates_lifetime",
    "time_s": "time_total_s",
    "steps_per_s": "env_runners/num_env_steps_sampled_lifetime_throughput/throughput_since_last_reduce",
    "episode_return": "env_runners/episode_return_mean",
    "episode_length": "env_runners/episode_len_mean",
    "eval/episode_return": "evaluation/env_runners/episode_return_mean",
    "eval/episode_length": "evaluation/env_runners/episode_len_mean",
}

# Tidy prefix -> RLlib prefix, for names that depend on the agents, modules and callbacks of a run.
FAMILIES: dict[str, str] = {
    "eval/return/": "evaluation/env_runners/agent_episode_returns_mean/",
    "eval/custom/": "evaluation/env_runners/",
    "return/": "env_runners/agent_episode_returns_mean/",
    "loss/": "learners/",
    "curriculum/": "curriculum/",
    "custom/": "env_runners/",
    "algorithm/": "",
}

# Tidy name -> words and unit on the axis of a plot.
AXES: dict[str, tuple[str, str]] = {
    "env_steps": ("env steps", ""),
    "agent_steps": ("agent steps", ""),
    "updates": ("updates", ""),
    "time_s": ("time", "s"),
    "steps_per_s": ("speed", "env steps / s"),
    "episode_return": ("episode return", "sum of rewards"),
    "episode_length": ("episode length", "env steps"),
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What RLlib itself puts at the top of a result and into "env_runners". What else stands there, a user logged.
_ROOT = _words(
    """
    config timers perf env_runners learners learner_group evaluation fault_tolerance env_runner_group
    replay_buffer aggregator_actors offline_eval_runners differentiable_learners curriculum
    num_training_step_calls_per_iteration num_env_steps_sampled_lifetime num_env_steps_trained_lifetime
    num_env_steps_sampled_lifetime_throughput num_weight_broadcasts num_grad_updates_lifetime
    mean_num_learner_group_update_called done training_iteration
    mean_num_training_step_calls_since_last_synch_worker_weights trial_id trial_name experiment_tag date
    timestamp time_this_iter_s time_total_s time_since_restore iterations_since_restore pid hostname node_ip
    should_checkpoint timesteps_total timesteps_this_iter timesteps_since_restore episodes_total
    episodes_this_iter hist_stats counters info warmup_time checkpoint_dir_name checkpoint_score
    """
)
_RUNNERS = _words(
    """
    timers env_to_module_connector module_to_env_connector connector_pipeline_timer sample
    time_between_sampling env_reset_timer env_step_timer rlmodule_inference_timer
    env_runner_state_server_pull weights_seq_no episode_return_mean episode_return_min episode_return_max
    episode_len_mean episode_len_min episode_len_max episode_duration_sec_mean num_episodes
    num_episodes_lifetime num_env_steps_sampled num_env_steps_sampled_lifetime
    num_env_steps_sampled_lifetime_throughput num_agent_steps_sampled num_agent_steps_sampled_lifetime
    num_module_steps_sampled num_module_steps_sampled_lifetime agent_steps agent_episode_returns_mean
    agent_episode_return_mean module_episode_returns_mean module_episode_return_mean
    env_to_module_sum_episodes_length_in env_to_module_sum_episodes_length_out
    mean_num_episode_lists_received
    """
)
# A learner's bookkeeping: counters and timers that say nothing about learning.
_LEARNERS = _words(
    """
    weights_seq_no module_train_batch_size_mean module_sample_batch_size_mean last_target_update_ts timers
    diff_num_grad_updates_vs_sampler_policy learner_connector connector_pipeline_timer num_target_updates
    learner_connector_sum_episodes_length_in learner_connector_sum_episodes_length_out
    """
)


def tidy(result: Mapping[str, Any]) -> dict[str, float]:
    """Return one RLlib result as a flat row of tidy names.

    A value RLlib does not report is absent, never 0; a NaN stays NaN. Two values are computed here: `agent_steps` is
    the sum over the agents; `steps_per_s` is this iteration's env steps divided by its wall time, learning and
    evaluation included (RLlib's throughput counts from another moment: 254 for a first iteration of 512 steps in 0.24
    s). RLlib repeats the last evaluation in every later result; `eval/…` appears only where an evaluation took place.
    """
    row: dict[str, float] = {}
    for name in ("iteration", "env_steps", "updates", "time_s"):
        _put(row, name, _get(result, PATHS[name]))
    runners = _get(result, "env_runners")
    if isinstance(runners, Mapping):
        steps = runners.get("num_agent_steps_sampled_lifetime")
        if isinstance(steps, Mapping):
            _put(row, "agent_steps", sum(value for _, value in _leaves(steps)))
        sampled = _number(runners.get("num_env_steps_sampled"))
        seconds = _number(result.get("time_this_iter_s"))
        if sampled is not None and seconds:
            row["steps_per_s"] = sampled / seconds
        _episodes(row, runners, prefix="")
    for module, stats in _items(result, "learners"):
        for name, value in _leaves(stats):
            if not _bookkeeping(name):
                row[f"loss/{module}/{name}"] = value
    if _evaluated(result):
        _episodes(row, result["evaluation"].get("env_runners") or {}, prefix="eval/")
    for name, value in _leaves(_get(result, "curriculum")):
        row[f"curriculum/{name}"] = value
    for name, value in _leaves({key: value for key, value in result.items() if key not in _ROOT}):
        row[f"algorithm/{name}"] = value
    return row


def _episodes(row: dict[str, float], runners: Mapping[str, Any], prefix: str) -> None:
    _put(row, f"{prefix}episode_return", runners.get("episode_return_mean"))
    _put(row, f"{prefix}episode_length", runners.get("episode_len_mean"))
    for agent, value in _leaves(runners.get("agent_episode_returns_mean")):
        row[f"{prefix}return/{agent}"] = value
    for name, value in _leaves({key: value for key, value in runners.items() if key not in _RUNNERS}):
        row[f"{prefix}custom/{name}"] = value


def path_of(name: str) -> str:
    """Return the path of a tidy metric in RLlib's result, joined by "/". A full RLlib path stays as it is.

    Raises:
        UsageError: neither a tidy name nor an RLlib path; the message has the closest tidy name.
    """
    if name in PATHS:
        return PATHS[name]
    for prefix, path in FAMILIES.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            return path + name[len(prefix) :]
    if name.split("/", 1)[0] in _ROOT:
        return name
    raise UsageError(
        f"unknown metric {name!r}{did_you_mean(name, PATHS)}; known: {', '.join(PATHS)}, "
        f"{', '.join(prefix + '…' for prefix in FAMILIES)}, or an RLlib path such as env_runners/num_episodes"
    )


def find(result: Mapping[str, Any], name: str) -> float | None:
    """Return the finite number under a tidy name or a path in RLlib's result; None where this result has none."""
    value = _get(result, _path(name))
    number = None if isinstance(value, bool) else _number(value)
    return number if number is not None and math.isfinite(number) else None


def _path(name: str) -> str:
    return PATHS.get(name) or next(
        (p + name[len(f) :] for f, p in FAMILIES.items() if name.startswith(f)), name
    )


def tidy_name(name: str) -> str:
    """Return the tidy name of a full RLlib path; a tidy name, and a path without one, stay as they are."""
    for tidied, path in PATHS.items():
        if name == path:
            return tidied
    for prefix, path in FAMILIES.items():
        if path and name.startswith(path) and len(name) > len(path):
            return prefix + name[len(path) :]
    return name


def measured(result: Mapping[str, Any], name: str) -> float:
    """Return what this result measures under a tidy name or a path in RLlib's result; NaN where it measures nothing.

    Values of an evaluation count in the result of the iteration that made it alone; RLlib repeats them.
    """
    value = tidy(result).get(tidy_name(name))
    if value is None and (_evaluated(result) or not _path(name).startswith("evaluation/")):
        value = find(result, name)
    return math.nan if value is None else value


def _evaluated(result: Mapping[str, Any]) -> bool:
    """Whether the values of the evaluation are new.

    RLlib adds this key when it evaluates (`Algorithm._run_one_evaluation`), not when it repeats the last values.
    """
    evaluation = result.get("evaluation")
    return isinstance(evaluation, Mapping) and "num_healthy_workers" in evaluation


def known(name: str) -> bool:
    """Is this a tidy name, a member of a family of them, or an RLlib path?"""
    try:
        path_of(name)
    except UsageError:
        return False
    return True


def label(name: str) -> str:
    """Return a tidy name as an axis label, with its unit where it has one: `episode length [env steps]`."""
    prefix, plain = ("evaluation ", name[5:]) if name.startswith("eval/") else ("", name)
    words, unit = AXES.get(plain, (plain.replace("_", " "), ""))
    return prefix + words + (f" [{unit}]" if unit else "")


def order(names: Iterable[str]) -> list[str]:
    """Sort tidy names: the fixed ones as in `PATHS`, then the families by name."""
    fixed = list(PATHS)
    return sorted(set(names), key=lambda n: (fixed.index(n) if n in PATHS else len(fixed), n))


def _bookkeeping(name: str) -> bool:
    head = name.split("/", 1)[0]
    return head in _LEARNERS or head.startswith(("num_", "dataset_num_")) or "throughput" in head


def _get(tree: Any, path: str) -> Any:
    for part in path.split("/"):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _items(result: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    value = result.get(key)
    if isinstance(value, Mapping):
        yield from ((str(k), v) for k, v in value.items())


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a nested dict with their paths; text, lists and arrays are left out."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}/{key}" if prefix else str(key))
    elif (value := _number(tree)) is not None:
        yield prefix, value


def _number(value: Any) -> float | None:
    # Numbers of Python and numpy, 0-d arrays and tensors.
    if isinstance(value, numbers.Real) or getattr(value, "shape", None) == ():
        try:
            return float(value)
        except (TypeError, ValueError):
            return None
    return None


def _put(row: dict[str, float], name: str, value: Any) -> None:
    if (number := _number(value)) is not None:
        row[name] = number
