"""Numbers that no machine has the memory or the processes for: refused before anything is made.

The limits are far above what anybody trains with. What fits a particular machine shows when Ray counts its CPUs, and
when the replay buffer is made.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlkit.algos.rules import Settings, numbers
from rlkit.recipe.problems import Path, Report

STEP_BYTES = 16  # the least that a step takes: an observation, an action, a reward, a flag
PROCESSES, ENVS, ROWS, UNITS = 10_000, 1_000_000, 10**9, 100_000
# method, argument -> how many at most, of what
LIMITS = {
    ("env_runners", "num_env_runners"): (PROCESSES, "processes"),
    ("env_runners", "num_envs_per_env_runner"): (ENVS, "environments in one process"),
    ("env_runners", "rollout_fragment_length"): (ROWS, "steps"),
    ("evaluation", "evaluation_num_env_runners"): (PROCESSES, "processes"),
    ("learners", "num_learners"): (PROCESSES, "processes"),
    ("training", "train_batch_size"): (ROWS, "steps"),
    ("training", "train_batch_size_per_learner"): (ROWS, "steps"),
    ("training", "minibatch_size"): (ROWS, "steps"),
    ("training", "num_epochs"): (10**6, "passes over one batch"),
    ("training", "n_step"): (10**6, "rewards in one target"),
    ("training", "training_intensity"): (10**6, "rows drawn per env step"),
    ("training", "hidden"): (UNITS, "units of a layer"),
    ("reporting", "min_sample_timesteps_per_iteration"): (10**12, "steps in one iteration"),
}
WIDTHS = (
    "hiddens",
    "hidden",
    "fcnet_hiddens",
    "head_fcnet_hiddens",
    "lstm_cell_size",
    "cell",
    "size",
    "fuse",
)


def check_sizes(settings: Settings, report: Report) -> None:
    """Report sizes that cannot be: each number alone, and all environments of all runners together."""
    for (method, argument), (most, what) in LIMITS.items():
        if settings.given(method, argument):
            given = settings.config[method][argument]
            _refuse(("config", method, argument), max(numbers(given), default=0), most, what, report)
    for field in WIDTHS:
        given = settings.model.get(field)
        layers = given if isinstance(given, list) else [given]
        widest = max((units for layer in layers for units in numbers(layer)), default=0)
        _refuse(("model", field), widest, UNITS, "units of a layer", report)
    buffer = settings.config.get("training", {}).get("replay_buffer_config")
    if isinstance(buffer, Mapping):
        path: Path = ("config", "training", "replay_buffer_config", "capacity")
        _refuse(path, max(numbers(buffer.get("capacity")), default=0), 10 * ROWS, "steps", report)
    runners = max(1, settings.least("env_runners", "num_env_runners"))
    envs = max(1, settings.least("env_runners", "num_envs_per_env_runner", 1))
    if runners <= PROCESSES and envs <= ENVS < runners * envs:
        message = f"{runners:,} runners x {envs:,} environments are {runners * envs:,.0f} environments"
        path = ("config", "env_runners", "num_envs_per_env_runner")
        report.add(path, message, f"write at most {max(1, int(ENVS // runners)):,}", got=envs)


def _refuse(path: Path, value: float, most: int, what: str, report: Report) -> None:
    if value > most:
        value = min(value, 1e300)  # a larger int is no float
        size = f", at least {value * STEP_BYTES / 1e9:,.0f} GB" if what == "steps" else ""
        message = f"{path[-1]} {value:g} cannot be: that many {what}{size} fit nowhere"
        report.add(path, message, f"write at most {most:,}")
