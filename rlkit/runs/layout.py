"""Names of files and folders in a run, and the versions that run.json and every manifest state."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

INFO, METRICS, RECIPE, MANIFEST = "run.json", "metrics.csv", "recipe.yaml", "manifest.json"
DISTRIBUTIONS = {
    "ray": "ray",
    "rlkit": "rlkit-rllib",
    "torch": "torch",
    "gymnasium": "gymnasium",
    "numpy": "numpy",
}
_CHECKPOINT = re.compile(r"checkpoint_(\d+)")


def checkpoint_name(iteration: int) -> str:
    """`checkpoint_000010`."""
    return f"checkpoint_{iteration:06d}"


def iteration_of(folder: str | Path) -> int | None:
    """Return the iteration in the name of a checkpoint folder; None for any other name."""
    found = _CHECKPOINT.fullmatch(Path(folder).name)
    return int(found[1]) if found else None


def checkpoints_in(trial: str | Path) -> list[Path]:
    """Return the checkpoint folders of a trial, finished or not, oldest first."""
    numbered = [
        (number, path) for path in Path(trial).iterdir() if (number := iteration_of(path)) is not None
    ]
    return [path for _, path in sorted(numbered) if path.is_dir()]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a run depends on, without importing them."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    from importlib import metadata  # 20 ms, then 4 ms a call, and only what writes or verifies needs it

    found = {"python": platform.python_version()}
    for name, distribution in DISTRIBUTIONS.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
