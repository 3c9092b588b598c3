"""A recipe's run, from a new folder to a finished one: AlgorithmConfig -> tune.run -> run.json."""

from __future__ import annotations

import errno
import math
import os
import re
import shlex
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rlkit import recipe as recipes
from rlkit import registry, rllib
from rlkit.errors import CheckpointError, RunFailed, UsageError, printable
from rlkit.files import sha256, write_atomic
from rlkit.launch.experiment import Experiment
from rlkit.launch.interrupt import Interrupt, Stopped, status_of
from rlkit.launch.mirror import SYNC_S, Mirror, destination
from rlkit.launch.progress import Progress
from rlkit.launch.session import RaySession, demand, quiet_loggers, require, set_quiet
from rlkit.recipe import Recipe
from rlkit.runs import lock, manifest, seal, store
from rlkit.runs.layout import INFO, RECIPE
from rlkit.runs.run import Run, RunInfo, Status, new_run_folder, open_run
from rlkit.runs.store import place_of

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)  # what a disk says to a write
RESUMABLE = ("stop", "tune.max_failures")


def train(
    recipe: str | Path | Recipe | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    algorithm: str | None = None,
    env: str | None = None,
    out: str | Path = "runs",
    imports: Sequence[str] = (),
    address: str | None = None,
    trust: bool = False,
    quiet: bool = True,
    verbose: bool = False,
    command: str | None = None,
) -> Run:
    """Train a recipe through `tune.run` and return its run folder.

    Args:
        recipe: a file, a `Recipe`, or the content of one as a dict.
        overrides: `{"config.training.lr": 1e-3}` or `["config.training.lr=1e-3"]`.
        algorithm, env: in place of a recipe: RLlib's defaults, and 100,000 env steps unless `overrides` say otherwise.
        out: parent of `<name>/<time>/`: a folder, or a URI of object storage that pyarrow opens (docs/cluster.md).
        imports: modules that register the user's environments, models and callbacks.
        address: a Ray cluster to join; without it Ray runs embedded in this process.
        trust: take weights (`init_from`) from a checkpoint that this user did not write; loading runs code inside it.
        quiet: show no progress. verbose: show what Ray and RLlib print.
        command: how this run was started, for run.json.

    Raises:
        RecipeError: the recipe is wrong (all problems at once).
        UsageError: the parts of the recipe do not fit together, or there is no recipe.
        RunFailed: a trial failed; its traceback is in the trial's error.txt.
        KeyboardInterrupt: ^C, SIGTERM or SIGHUP ended it, with a checkpoint; its `run` is the Run until then.
    """
    registry.begin(imports)
    if (recipe is None) == (algorithm is None and env is None) or (algorithm is None) != (env is None):
        raise UsageError('give a recipe, or both: train(algorithm="DQN", env="CartPole-v1")')
    if algorithm is not None and env is not None:
        loaded = recipes.from_flags(algorithm, env, overrides)
    else:
        loaded = load_recipe(recipe, overrides)
    registry.begin(imports, loaded.to_dict())
    if loaded.init_from:
        from rlkit.launch.initial import sources

        loaded = loaded.model_copy(update={"init_from": sources(loaded.init_from)})
    elif trust:
        raise UsageError("trust goes with init_from or with a run that is resumed: nothing else is loaded")
    folder = new_run_folder(out, loaded.name)
    with lock.hold(folder, "train"):
        info = RunInfo.start(loaded, command=command, imports=registry.imports(), address=address)
        write_atomic(folder / RECIPE, recipes.dump(loaded))
        info.recipe_sha256 = sha256(folder / RECIPE)
        return _run(Experiment(loaded, folder, info, trust=trust, quiet=quiet, verbose=verbose))


def resume(
    run: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    imports: Sequence[str] = (),
    address: str | None = None,
    trust: bool = False,
    quiet: bool = True,
    verbose: bool = False,
) -> Run:
    """Continue a run from its newest intact checkpoints, with everything RLlib and rlkit keep.

    `overrides` may change `stop.…` (a finished run goes on to the new limit) and `tune.max_failures`. A run
    folder names modules to import and holds pickles of Tune and RLlib: `trust` accepts one that this user did not
    write, or that was edited since.

    Raises:
        UsageError: not a run folder, one that is in use, another override, or a run with nothing left to do.
        CheckpointError: the run is not this user's or was edited, or a trial's checkpoints are all damaged or not
            signed by this user. Nothing has been imported or unpickled then.
        KeyboardInterrupt: as in `train`.
    """
    words = [*overrides] if not isinstance(overrides, Mapping) else [f"{k}={v}" for k, v in overrides.items()]
    _check_resumable(words)
    known = open_run(run)
    with lock.hold(known.path, "--resume"):
        return _resume(known, words, imports, address, trust, quiet, verbose)


def _check_resumable(words: Sequence[str]) -> None:
    for word in words:
        key = word.split("=", 1)[0]
        if not key.startswith(RESUMABLE):
            raise UsageError(
                f"--resume: {key} cannot change in a run that goes on; {' and '.join(RESUMABLE)} can"
            )


def _resume(
    known: Run,
    words: Sequence[str],
    imports: Sequence[str],
    address: str | None,
    trust: bool,
    quiet: bool,
    verbose: bool,
) -> Run:
    info = seal.verify(known.path, trust=trust)
    _refuse_busy(known, info)
    begun = any(known.path.glob("experiment_state-*.json"))
    if begun:
        _check_checkpoints(known, trust)
    if info.status == "done" and not words:
        raise UsageError(
            f"{place_of(known.path)} is finished; to go on give a new limit, for example stop.env_steps=200000"
        )
    registry.begin([*info.imports, *imports])
    _check_resumable(info.resumed_with)  # of a trusted stranger
    info.resumed_with = list({word.split("=", 1)[0]: word for word in (*info.resumed_with, *words)}.values())
    loaded = recipes.load(known.path / RECIPE, info.resumed_with)
    info.status, info.error, info.imports = "running", None, registry.imports()
    info.address = address or info.address
    mode: Literal["finished", "unfinished"] | None = None
    if begun:
        mode = "finished" if words else "unfinished"
    return _run(Experiment(loaded, known.path, info, mode, trust, quiet, verbose))


def _refuse_busy(run: Run, info: RunInfo) -> None:
    """In object storage nobody can lock a run: a run.json that another machine has just written means that it trains.

    Raises:
        UsageError: names the process and its machine.
    """
    if store.uri_of(run.path) is None or info.status != "running" or info.host == socket.gethostname():
        return
    age = time.time() - (run.path / INFO).stat().st_mtime
    if age < 4 * SYNC_S:
        raise UsageError(
            f"--resume: {place_of(run.path)} is in use by process {info.pid} on {printable(info.host)}, which wrote "
            f"{age:.0f} s ago; wait for its end, or stop it"
        )


def _check_checkpoints(run: Run, trust: bool) -> None:
    """Verify the checkpoints a run goes on from, before Tune unpickles anything in its folder.

    Raises:
        CheckpointError: a trial has checkpoints and none of them is good; why the newest is not.
    """
    for trial in run.trials:
        good, skipped = manifest.latest_good(trial.path, trust=trust)
        if good is None and skipped:
            raise CheckpointError(f"{trial.name} has no checkpoint to go on from: {skipped[0][1]}")


def load_recipe(recipe: Any, overrides: Mapping[str, Any] | Sequence[str]) -> Recipe:
    """Return a checked Recipe from a file, a dict or a Recipe."""
    if isinstance(recipe, str | Path):
        return recipes.load(recipe, overrides)
    values = recipe.to_dict() if isinstance(recipe, Recipe) else recipe
    return recipes.from_mapping(values, overrides)


def _run(experiment: Experiment) -> Run:
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


def dry_run(
    recipe: Any, overrides: Mapping[str, Any] | Sequence[str] = (), *, imports: Sequence[str] = ()
) -> str:
    """Do all that `train` does before training, without a run folder and without Ray; return one line that says what.

    Raises:
        RecipeError: the recipe is wrong (all problems at once).
        UsageError: the parts of the recipe do not fit together.
        EnvError: the environment cannot be made.
    """
    from rlkit.launch.spaces import read_roster

    registry.begin(imports)
    loaded = load_recipe(recipe, overrides)
    registry.begin(imports, loaded.to_dict())
    set_quiet(False)
    look_at_spaces(loaded)
    registry.resolve("algorithms", loaded.algorithm)
    quiet_loggers()  # after the import of RLlib, which sets levels of its own
    rehearse(loaded)
    agents = len(read_roster(first_trial(loaded)).spaces)
    return f"{loaded.name}: {loaded.algorithm} on {loaded.env} ({agents} agent{'s' if agents > 1 else ''}) can train"


def rehearse(recipe: Recipe, *, weights: bool = True, trust: bool = False) -> tuple[Any, list[Any]]:
    """Make the environment and the networks of a recipe's first trial; needs no Ray.

    Args:
        recipe: of the run.
        weights: match the weights of `init_from` too. trust: take those of a checkpoint this user did not write.

    Returns:
        The AlgorithmConfig, and what each module takes from `init_from` (`initial.Plan`).

    Raises:
        UsageError: the parts of the recipe do not fit together.
        EnvError: the environment cannot be made.
    """
    from rlkit.launch import initial
    from rlkit.launch.build import build
    from rlkit.launch.spaces import check_spaces

    first = first_trial(recipe)
    config = build(first)
    modules = check_spaces(config, first)
    if not first.init_from or not weights:
        return config, []
    return config, initial.plans(first.init_from, initial.shapes_of(modules), trust=trust)


def look_at_spaces(recipe: Recipe) -> None:
    """Say what can be known of the spaces before RLlib is imported and Ray starts.

    The environments of PettingZoo and VMAS import RLlib; theirs are read when Ray has started (`rehearse`).
    """
    from rlkit.envs import is_multi_agent
    from rlkit.launch.spaces import forget_rosters, refuse

    forget_rosters()
    if recipe.env in registry.TABLES["envs"] or not is_multi_agent(recipe.env):
        refuse(first_trial(recipe))


def first_trial(recipe: Recipe) -> Recipe:
    """Return the recipe with the first value of each search space."""
    from rlkit.launch.search import first_value

    return Recipe.from_dict({**first_value(recipe.to_dict()), "tune": {}})


def _tune(
    experiment: Experiment, session: RaySession, show: Progress, interrupt: Interrupt, mirror: Mirror
) -> None:
    """Build once to find errors before anything trains, then hand over to Tune."""
    from ray import tune
    from ray.tune import TuneError

    from rlkit.launch import initial
    from rlkit.launch.loggers import JsonLogger
    from rlkit.launch.search import keeps_own_checkpoints, param_space, scheduler, searcher
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
    mode, checkpoint = recipe.tune.mode, recipe.checkpoint
    folder, parent = experiment.folder, experiment.folder.parent.resolve()
    with (
        interrupt.saving(show.say),
        rllib.tune_state_to(partial(seal.put, folder, info), parent / folder.name),
        rllib.no_old_decisions(),
        rllib.no_kept_results(),
        rllib.trials_in_waiting_workers(session.embedded),
    ):
        tracker = Tracker(experiment, interrupt, show, mirror)
        try:
            analysis = tune.run(
                trainable(algorithm_class),
                config=space,
                num_samples=samples,
                storage_path=str(parent),
                name=folder.name,
                stop=StopRule(recipe.stop),
                metric=path_of(recipe.tune.metric),
                mode=mode,
                scheduler=scheduler(recipe),
                search_alg=searcher(recipe),
                max_concurrent_trials=recipe.tune.concurrent if recipe.tune.search else None,
                max_failures=recipe.tune.max_failures,
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=None if keeps_own_checkpoints(recipe) else checkpoint.keep,
                    checkpoint_frequency=checkpoint.every,
                    checkpoint_at_end=True,
                    checkpoint_score_attribute=SCORE,
                    checkpoint_score_order=mode,
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


def summary(run: Run) -> dict[str, Any]:
    """Return the object `train --json` prints: env steps of all trials, the other numbers those of the best one."""
    last = {key: value for key, value in run.last_metrics.items() if not math.isnan(value)}
    counts = {key: int(last[key]) if key in last else None for key in ("env_steps", "iteration")}
    every = [
        row["env_steps"] for row in run.last_rows.values() if not math.isnan(row.get("env_steps", math.nan))
    ]
    return {
        "run": place_of(run.path),
        "status": run.status,
        "best_checkpoint": place_of(run.best_checkpoint) if run.best_checkpoint else None,
        "last_checkpoint": place_of(run.last_checkpoint) if run.last_checkpoint else None,
        "trials": len(run.trials),
        "env_steps": int(sum(every)) if every else None,
        "iterations": counts["iteration"],
        "episode_return": last.get("episode_return"),
        "time_s": last.get("time_s"),
    }
