"""Tune's JSON and TensorBoard loggers, writing straight into the run folder.

Tune's own write to a staging folder under /tmp and copy it now and then, so a killed driver leaves a run folder
without its last results (ray 2.60, ray/train/_internal/storage.py).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback
from ray.tune.result import EXPR_PARAM_FILE, EXPR_RESULT_FILE
from ray.tune.utils.util import SafeFallbackEncoder

from rlkit.files import write_atomic
from rlkit.metrics import tidy
from rlkit.rllib import EventWriter, ResultFile
from rlkit.runs.layout import iteration_of
from rlkit.runs.reading import read_bytes

# the recipe is in params.json; the score only ranks checkpoints and can be infinite
LEFT_OUT = frozenset({"config", "checkpoint_score"})


class JsonLogger(ResultFile, JsonLoggerCallback):
    """`<trial>/params.json`, the trial's recipe; `result.json`, one line per result without the repeated config.

    A trial that goes on from a checkpoint computes the rows after it again: those are dropped first.
    """

    def log_trial_start(self, trial: Any) -> None:
        self.log_trial_end(trial)
        path = Path(trial.path, EXPR_RESULT_FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = trial.checkpoint
        truncate_results(path, (iteration_of(checkpoint.path) or 0) if checkpoint is not None else 0)
        recipe = {key: value for key, value in trial.config.items() if not key.startswith("__")}
        params = json.dumps(recipe, indent=2, cls=SafeFallbackEncoder)
        write_atomic(path.with_name(EXPR_PARAM_FILE), params + "\n")
        self.write_to(trial, path.open("a"))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        super().log_trial_result(iteration, trial, {k: v for k, v in result.items() if k not in LEFT_OUT})


class TensorBoardLogger(EventWriter, TBXLoggerCallback):
    """`<trial>/events.*` for TensorBoard, by environment steps: the tidy metrics, and RLlib's own numbers."""

    def log_trial_start(self, trial: Any) -> None:
        self.write_into(trial, str(trial.path))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        steps = result.get("num_env_steps_sampled_lifetime")
        row = {name: value for name, value in tidy(result).items() if not math.isnan(value)}
        # RLlib reports an evaluation until the next one
        repeated = not any(name.startswith("eval/") for name in row)
        kept = {k: v for k, v in result.items() if k not in LEFT_OUT and not (repeated and k == "evaluation")}
        kept |= row
        super().log_trial_result(iteration, trial, {**kept, "timesteps_total": int(steps)} if steps else kept)


def truncate_results(path: Path, iteration: int) -> None:
    """Keep the lines of a `result.json` up to an iteration; a torn last line goes too."""
    try:
        text = read_bytes(path, limit=1 << 40).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return
    kept = []
    for line in text.splitlines():
        try:
            if json.loads(line)["training_iteration"] <= iteration:
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    write_atomic(path, "".join(line + "\n" for line in kept))
