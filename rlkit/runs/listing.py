"""The runs below a folder: what stands there, how large it is, and which checkpoints nobody needs any more."""

from __future__ import annotations

import fnmatch
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlkit.errors import CheckpointError, UsageError, did_you_mean
from rlkit.runs import lock, store
from rlkit.runs.layout import INFO, checkpoints_in
from rlkit.runs.reading import shown
from rlkit.runs.run import Run

STATUSES = ("running", "done", "failed", "interrupted", "terminated", "damaged")
LEFTOVERS = (".writing_", ".replaced_")


@dataclass(frozen=True)
class RunRow:
    """One run of `rlkit runs`.

    Attributes:
        status: of `Run.status`, or `damaged`.
        metric, best: name and value of the best checkpoint, None where there is none.
        env_steps: of the trial that went furthest.
        age_s: since anything was last written to run.json or metrics.csv.
        size: bytes of all its files.
        note: why it is damaged.
    """

    path: Path
    name: str
    status: str
    trials: int = 0
    metric: str | None = None
    best: float | None = None
    env_steps: int | None = None
    age_s: float = 0.0
    size: int = 0
    note: str = ""

    @property
    def place(self) -> str:
        """Its folder, or its URI in object storage."""
        return store.place_of(self.path)


@dataclass
class Cleaning:
    """What `clean` would remove from a run, and how many bytes that frees; or why it leaves the run alone."""

    run: Path
    folders: list[Path] = field(default_factory=list)
    size: int = 0
    note: str = ""


def find_runs(folders: Sequence[str | Path]) -> Iterator[Path]:
    """Yield the run folders at and below some folders, links not followed, in the order of their names.

    Each once, whatever folders lie in each other.

    Raises:
        UsageError: no such folder, or one inside a run.
    """
    seen: set[Path] = set()
    for folder in folders:
        if store.is_uri(folder):
            raise UsageError(
                f"{folder}: checkpoints are cleaned in folders of this machine; `rlkit runs --in {folder}` lists these"
            )
        if not Path(folder).is_dir():
            raise UsageError(f"no such folder: {folder} (`rlkit train` puts runs under runs/)")
        if not (Path(folder) / INFO).is_file() and (Path(folder).parent / INFO).is_file():
            raise UsageError(f"{folder} is inside a run; name the run, {Path(folder).parent}")
        for root, names, files in os.walk(folder):
            if INFO in files:
                names.clear()
                if Path(root).resolve() not in seen:
                    seen.add(Path(root).resolve())
                    yield Path(root)
            names.sort()


def list_runs(folders: Sequence[str | Path], pattern: str = "*", status: str | None = None) -> list[RunRow]:
    """Return the runs below folders, the newest first. A damaged one is listed with what is wrong.

    Args:
        folders: of this machine, or URIs of object storage; of a run there only its small files are fetched.
        pattern: glob over the run's name and over its path or URI.
        status: one of `STATUSES`.

    Raises:
        UsageError: no such folder or status.
    """
    if status is not None and status not in STATUSES:
        raise UsageError(
            f"unknown status {status!r}{did_you_mean(status, STATUSES)}; one of {', '.join(STATUSES)}"
        )
    rows = []
    for folder in folders:
        if store.is_uri(folder):
            rows += [replace(row_of(path), size=size) for path, size in store.outlines(folder).items()]
    rows += [row_of(path) for path in find_runs([f for f in folders if not store.is_uri(f)])]
    wanted = [
        row
        for row in rows
        if (fnmatch.fnmatch(row.name, pattern) or fnmatch.fnmatch(row.place, pattern))
        and status in (None, row.status)
    ]
    return sorted(wanted, key=lambda row: row.age_s)


def row_of(path: Path) -> RunRow:
    """Describe a run folder, damaged or not."""
    size = size_of(path)
    newest = max((p.stat().st_mtime for p in (path / INFO, path / "metrics.csv") if p.is_file()), default=0.0)
    age = max(0.0, time.time() - newest)
    try:
        run = Run(path)
        info, last = run.info, run.last_rows.values()
        steps = [row["env_steps"] for row in last if math.isfinite(row.get("env_steps", math.nan))]
        best = info.best
        return RunRow(
            path, info.name, run.status, len(run.trials), best.metric if best else None, best.value if best else None,
            int(max(steps)) if steps else None, age, size,
        )  # fmt: skip
    except (CheckpointError, OSError, ValueError, TypeError, AttributeError) as error:
        return RunRow(path, path.parent.name, "damaged", age_s=age, size=size, note=str(error))


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; links count as nothing."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                status = os.lstat(os.path.join(root, name))
            except OSError:  # just removed by the run itself
                continue
            total += status.st_size
    return total


def cleanable(path: Path) -> Cleaning:
    """Return the checkpoints of a run that are neither a trial's best nor its last, and what a crash left half written.

    A run that is in use, or that cannot be read, is left alone.
    """
    found = Cleaning(path)
    try:
        run = Run(path)
        if run.status == "running":
            found.note = f"in use by {lock.holder(path) or f'process {run.info.pid} on {run.info.host}'}"
            return found
        keep = {run.checkpoint_of(run.info.best), run.last_checkpoint}
        trials = run.trials
        for named in filter(None, [run.info.best, *run.info.trial_best.values()]):
            if run.checkpoint_of(named) is None:
                found.note = f"its best checkpoint {shown(named.checkpoint)} is gone; which other is as good is unknown"
                return found
        for trial in trials:
            keep |= {trial.best_checkpoint, trial.last_checkpoint}
    except (CheckpointError, OSError, ValueError, TypeError, AttributeError) as error:
        found.note = str(error)
        return found
    kept = {checkpoint.resolve() for checkpoint in keep if checkpoint is not None}
    for trial in trials:
        if trial.path.is_symlink():
            continue
        halves = [p for p in trial.path.iterdir() if p.name.startswith(LEFTOVERS)]
        for folder in [*checkpoints_in(trial.path), *halves]:
            if not folder.is_symlink() and folder.resolve() not in kept:
                found.folders.append(folder)
                found.size += size_of(folder) if folder.is_dir() else folder.stat().st_size
    return found


def clean(cleanings: Sequence[Cleaning]) -> int:
    """Remove what `cleanable` found and return how many bytes that freed.

    Raises:
        UsageError: a run has been resumed in the meantime.
        OSError: a folder cannot be removed; those before it are gone.
    """
    freed = 0
    for cleaning in cleanings:
        with lock.hold(cleaning.run, "runs clean"):
            for folder in cleaning.folders:
                size = size_of(folder) if folder.is_dir() else folder.stat().st_size
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
                freed += size
    return freed
