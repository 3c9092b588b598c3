"""Tune: trials, their state and checkpoints on disk, log files; what Ray prints."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlkit.files import swap_folder


def persist_by_rename(trainable: Any, name_of: Callable[[], str]) -> None:
    """Make Tune move a finished checkpoint into place instead of copying it file by file.

    Tune writes a checkpoint to a temporary folder and copies it (`StorageContext.persist_current_checkpoint`,
    2.60); a process that dies in between leaves half a checkpoint under the final name. On a local file
    system a rename is atomic and writes large replay buffers once. Other file systems keep Tune's copy.

    Args:
        trainable: keeps its StorageContext in `_storage` (2.60, no accessor).
        name_of: returns the name of the folder, for example `checkpoint_000010`.
    """
    storage = trainable._storage
    if storage is None or storage.storage_filesystem.type_name != "local":
        return

    def persist(checkpoint: Any) -> Any:
        target = Path(storage.trial_fs_path, name_of())
        swap_folder(Path(checkpoint.path), target)
        return type(checkpoint)(filesystem=storage.storage_filesystem, path=str(target))

    storage.persist_current_checkpoint = persist


# The state that Tune unpickles from a run folder on resume (2.60): every CKPT_FILE_TMPL in ray.tune.
TUNE_STATE = (
    "basic-variant-state-*.json",
    "search_gen_state-*.json",
    "searcher-state-*.pkl",
    "callback-states-*.pkl",
    "experiment_state-*.json",
)


@contextmanager
def tune_state_to(put: Callable[[Path], None], folder: Path) -> Iterator[None]:
    """Hand the staging folder with Tune's state to `put`, in place of Tune's copy into the run folder.

    Tune copies its staging folder in a thread, file by file (2.60: `_ExperimentCheckpointManager` asks
    `_FilesystemSyncer._sync_up_command` what to run): a process killed meanwhile leaves half a file. `put` runs in the
    main thread before that copy, when the state in the staging folder is whole, and the copy leaves it out.

    Args:
        put: writes the state into the run folder.
        folder: the run folder as Tune spells it.
    """
    from ray.train._internal.storage import _FilesystemSyncer

    command = _FilesystemSyncer._sync_up_command

    def without_state(self: Any, local_path: str, uri: str, exclude: list[str] | None = None) -> Any:
        if Path(uri) == folder:
            put(Path(local_path))
            exclude = [*(exclude or ()), "*.json", "*.pkl"]
        return command(self, local_path, uri, exclude)

    _FilesystemSyncer._sync_up_command = without_state
    try:
        yield
    finally:
        _FilesystemSyncer._sync_up_command = command


@contextmanager
def no_old_decisions() -> Iterator[None]:
    """Let a run that is resumed inside the block begin without decisions that its last process had not carried out.

    A trial whose process ends while it saves gets the decision to stop once that save is over, and the decision is part
    of Tune's state (2.60: `TuneController._cached_trial_decisions`). Brought back, it ends the resumed trial, as one
    that is done, at its first checkpoint.
    """
    from ray.tune.execution.tune_controller import TuneController

    own = TuneController.__setstate__

    def without(self: Any, state: dict[str, Any]) -> None:
        own(self, {**state, "_cached_trial_decisions": {}, "_queued_trial_decisions": {}})

    TuneController.__setstate__ = without
    try:
        yield
    finally:
        TuneController.__setstate__ = own


@contextmanager
def no_kept_results() -> Iterator[None]:
    """Let the driver forget a trial's results, once handled, while the block runs.

    Tune (2.60, `RayActorManager._schedule_tracked_actor_task`) keeps the future of every call of a trial until its
    actor ends, and with it the result: 20 to 70 kB of the driver's memory for each iteration, without an end.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager

    own = RayActorManager._schedule_tracked_actor_task

    def schedule(self: Any, tracked_actor_task: Any, *args: Any, **kwargs: Any) -> Any:
        done = own(self, tracked_actor_task, *args, **kwargs)
        kept = self._tracked_actors_to_task_futures[tracked_actor_task._tracked_actor]
        kept.intersection_update(self._actor_task_events._tracked_futures)
        return done

    RayActorManager._schedule_tracked_actor_task = schedule
    try:
        yield
    finally:
        RayActorManager._schedule_tracked_actor_task = own


def set_progress(trainable: Any, *, iteration: int, time_total_s: float, metrics: dict[str, Any]) -> None:
    """Set the counters that `Trainable.restore` takes from the driver (ray/tune/trainable/trainable.py, 2.60)."""
    trainable._iteration = iteration
    trainable._time_total = time_total_s
    trainable._timesteps_total = metrics.get("timesteps_total")
    trainable._episodes_total = metrics.get("episodes_total")


def keep_trial_info(trainable: Any, config: dict[str, Any]) -> None:
    """Tell a Trainable which trial it is: its own constructor looks for it in the config (2.60)."""
    trainable._trial_info = config.get("__trial_info__")


def trial_folder(trainable: Any) -> Path | None:
    """Return the trial's folder on a local file system, or None when Tune stores it elsewhere."""
    storage = trainable._storage
    if storage is None or storage.storage_filesystem.type_name != "local":
        return None
    return Path(storage.trial_fs_path)


def log_folder(trainable: Any, given: str | None, default: str) -> Path:
    """Return where an algorithm's own files go: `given`, else `default`, below the folder of Tune's trial.

    Without Tune `given` is a path as it stands, and `default` lies in `logdir`. Under Tune `logdir` and the working
    folder are a temporary one of Ray's (2.60), which nobody looks into after the run.
    """
    if given and Path(given).is_absolute():
        return Path(given)
    trial = trial_folder(trainable)
    if trial is not None:
        return trial / (given or default)
    return Path(given) if given else Path(trainable.logdir, default)


def progress_of(trainable: Any) -> tuple[int, float, dict[str, Any]]:
    """Return iteration, seconds trained and the last result of a Trainable."""
    return trainable._iteration, trainable._time_total, trainable._last_result or {}


def forget_deleted_checkpoints(trial: Any) -> None:
    """Drop checkpoints that Tune's notes list and the disk no longer has.

    The notes are written every few seconds. After a crash they can name a checkpoint that was deleted since then, and
    Tune (2.60, `_CheckpointManager.register_checkpoint`) ends the run when it deletes it once more.
    """
    manager = trial.run_metadata.checkpoint_manager
    manager._checkpoint_results = [r for r in manager._checkpoint_results if Path(r.checkpoint.path).is_dir()]
    latest = manager._latest_checkpoint_result
    if latest is not None and not Path(latest.checkpoint.path).is_dir():
        manager._latest_checkpoint_result = None


def allow_failures(trial: Any, most: int) -> None:
    """Give a trial that goes on the `tune.max_failures` of the recipe, and count its failures anew.

    Tune (2.60, `Trial.__getstate__`) brings back the number it began with and the failures before, so that a trial that
    had used them up would end at the next one, whatever the new number is.
    """
    trial.max_failures = most
    trial.run_metadata.num_failures = 0
    trial.run_metadata.invalidate_cache()
    trial.invalidate_json_state()


def point_to_checkpoint(trial: Any, path: Path, notes: Any) -> None:
    """Make a Tune trial start from a checkpoint its own notes do not know (2.60: `Trial.on_checkpoint`)."""
    from ray.train._internal.session import _TrainingResult
    from ray.tune import Checkpoint

    known = trial.checkpoint
    if known is not None and Path(known.path) == path.resolve():
        return
    metrics = {
        **(trial.last_result or {}),
        "training_iteration": notes.iteration,
        "time_total_s": float(notes.extra.get("time_total_s") or 0.0),
    }
    checkpoint = Checkpoint.from_directory(str(path.resolve()))  # a trial works in a folder of its own
    trial.on_checkpoint(_TrainingResult(checkpoint=checkpoint, metrics=metrics))


def record_class(checkpoint: Path, algorithm_class: type) -> None:
    """Name the plain Algorithm class in a checkpoint just written, so that reading it needs no class of rlkit.

    `Checkpointable.save_to_path` (2.60) pickles `type(self)` with the constructor's arguments; for a trial
    that is a class made at run time, which would be stored by value.
    """
    from ray import cloudpickle
    from ray.rllib.utils.checkpoints import Checkpointable

    path = checkpoint / Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME
    content = cloudpickle.loads(path.read_bytes())
    path.write_bytes(cloudpickle.dumps({**content, "class": algorithm_class}))


def print_to_stderr() -> None:
    """Send what Ray prints in this process for other processes to stderr; stdout belongs to results.

    `listen_error_messages` (2.60, _private/worker.py) prints "A worker died or was killed …" to stdout even without
    `log_to_driver`; with it, so it prints what workers print.
    """
    from ray._private import worker

    own = worker.print_to_stdstream
    if getattr(own, "rlkit", False):
        return

    def to_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        own({**data, "is_err": True}, ignore_prefix)

    to_stderr.rlkit = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = to_stderr


def send_token() -> None:
    """Authenticate with this user's token, if there is one and RAY_AUTH_MODE says nothing.

    Ray does so for the address "auto", never for one that is given (2.60, _private/worker.py).
    """
    from ray._private.authentication import authentication_token_setup as setup

    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


NOTICES = b"rlkit/notice/"


def tell_driver(text: str) -> None:
    """Leave a line for the driver of this run, from any thread of any of its processes; without Ray it goes to stderr.

    Ray's key-value store (2.60, `experimental.internal_kv`) is the one way that needs no actor that answers.
    """
    import ray
    from ray.experimental import internal_kv

    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        print(text, file=sys.stderr, flush=True)
        return
    job = ray.get_runtime_context().get_job_id().encode()
    internal_kv._internal_kv_put(NOTICES + job + b"/" + uuid.uuid4().hex.encode(), text.encode())


def take_notices() -> list[str]:
    """Return and remove what the processes of this run have left for its driver."""
    import ray
    from ray.experimental import internal_kv

    prefix = NOTICES + ray.get_runtime_context().get_job_id().encode() + b"/"
    found = []
    for key in internal_kv._internal_kv_list(prefix):
        text = internal_kv._internal_kv_get(key)
        internal_kv._internal_kv_del(key)
        found.append(text.decode() if text is not None else "")
    return found


class ResultFile:
    """Mixin before Tune's JsonLoggerCallback: which file a trial's results go to."""

    _trial_files: dict[Any, Any]

    def write_to(self, trial: Any, file: Any) -> None:
        self._trial_files[trial] = file


class EventWriter:
    """Mixin before Tune's TBXLoggerCallback: the TensorBoard writer of a trial."""

    _trial_writer: dict[Any, Any]
    _trial_result: dict[Any, Any]
    _summary_writer_cls: Callable[..., Any]

    def write_into(self, trial: Any, folder: str) -> None:
        """Write a trial's events into a folder from now on."""
        if trial in self._trial_writer:
            self._trial_writer[trial].close()
        self._trial_writer[trial] = self._summary_writer_cls(folder, flush_secs=30)
        self._trial_result[trial] = {}


def raise_of_wandb(tracker: Any, trial: Any, wait_s: float = 0.0) -> None:
    """Raise what ended the process that writes a trial to W&B, if it has ended.

    `WandbLoggerCallback` (2.60) never reads that process's result, so that a server that cannot be reached is silent.

    Args:
        tracker: any callback; other ones have no such process.
        trial: as the callback knows it.
        wait_s: for it to end; TimeoutError after that. 0: only look.
    """
    import ray

    future = getattr(tracker, "_trial_logging_futures", {}).get(trial)
    if future is None:
        return
    done, _ = ray.wait([future], timeout=wait_s)
    if done:
        ray.get(future)
    elif wait_s:
        raise TimeoutError(f"not everything was sent within {wait_s:g} s")


def draw_over(tracker: Any, name: str) -> None:
    """Let W&B draw every metric over another one; `WandbLoggerCallback` (2.60) leaves it to count the results."""
    from ray.air.integrations.wandb import _WandbLoggingActor

    class Actor(_WandbLoggingActor):
        defined = False

        def _handle_result(self, result: dict) -> tuple[dict, dict]:
            if not self.defined:
                self.defined = True
                self._wandb.define_metric(name)
                self._wandb.define_metric("*", step_metric=name)
            found: tuple[dict, dict] = super()._handle_result(result)
            return found

    tracker._logger_actor_cls = Actor


def mlflow_goes_on(tracker: Any, trial: Any) -> bool:
    """Let a trial that an earlier process began go on in the run that it has in MLflow; False where it has none.

    `MLflowLoggerCallback` (2.60) knows the runs of its own process alone. Other trackers find theirs by its name.
    """
    if trial in getattr(tracker, "_trial_runs", (trial,)):
        return False
    import mlflow

    client = mlflow.MlflowClient(tracker.tracking_uri)
    experiment = client.get_experiment_by_name(tracker.experiment_name)
    found = (
        client.search_runs([experiment.experiment_id], f"tags.trial_name = '{trial}'") if experiment else ()
    )
    same = [run for run in found if run.data.tags.get("run") == tracker.tags["run"]]
    if same:
        tracker._trial_runs[trial] = same[0].info.run_id
        client.update_run(same[0].info.run_id, status="RUNNING")
    return bool(same)


def mlflow_run(tracker: Any, trial: Any) -> str:
    """Return the id of a trial's run in MLflow; `MLflowLoggerCallback` (2.60) has no accessor."""
    return str(tracker._trial_runs[trial])
