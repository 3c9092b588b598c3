"""The command line: parse, call one function, print. Results go to stdout, progress and messages to stderr."""

from __future__ import annotations

from typing import Annotated

import typer

from rlkit import __version__
from rlkit.cli import play, recipes, train
from rlkit.report import commands

app = typer.Typer(
    name="rlkit",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"rlkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Recipes for Ray RLlib: train, evaluate, compare."""


app.command()(train.train)
app.command()(play.evaluate)
app.command()(play.export)
app.command()(recipes.check)
app.command()(recipes.show)
app.command("list")(recipes.list_names)
app.command()(commands.plot)
app.command()(commands.compare)
app.command()(play.report)
app.add_typer(commands.runs_app, name="runs")
app.command()(recipes.init)
app.command()(recipes.migrate)
