"""`train` and `resume`: from a recipe, or from an unfinished run folder, to a finished one."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlkit import recipe as recipes
from rlkit import registry
from rlkit.errors import CheckpointError, UsageError, printable
from rlkit.files import sha256, write_atomic
from rlkit.launch import cluster, tune_run
from rlkit.launch.experiment import Experiment
from rlkit.launch.mirror import SYNC_S
from rlkit.launch.rehearsal import load_recipe, trust_needs_weights
from rlkit.recipe import Recipe
from rlkit.runs import lock, manifest, seal, store
from rlkit.runs.layout import INFO, RECIPE
from rlkit.runs.run import Run, RunInfo, new_run_folder, open_run
from rlkit.runs.store import place_of

EMBEDDED = "local"  # an `--address` of `--resume`: no longer in the cluster that run.json names
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
    trust_needs_weights(loaded, trust)
    if loaded.init_from:
        from rlkit.launch.initial import sources

        loaded = loaded.model_copy(update={"init_from": sources(loaded.init_from)})
    search = loaded.tune.search or {}
    if search.get("storage"):  # a resume may come from another working folder
        search = {**search, "storage": str(Path(str(search["storage"])).expanduser().absolute())}
        loaded = loaded.model_copy(update={"tune": loaded.tune.model_copy(update={"search": search})})
    folder = new_run_folder(out, loaded.name)
    with lock.hold(folder, "train"):
        info = RunInfo.start(loaded, command=command, imports=registry.imports(), address=address)
        write_atomic(folder / RECIPE, recipes.dump(loaded))
        info.recipe_sha256 = sha256(folder / RECIPE)
        return tune_run.run(Experiment(loaded, folder, info, trust=trust, quiet=quiet, verbose=verbose))


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

    `overrides` may change `stop.…` (finished trials go on to the new limit) and `tune.max_failures`. A run
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
    if any(word.startswith("stop") for word in words):
        info.extending = True
    elif info.status == "done" and not info.extending:
        raise UsageError(
            f"{place_of(known.path)} is finished; to go on give a new limit, for example stop.env_steps=200000"
        )
    registry.begin([*not_anew(info.imports, imports), *imports])
    _check_resumable(info.resumed_with)  # of a trusted stranger
    info.resumed_with = latest((*info.resumed_with, *words))
    loaded = recipes.load(known.path / RECIPE, info.resumed_with)
    info.status, info.error, info.imports = "running", None, registry.imports()
    if address == EMBEDDED:
        info.address = None
    elif address:
        cluster.prepare_to_join(address)  # before run.json names it
        info.address = address
    mode: Literal["finished", "unfinished"] | None = None
    if begun:
        mode = "finished" if info.extending else "unfinished"
    return tune_run.run(Experiment(loaded, known.path, info, mode, trust, quiet, verbose))


def not_anew(recorded: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return what a run has imported, without files whose module is given anew: they were moved or replaced."""
    anew = {registry.module_name(name) for name in given}
    return [name for name in recorded if not (name.endswith(".py") and registry.module_name(name) in anew)]


def latest(words: Iterable[str]) -> list[str]:
    """Of overrides with the same key the last one, in the order in which they were given: a later word overrules."""
    kept: dict[str, str] = {}
    for word in words:
        key = word.split("=", 1)[0]
        kept.pop(key, None)
        kept[key] = word
    return list(kept.values())


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
