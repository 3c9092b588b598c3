"""`rlkit train`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from typing import Annotated, Any

import typer

from rlkit.cli.common import AsJson, Imports, Trust, plugins, recipe_names, split, stdout_for_results
from rlkit.errors import UsageError
from rlkit.report import commands


def train(
    recipe: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="Recipe file or shipped name, then overrides.",
            autocompletion=recipe_names,
        ),
    ] = None,
    algorithm: Annotated[str | None, typer.Option(help="Train without a file: the algorithm.")] = None,
    env: Annotated[str | None, typer.Option(help="Train without a file: the environment.")] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder for runs, by default runs; s3://BUCKET/FOLDER and its kin too."),
    ] = None,
    imports: Imports = [],  # noqa: B006 (typer reads the default, nothing writes it)
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Continue a run folder.")] = None,
    trial: Annotated[
        str | None,
        typer.Option(metavar="RUN:BEST", help="Train a search's best trial, or RUN:TRIAL, with new seeds."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Join a running Ray cluster; with --resume `local` leaves the run's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build environment and networks, start nothing.")
    ] = False,
    trust: Trust = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what Ray and RLlib print.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe.

    For example: rlkit train dqn_cartpole config.training.lr=3e-4 seed=1
    """
    file, overrides = split(recipe or [])
    if sum(x is not None for x in (file, algorithm or env, resume, trial)) != 1:
        raise UsageError(
            "give one of: a recipe file, --algorithm with --env, --resume RUN, or --trial RUN:BEST"
        )
    if resume is not None and out is not None:
        raise UsageError(f"--out {out}: a run that is resumed stays in its folder; leave --out away")
    from rlkit.recipe import from_flags, from_mapping

    loaded: Any = file
    if trial is not None:
        from rlkit.launch.winner import recipe_of

        plugins(imports)
        loaded = from_mapping(recipe_of(trial), overrides)
    elif resume is None and file is None:
        if algorithm is None or env is None:
            raise UsageError(
                "--algorithm and --env go together: rlkit train --algorithm DQN --env CartPole-v1"
            )
        plugins(imports)
        loaded = from_flags(algorithm, env, overrides)
    from rlkit.launch import rehearsal
    from rlkit.launch import train as launch
    from rlkit.launch.interrupt import Stopped

    if dry_run:
        if resume is not None:
            raise UsageError("--dry-run goes with a recipe; a run that is resumed was built before")
        with stdout_for_results():
            said = rehearsal.dry_run(loaded, overrides if file else (), imports=imports, trust=trust)
        print(json.dumps({"can_train": said}) if as_json else said)
        return
    options: dict[str, Any] = {"imports": imports, "address": address, "quiet": quiet, "verbose": verbose}
    command = shlex.join(["rlkit", *sys.argv[1:]])
    _end_with_143()
    try:
        with stdout_for_results():
            if resume is not None:
                run = launch.resume(resume, overrides, trust=trust, **options)
            else:
                run = launch.train(
                    loaded,
                    overrides if file else (),
                    out=out or "runs",
                    command=command,
                    trust=trust,
                    **options,
                )
    except Stopped as stopped:
        if stopped.run is None:
            raise
        run = stopped.run
    result = launch.summary(run)
    if as_json:
        print(json.dumps(result))
    elif not quiet:
        if result["trials"] > 1:
            from rlkit.report.ranking import Ranking

            commands.console().print(Ranking.of(run).table(), crop=False)
        _print_summary(result)
    code = {"interrupted": 130, "terminated": 143}.get(run.status, 0)
    if code:
        raise typer.Exit(code)


def _print_summary(result: dict[str, Any]) -> None:
    def show(value: Any, unit: str = "") -> str:
        return (
            "–"
            if value is None
            else (f"{value:,.1f}{unit}" if isinstance(value, float) else f"{value:,}{unit}")
        )

    trials = result["trials"]
    of_best = " (best trial)" if trials > 1 else ""
    rows = {
        "status": result["status"],
        "env steps": show(result["env_steps"]) + (f" in {trials} trials" if trials > 1 else ""),
        "return": show(result["episode_return"]) + of_best,
        "time": show(result["time_s"], " s") + of_best,
        "run": result["run"],
        "best": result["best_checkpoint"] or "no checkpoint was written",
    }
    for key, value in rows.items():
        print(f"{key:<10} {value}")
    if result["status"] in ("interrupted", "terminated"):
        print(f"\nnext: rlkit train --resume {shlex.quote(result['run'])}")
    elif result["best_checkpoint"]:
        print(f"\nnext: rlkit evaluate {shlex.quote(result['run'])}")


def _end_with_143() -> None:
    """Answer SIGTERM and SIGHUP before and after a run as within it: with exit code 143."""
    main = threading.current_thread() is threading.main_thread()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if main and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda *_: os._exit(143))
