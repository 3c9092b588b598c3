"""What several commands share: options, the completion of names, where output goes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rlkit.errors import UsageError

Imports = Annotated[
    list[str],
    typer.Option("--import", "-i", metavar="MODULE", help="Module or .py file that registers your names."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Trust = Annotated[bool, typer.Option("--trust", help="Load what this user did not write (it can run code).")]
Force = Annotated[
    bool, typer.Option("--force", help="Load a checkpoint of another Ray, Python or rlkit version.")
]


def recipe_names(incomplete: str) -> list[str]:
    """Complete the names of shipped recipes; the shell itself completes files."""
    from rlkit.recipe.shipped import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


def policy_names(incomplete: str) -> list[str]:
    """Complete the names of the policies that come along; the shell itself completes folders."""
    from rlkit.recipe.shipped import policies

    return [name for name in policies() if name.startswith(incomplete)]


def exists(word: str) -> bool:
    """Whether a word names a file or folder; a KEY=VALUE longer than a file's name can be does not."""
    try:
        return Path(word).exists()
    except OSError:
        return False


def split(words: list[str]) -> tuple[str | None, list[str]]:
    """Separate the recipe file from KEY=VALUE words. Only the first word can be the file."""
    files = [w for w in words if "=" not in w or exists(w)]
    if len(files) > 1 or (files and words[0] != files[0]):
        raise UsageError(
            f"{files[-1]!r} is neither KEY=VALUE nor the recipe; the form is: rlkit train RECIPE KEY=VALUE"
        )
    return (files[0] if files else None), [w for w in words if w not in files]


def plugins(imports: list[str]) -> None:
    from rlkit.registry import load_plugins

    load_plugins(imports)


@contextlib.contextmanager
def stdout_for_results() -> Iterator[None]:
    """Send to stderr what environments print while a command works, those in C and in child processes too."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
