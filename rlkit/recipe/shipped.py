"""The recipes that come with rlkit: found by name in any folder, from a wheel as from a checkout."""

from __future__ import annotations

from pathlib import Path

import rlkit

_PACKAGE = Path(rlkit.__file__).parent
# In a wheel the recipes lie in the package; in a checkout, and in an editable install of it, beside the package.
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def shipped() -> dict[str, Path]:
    """Return the shipped recipes, name (the file's stem) -> file, sorted by name."""
    folder = next((f for f in _FOLDERS if f.is_dir()), None)
    files = folder.rglob("*.yaml") if folder else ()
    return dict(sorted((file.stem, file) for file in files))


def find_recipe(name: str | Path) -> Path:
    """Return the file that a recipe's name or path means: a file of that path, else the shipped recipe of that name."""
    found = shipped().get(str(name))
    return Path(name) if found is None or Path(name).is_file() else found
