"""Population based training: checkpoints that another trial goes on from (2.60: ray/tune/schedulers/pbt.py)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def latest_checkpoint(trial: Any) -> Path | None:
    """Return the folder a Tune trial goes on from, or None (2.60: `Trial.checkpoint`)."""
    known = trial.checkpoint
    return None if known is None else Path(known.path)


def folder_of(trial: Any) -> Path | None:
    """Return a Tune trial's folder on a local file system, seen from the driver (2.60: `Trial.storage`)."""
    storage = trial.storage
    if storage is None or storage.storage_filesystem.type_name != "local":
        return None
    return Path(storage.trial_fs_path)


def exploit_checkpoint(trial: Any, path: Path) -> None:
    """Point a trial that exploits another one at its own copy of that one's checkpoint.

    `PopulationBasedTraining._exploit` (2.60) sets the same attribute to the other trial's folder.
    """
    from ray.train._internal.session import _TrainingResult
    from ray.tune import Checkpoint

    manager = trial.run_metadata.checkpoint_manager
    result = _TrainingResult(Checkpoint.from_directory(str(path)), manager._latest_checkpoint_result.metrics)
    others = [(Path(r.checkpoint.path), r) for r in manager._checkpoint_results]
    manager._checkpoint_results = [r for place, r in others if place != path and place.is_dir()] + [result]
    manager._latest_checkpoint_result = result


def pbt_iteration(scheduler: Any, trial: Any) -> int | None:
    """Return the iteration of the checkpoint of a trial that others may exploit, or None (2.60: `_trial_state`)."""
    state = scheduler._trial_state.get(trial)
    return state.last_result.get("training_iteration") if state is not None and state.last_result else None


def wait_for_saves(trials: Iterable[Any]) -> None:
    """Wait until trials that are writing a checkpoint have written it (2.60: `Trial.temporary_state.saving_to`)."""
    for trial in trials:
        if trial.is_saving:
            trial.temporary_state.saving_to.resolve()


def forget_stops(controller: Any, trials: Iterable[Any]) -> None:
    """Take back the decision to stop trials that are paused.

    `TuneController._schedule_trial_stop` (2.60) decides to stop a trial that is writing a checkpoint once it is
    written, and drops what would report that. A trial that is paused in this way, to take over another one, goes on,
    and would end as done after its next checkpoint.
    """
    for trial in trials:
        if trial.status == trial.PAUSED:
            controller._tune_controller._cached_trial_decisions.pop(trial.trial_id, None)


def prune_checkpoints(trial: Any, keep: int, protect: int | None) -> None:
    """Delete a trial's checkpoints but the best `keep`, the newest one, and those of iteration `protect`.

    What `_CheckpointManager.register_checkpoint` does (2.60) when `num_to_keep` is set; it knows no protection.
    """
    manager = trial.run_metadata.checkpoint_manager
    ranked = manager._checkpoint_results  # worst first
    kept = []
    for position, result in enumerate(ranked):
        needed = position >= len(ranked) - keep or result is manager._latest_checkpoint_result
        if needed or result.metrics.get("training_iteration") == protect:
            kept.append(result)
        else:
            shutil.rmtree(result.checkpoint.path, ignore_errors=True)
    manager._checkpoint_results = kept
