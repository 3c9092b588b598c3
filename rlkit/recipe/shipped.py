"""What comes with rlkit and is found by name in any folder: recipes, and the trained policies of the zoo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import rlkit
from rlkit.errors import UsageError, did_you_mean

_PACKAGE = Path(rlkit.__file__).parent
# In a wheel the recipes lie in the package; in a checkout, and in an editable install of it, beside the package.
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
ZOO = _PACKAGE / "zoo"
TABLE = ZOO / "table.json"
PREFIX = "zoo/"


def shipped() -> dict[str, Path]:
    """Return the shipped recipes, name (the file's stem) -> file, sorted by name."""
    folder = next((f for f in _FOLDERS if f.is_dir()), None)
    files = folder.rglob("*.yaml") if folder else ()
    return dict(sorted((file.stem, file) for file in files))


def find_recipe(name: str | Path) -> Path:
    """Return the file that a recipe's name or path means: a file of that path, else the shipped recipe of that name."""
    found = shipped().get(str(name))
    return Path(name) if found is None or Path(name).is_file() else found


def policies() -> dict[str, dict[str, Any]]:
    """Return the trained policies that come along, `zoo/NAME` -> its row of the table, sorted by name.

    A row has `env`, `recipe`, `overrides`, `trained_seed`, `env_steps`; `mean` and `ci95` (its 95 % interval) of the
    undiscounted return over `episodes` greedy episodes on the seeds from `seed` on; `commit`, `processor`, `date`.
    """
    rows = json.loads(TABLE.read_text())
    return {f"{PREFIX}{name}": row for name, row in sorted(rows.items())}


def find_policy(path: str | Path) -> Path:
    """Return the bundle that `zoo/NAME` means; every other path, and what lies in a folder `zoo` here, as it is.

    Raises:
        UsageError: no policy of that name comes with rlkit.
    """
    text = str(path).rstrip("/")
    if not text.startswith(PREFIX) or Path(path).exists():
        return Path(path)
    known = policies()
    if text not in known:
        raise UsageError(
            f"neither a folder nor a policy of the zoo: {text!r}{did_you_mean(text, known)}; the zoo has "
            f"{', '.join(known)}"
        )
    return ZOO / text.removeprefix(PREFIX)


def policy_summary(row: dict[str, Any]) -> str:
    """Return a row of `policies` as a line: environment, mean return with its interval, how it was trained."""
    low, high = row["ci95"]
    return (
        f"{row['env']}: {row['mean']:.1f} ({low:.1f} … {high:.1f}), {row['recipe']} with seed {row['trained_seed']}, "
        f"{row['env_steps']:,} env steps"
    )
