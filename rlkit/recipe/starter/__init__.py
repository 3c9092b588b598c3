"""`rlkit init NAME`: the files of a small project, as they lie here, with its name filled in."""

from __future__ import annotations

import re
from pathlib import Path

from rlkit.errors import UsageError

HERE = Path(__file__).parent
FILES = (
    "README.md",
    "recipe.yaml",
    "parts.py",
    "corridor.py",
    "progress.py",
    "network.py",
    "tests/test_project.py",
)
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def create(name: str | Path) -> list[Path]:
    """Create the project's folder and return its files.

    Raises:
        UsageError: a name that is no word, or a folder that exists.
    """
    folder = Path(name)
    if not NAME.fullmatch(folder.name):
        raise UsageError(
            f"rlkit init {name}: expected a name of letters, digits, _ and -, such as my_project"
        )
    if folder.exists():
        raise UsageError(f"{folder} exists; choose another name")
    written = []
    try:
        for file in FILES:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (HERE / f"{file}.txt").read_text(encoding="utf-8")
            path.write_text(text.replace("PROJECT", folder.name), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise UsageError(f"cannot create {folder}: {error.strerror}") from None
    return written
