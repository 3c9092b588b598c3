"""An experiment handed to `tune.run`: what happens before, around and after it, and how it ended."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlkit import registry, rllib
from rlkit.errors import RunFailed
from rlkit.launch.experiment import Experiment
from rlkit.launch.interrupt import Interrupt, Stopped, status_of
from rlkit.launch.mirror import Mirror, destination
from rlkit.launch.progress import Progress
from rlkit.launch.rehearsal import look_at_spaces, rehearse
from rlkit.launch.session import RaySession, demand, quiet_loggers, require, set_quiet
from rlkit.runs import lock, manifest, seal
from rlkit.runs.layout import INFO
from rlkit.runs.run import Run, Status, open_run
from rlkit.runs.store import place_of

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)  # what a disk says to a write


def run(experiment: Experiment) -> Run:
    """Train an experiment whose folder this process holds; run.json tells how it ends, whatever ends it.

    Raises:
        RunFailed: a trial failed, or the disk or the object storage took no more.
        Stopped: a signal ended it, with a checkpoint.
    """
    recipe, info, folder = experiment.recipe, experiment.info, experiment.folder
    set_quiet(experiment.verbose)
    with Interrupt() as interrupt:
        mirror = None
        try:
            info.write(folder)
            check_disk(folder)
            mirror = Mirror(folder, info)
            mirror.begin()
            look_at_spaces(recipe)
            with (
                Progress(recipe, quiet=experiment.quiet) as show,
                RaySession(
                    info.address, demand(recipe), experiment.verbose, partial(_lost, experiment, show)
                ) as session,
            ):
                _tune(experiment, session, show, interrupt, mirror)
        except KeyboardInterrupt as error:
            stopped = interrupt.stopped
            if info.status == "running":
                info.status = stopped.status if stopped else "interrupted"
            # Ray makes a new KeyboardInterrupt of one that comes inside `ray.get`
            raise (stopped or error) from None
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in FULL:
                info.status, info.error = "failed", cannot_write(error, folder)
                raise RunFailed(info.error) from error
            info.status, info.error = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            interrupt.over()
            _write_outcome(experiment)
            left = mirror.close() if mirror else None
    if left and info.status != "failed":
        raise RunFailed(left)
    run = open_run(folder)
    if info.status == "failed":
        words = f"\nnext: rlkit train --resume {shlex.quote(place_of(folder))}" if run.last_checkpoint else ""
        raise RunFailed("\n".join(filter(None, (info.error, left))) + words)
    if interrupt.signal is not None:
        raise Stopped(interrupt.signal, run)
    return run


def _tune(
    experiment: Experiment, session: RaySession, show: Progress, interrupt: Interrupt, mirror: Mirror
) -> None:
    """Build once to find errors before anything trains, then hand over to Tune."""
    from ray import tune
    from ray.tune import TuneError

    from rlkit.launch import initial
    from rlkit.launch.loggers import JsonLogger
    from rlkit.launch.search import keeps_own_checkpoints, param_space, scheduler, searcher, searches
    from rlkit.launch.trackers import trackers
    from rlkit.launch.tracking import StopRule, Tracker
    from rlkit.launch.trial import NAMES, SCORE, STORE, TRUST, trainable
    from rlkit.metrics import path_of

    recipe, info = experiment.recipe, experiment.info
    registry.resolve("algorithms", recipe.algorithm)  # imports RLlib while Ray starts
    if not experiment.verbose:
        quiet_loggers()  # after that import, which sets levels of its own
    # `rehearse` registers names with Tune, which fails in a Ray that is half started (ray 2.60: its job has no id)
    session.wait()
    interrupt.again()
    example, taken = rehearse(recipe, weights=experiment.resume is None, trust=experiment.trust)
    if taken:
        show.say(initial.table(taken))
    algorithm_class = example.algo_class
    require(algorithm_class.default_resource_request(example))
    space, samples = param_space(recipe)
    # Tune fails a trial whose first result lacks the metric: no episode may be over after one iteration
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    space[NAMES] = registry.names()
    space[TRUST], space[STORE] = experiment.trust, destination(experiment.folder)
    checkpoint = recipe.checkpoint
    folder, parent = experiment.folder, experiment.folder.parent.resolve()
    with (
        interrupt.saving(show.say),
        rllib.tune_state_to(partial(seal.put, folder, info), parent / folder.name),
        rllib.no_old_decisions(),
        rllib.no_kept_results(),
        rllib.trials_in_waiting_workers(session.embedded),
    ):
        tracker = Tracker(experiment, interrupt, show, mirror)
        schedule = scheduler(recipe)
        if keeps_own_checkpoints(recipe):
            schedule.gave_up = tracker.gave_up
        try:
            analysis = tune.run(
                trainable(algorithm_class),
                config=space,
                num_samples=samples,
                storage_path=str(parent),
                name=folder.name,
                stop=StopRule(recipe.stop),
                metric=path_of(recipe.tune.metric),
                mode=recipe.tune.mode,
                scheduler=schedule,
                search_alg=searcher(recipe),
                max_concurrent_trials=recipe.tune.concurrent if searches(recipe) else None,
                max_failures=recipe.tune.max_failures,
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=None if keeps_own_checkpoints(recipe) else checkpoint.keep,
                    checkpoint_frequency=checkpoint.every,
                    checkpoint_at_end=True,
                    checkpoint_score_attribute=SCORE,
                    checkpoint_score_order="min" if recipe.best_sign < 0 else "max",
                ),
                callbacks=[tracker, JsonLogger(), *trackers(experiment, show.say)],
                trial_dirname_creator=trial_folder_name,
                raise_on_failed_trial=False,
                resume=experiment.resume is not None,
                resume_config=_resume_config(experiment.resume),
                sync_config=tune.SyncConfig(sync_period=2),
                verbose=0,
            )
        except TuneError as error:  # what a callback raised, as text
            raise _os_error(str(error)) or error from error
    if info.status == "running":  # Ray was there until the end
        info.status, info.error = outcome(analysis.trials, tracker, interrupt.signal)
    _write_outcome(experiment)  # before Ray's shutdown, which takes seconds


def _resume_config(resume: str | None) -> Any:
    if resume is None:
        return None
    from ray.tune import ResumeConfig

    kind = ResumeConfig.ResumeType
    return ResumeConfig(
        unfinished=kind.RESUME,
        errored=kind.RESUME,
        finished=kind.RESUME if resume == "finished" else kind.SKIP,
    )


def outcome(trials: Sequence[Any], tracker: Any, signal_number: int | None) -> tuple[Status, str | None]:
    """Return the run's status and, when trials failed, the message with the innermost error of the first one."""
    if signal_number is not None:
        return status_of(signal_number), None
    failed = list(tracker.errors.items())
    if not failed:
        return "done", None
    name, path = failed[0]
    from rlkit.launch.tracking import reason_in

    reason = reason_in(Path(path), tracker.notices)
    more = f" ({len(failed)} of {len(trials)} trials failed)" if len(trials) > 1 else ""
    if not Path(path).is_file() or not Path(path).read_text(errors="replace").strip():
        return "failed", f"{name} failed{more}: {reason}; {path} is empty or missing{_space(path)}"
    return "failed", f"{name} failed{more}: {reason}\nThe traceback is in {path}"


def trial_folder_name(trial: Any) -> str:
    """`trial_00003_lr=0.001`: the trial's number and what the search varied in it."""
    number = str(trial.trial_id).rpartition("_")[2]
    varied = []
    for key, value in sorted((trial.evaluated_params or {}).items()):
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        varied.append(f"{key.rpartition('/')[2]}={text}")
    clean = "".join(c if c.isalnum() or c in "=._-," else "-" for c in ",".join(varied))
    return f"trial_{number}" + (f"_{clean[:80]}" if clean else "")


def _write_outcome(experiment: Experiment) -> None:
    """Write run.json; on a full disk, into the space that the lock keeps for it, or where it stands."""
    info, folder = experiment.info, experiment.folder
    try:
        info.write(folder)
    except OSError:
        lock.give_space(folder)
        try:
            if manifest.takes_files(folder):
                info.write(folder)
            else:  # whole or not at all needs a second file
                (folder / INFO).write_text(info.content())
        except OSError as error:
            raise RunFailed(f"{info.error or info.status}; {cannot_write(error, folder)}") from error


def _lost(experiment: Experiment, show: Progress, what: str) -> None:
    """Write down that Ray is gone, and say how to go on: Ray's library may end this process at any moment."""
    info = experiment.info
    if info.status == "running":
        info.status, info.error = "failed", what
        _write_outcome(experiment)
        show.say(f"{what}\nnext: rlkit train --resume {shlex.quote(place_of(experiment.folder))}")


def check_disk(folder: Path, need: int = 64 << 20) -> None:
    """Refuse to start a run that cannot write its first checkpoint.

    Raises:
        RunFailed: names the folder, the bytes free and the bytes needed.
    """
    free = shutil.disk_usage(folder).free
    if free < need:
        raise RunFailed(
            f"{folder}: {free:,} bytes free, {need:,} needed for a run; free some space or use --out"
        )


def _os_error(text: str) -> OSError | None:
    """Return the OSError that a traceback ends with, or None."""
    found = re.search(r"OSError: \[Errno (\d+)\] ([^:\n]+)(?:: '([^']+)')?\s*$", text)
    return OSError(int(found[1]), found[2], found[3]) if found else None


def cannot_write(error: OSError, folder: Path) -> str:
    """Return what a failed write says: the path, the reason, and the bytes that are free there."""
    return f"cannot write {error.filename or folder}: {error.strerror or error}{_space(folder)}"


def _space(path: str | Path) -> str:
    try:
        return f" ({manifest.free_space(next(p for p in (Path(path), *Path(path).parents) if p.is_dir()))})"
    except OSError:
        return ""
