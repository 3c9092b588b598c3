"""The one place that touches private names of RLlib. Each entry says which version it was checked against and why.

Checked against ray 2.60.0.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RAY_VERSION = "2.60"


def add_callbacks(config: Any, callbacks: Sequence[Callable[[], Any]]) -> None:
    """Append callbacks to those a config has already, through its public method.

    `AlgorithmConfig.callbacks()` replaces the list, and the list is kept in the public attribute `callbacks_class`
    (2.60: a class or a list of zero-argument callables).
    """
    from ray.rllib.callbacks.callbacks import RLlibCallback

    known = config.callbacks_class
    known = list(known) if isinstance(known, list | tuple) else [known]
    config.callbacks([*(c for c in known if c is not RLlibCallback), *callbacks])


def persist_by_rename(storage: Any, name_of: Callable[[], str]) -> None:
    """Make Tune move a finished checkpoint into place instead of copying it file by file.

    Tune writes a checkpoint to a temporary folder and copies it (`StorageContext.persist_current_checkpoint`, 2.60);
    a process that dies in between leaves half a checkpoint under the final name. On a local file system a rename is
    atomic and writes large replay buffers once. Other file systems keep Tune's copy.

    Args:
        storage: the Trainable's StorageContext.
        name_of: returns the name of the folder, for example `checkpoint_000010`.
    """
    if storage.storage_filesystem.type_name != "local":
        return

    def persist(checkpoint: Any) -> Any:
        target = Path(storage.trial_fs_path, name_of())
        old = None
        if target.exists():
            old = target.with_name(f".replaced_{target.name}")
            target.rename(old)
        Path(checkpoint.path).rename(target)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        return type(checkpoint)(filesystem=storage.storage_filesystem, path=str(target))

    storage.persist_current_checkpoint = persist


def set_progress(trainable: Any, *, iteration: int, time_total_s: float, metrics: dict[str, Any]) -> None:
    """Set the counters that `Trainable.restore` takes from the driver (ray/tune/trainable/trainable.py, 2.60)."""
    trainable._iteration = iteration
    trainable._time_total = time_total_s
    trainable._timesteps_total = metrics.get("timesteps_total")
    trainable._episodes_total = metrics.get("episodes_total")


def trial_folder(trainable: Any) -> Path | None:
    """Return the trial's folder on a local file system, or None when Tune stores it elsewhere."""
    storage = trainable._storage
    if storage is None or storage.storage_filesystem.type_name != "local":
        return None
    return Path(storage.trial_fs_path)


def storage_of(trainable: Any) -> Any:
    """Return the StorageContext Tune gave to a Trainable (no public accessor in 2.60)."""
    return trainable._storage


def progress_of(trainable: Any) -> tuple[int, float, dict[str, Any]]:
    """Return iteration, seconds trained and the last result of a Trainable."""
    return trainable._iteration, trainable._time_total, trainable._last_result or {}


def runner_callbacks(env_runner: Any) -> list[Any]:
    """Return the callback instances of an EnvRunner, in the order of `config.callbacks` (2.60, no accessor)."""
    return env_runner._callbacks


def ongoing_episodes(env_runner: Any) -> list[Any]:
    """Return the episode each sub-environment of an EnvRunner is in, by its index (2.60, no accessor)."""
    return env_runner._ongoing_episodes


def hook_learner(learner: Any, *, hook: Callable[..., None]) -> None:
    """Call `hook` before each module's loss in a Learner (2.60 has no callbacks in learners; on_learn_on_batch is gone).

    `compute_loss_for_module` is public and meant to be overridden; here it is extended on the instance, so that any
    learner class keeps its own.
    """
    compute_loss = learner.compute_loss_for_module

    def compute_loss_for_module(*, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Any:
        hook(learner=learner, module_id=module_id, train_batch=batch, metrics_logger=learner.metrics)
        return compute_loss(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)

    learner.compute_loss_for_module = compute_loss_for_module


def point_to_checkpoint(trial: Any, path: Path, notes: Any) -> None:
    """Make a Tune trial start from a checkpoint its own notes do not know (2.60: `Trial.on_checkpoint`)."""
    from ray.train._internal.session import _TrainingResult
    from ray.tune import Checkpoint

    known = trial.checkpoint
    if known is not None and Path(known.path).resolve() == path.resolve():
        return
    metrics = {
        **(trial.last_result or {}),
        "training_iteration": notes.iteration,
        "time_total_s": float(notes.extra.get("time_total_s") or 0.0),
    }
    trial.on_checkpoint(_TrainingResult(checkpoint=Checkpoint.from_directory(str(path)), metrics=metrics))
