"""The commands that look at runs: plot, compare, runs, runs clean. `rlkit.cli` adds them to its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000  # letters of a line in a file or pipe

RunPaths = Annotated[list[str], typer.Argument(metavar="RUN...")]
Metric = Annotated[str, typer.Option(help="Tidy metric name.")]
By = Annotated[
    list[str],
    typer.Option("--by", metavar="KEY", help="Group by recipe, algorithm, env or config.training.lr …"),
]
Normalise = Annotated[
    bool,
    typer.Option(
        "--normalise", help="Returns on a scale from random (0) to a reference (1), over environments."
    ),
]
Score = Annotated[
    list[str],
    typer.Option("--score", metavar="ENV=LOW:HIGH", help="The returns that count as 0 and 1 there."),
]


def plot(
    runs: RunPaths,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="PNG, SVG or PDF; default plot.png in the run.")
    ] = None,
    metric: Metric = "episode_return",
    x: Annotated[str, typer.Option(help="env_steps, time_s, updates, iteration.")] = "env_steps",
    by: By = [],  # noqa: B006 (typer reads the default, nothing writes it)
    profile: Annotated[
        bool, typer.Option("--profile", help="Performance profiles of the final values.")
    ] = False,
    normalise: Normalise = False,
    score: Score = [],  # noqa: B006
    text: Annotated[bool, typer.Option("--text", help="Draw in the terminal.")] = False,
) -> None:
    """Draw learning curves: seeds thin, their interquartile mean bold, with its 95 % band."""
    from rlkit.errors import UsageError, printable
    from rlkit.report import plot as draw

    if profile and text:
        raise UsageError("--profile draws a picture; leave out --text")
    if text and out is not None:
        raise UsageError(f"--text draws in the terminal and writes no file; leave out --text or -o {out}")
    if profile and x != "env_steps":
        raise UsageError(f"--profile is of the final values, along env steps; leave out --x {x}")
    notes: list[str] = []
    try:
        result = draw(runs, metric, x, out, text, by, _scale(normalise, score, metric), profile, notes)
    finally:
        tell(notes)
    print(result if text else printable(result))


def compare(
    runs: RunPaths,
    metric: Metric = "episode_return",
    by: By = [],  # noqa: B006
    threshold: Annotated[list[float], typer.Option(help="Compare the env steps until this value.")] = [],  # noqa: B006
    normalise: Normalise = False,
    score: Score = [],  # noqa: B006
    form: Annotated[
        Literal["table", "markdown", "csv", "json"], typer.Option("--format", help="How it is printed.")
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compare runs: seeds grouped, IQM and interval, probability of improvement, sample efficiency."""
    from rlkit.errors import UsageError
    from rlkit.report import compare as table

    if as_json and form not in ("table", "json"):
        raise UsageError(f"--json and --format {form} are two forms; leave out one")
    notes: list[str] = []
    try:
        result = table(runs, metric, by, _scale(normalise, score, metric), threshold, notes)
    finally:
        tell(notes)
    if as_json or form == "json":
        print(json.dumps(result.to_json()))
    elif form == "table":
        console().print(result.table(), crop=False)
    else:
        print(result.markdown() if form == "markdown" else result.csv(), end="")


runs_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@runs_app.callback(invoke_without_command=True)
def runs(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("--in", help="Look at and below this folder or URI.")] = Path(
        "runs"
    ),
    name: Annotated[str, typer.Option(help="Glob over name or path: 'dqn_*'.")] = "*",
    status: Annotated[
        str | None, typer.Option(help="running, done, failed, interrupted, terminated or damaged.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list on stdout.")] = False,
) -> None:
    """List runs, the newest first: name, status, best value, age, size."""
    if context.invoked_subcommand:
        _refuse_options(context)
        return
    from dataclasses import asdict

    from rlkit.report.comparison import plain_numbers
    from rlkit.report.run_table import run_table
    from rlkit.runs.listing import list_runs

    rows = list_runs([folder], name, status)
    if as_json:
        print(json.dumps(plain_numbers([{**asdict(row), "path": row.place} for row in rows])))
        return
    if not rows:
        print(f"no runs in {folder} match", file=sys.stderr)
        return
    console().print(run_table(rows), crop=False)
    tell([f"{row.place}: {row.note}" for row in rows if row.note])


def _refuse_options(context: typer.Context) -> None:
    """`rlkit runs --in FOLDER clean`: the options choose what is listed, not what is cleaned."""
    from rlkit.errors import UsageError

    given = [
        option.opts[0]
        for option in context.command.params
        if option.name and getattr(context.get_parameter_source(option.name), "name", "") == "COMMANDLINE"
    ]
    if given:
        command = context.invoked_subcommand
        raise UsageError(
            f"{given[0]} is an option of the list; name folders behind {command}: rlkit runs {command} FOLDER"
        )


def console() -> Console:
    """A console as wide as the terminal; a file or pipe gets whole lines."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


@runs_app.command()
def clean(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Runs, or folders of runs; default runs."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove checkpoints that are neither a trial's best nor its last; say what that frees, and ask."""
    from rlkit.errors import printable
    from rlkit.report.run_table import amount
    from rlkit.runs import listing

    found = [listing.cleanable(path) for path in listing.find_runs(folders or [Path("runs")])]
    tell([f"{cleaning.run}: left alone, {cleaning.note}" for cleaning in found if cleaning.note])
    found = [cleaning for cleaning in found if cleaning.folders]
    for cleaning in found:
        count = len(cleaning.folders)
        what = f"{count} checkpoint{'s' if count > 1 else ''}"
        print(f"{printable(cleaning.run)}  {what}, {amount(cleaning.size)}", file=sys.stderr)
    if not found:
        print("nothing to remove")
        return
    total = amount(sum(cleaning.size for cleaning in found))
    if not yes:
        typer.confirm(f"Remove them and free {total}? Best and last checkpoints stay.", abort=True, err=True)
    print(f"freed {amount(listing.clean(found))}")


def _scale(normalise: bool, score: list[str], metric: str) -> Any:
    from rlkit.errors import UsageError
    from rlkit.report.normalise import scores

    if not (normalise or score):
        return None
    if not metric.endswith("episode_return"):
        word = "--normalise" if normalise else "--score"
        raise UsageError(
            f"{word} is for returns, episode_return and eval/episode_return; got --metric {metric}"
        )
    return scores(score)


def tell(notes: list[str]) -> None:
    from rlkit.errors import printable

    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
