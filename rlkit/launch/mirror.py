"""A run's folder copied to object storage while it trains: `--out s3://bucket/runs`.

The run folder is the staging folder of its URI (`rlkit.runs.store`), and the driver copies what changed in it, in a
thread of its own: finished checkpoints first, then the files that grow, then run.json and Tune's state as they were at
one moment. A trial on another node copies its checkpoints itself, and the driver fetches them from the store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlkit.errors import CheckpointError, UsageError
from rlkit.runs import lock, seal, store
from rlkit.runs.layout import INFO, MANIFEST, checkpoints_in, iteration_of
from rlkit.runs.run import RunInfo

SYNC_S = 20.0  # at most this much of metrics.csv is missing in the store; a checkpoint is copied at once
Stamp = tuple[int, int]


class Mirror:
    """The copy of one run. Without a URI of its own the folder is not copied and every method does nothing.

    Args:
        folder: of the run. info: its run.json, as the launcher keeps it.

    Attributes:
        trouble: why the last copy failed; None after one that did not.
    """

    def __init__(self, folder: Path, info: RunInfo):
        self.folder, self.info = folder, info
        self.uri = store.uri_of(folder)
        self.trouble: str | None = None
        self._store = store.Store(self.uri) if self.uri else None
        self._thread: threading.Thread | None = None
        self._due = 0.0
        self._sent: dict[str, Stamp] = {}  # file -> size and time of what the store has
        self._state: dict[str, set[str]] = {}  # file of Tune -> what its sha256 may be in the store
        self._checkpoints: set[str] | None = None  # in the store

    def begin(self) -> None:
        """Copy what there is, before anything trains.

        Raises:
            UsageError: the store cannot be written.
        """
        self.sync()
        self.wait()
        if self.trouble:
            raise UsageError(self.trouble)

    def tick(self, at_once: bool = False) -> None:
        """Start a copy in the background, if one is due and none is running."""
        if at_once:
            self._due = 0.0
        if self._store and time.monotonic() >= self._due and not (self._thread and self._thread.is_alive()):
            self.sync()

    def fetch(self, checkpoint: Path) -> None:
        """Bring a checkpoint that a trial on another node has copied to the store."""
        if self.uri and not (checkpoint / MANIFEST).is_file():
            name = checkpoint.relative_to(self.folder.resolve()).as_posix()
            store.Store(store.join(self.uri, name)).fetch(checkpoint)

    def close(self) -> str | None:
        """Copy what is left; return what could not be copied and why, or None."""
        if self._store is None:
            return None
        self.wait()
        self.sync()
        self.wait()
        return f"{self.trouble}; the run is whole in {self.folder}" if self.trouble else None

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def sync(self) -> None:
        """Start a copy of the run as it is now."""
        if self._store is None:
            return
        self._due = time.monotonic() + SYNC_S
        sealed = self._sealed()
        checkpoints = {
            path.relative_to(self.folder).as_posix()
            for trial in self._trials()
            for path in checkpoints_in(trial)
            if (path / MANIFEST).is_file()
        }
        self._thread = threading.Thread(
            target=self._copy, args=(self._store, checkpoints, sealed), name="rlkit-mirror", daemon=True
        )
        self._thread.start()

    def _trials(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]

    def _sealed(self) -> dict[str, bytes]:
        """Return run.json and what it has the sha256 of; a crash between two copies leaves a run that verifies."""
        state = {path.name: path.read_bytes() for path in seal.tune_state(self.folder)}
        for name, content in state.items():
            self._state.setdefault(name, set()).add(hashlib.sha256(content).hexdigest())
        allowed = {name: sorted(digests) for name, digests in self._state.items()}
        info = dataclasses.replace(self.info, tune_state=allowed)
        return {INFO: info.content().encode(), **state}

    def _copy(self, target: store.Store, checkpoints: set[str], sealed: Mapping[str, bytes]) -> None:
        try:
            if self._checkpoints is None:
                suffix = f"/{MANIFEST}"
                self._checkpoints = {
                    name.removesuffix(suffix) for name in target.listing() if name.endswith(suffix)
                }
            for name in sorted(checkpoints - self._checkpoints):
                self._copy_checkpoint(target, name)
            for name, path, stamp in self._changed(sealed):
                try:
                    target.put_file(name, path)
                except (UsageError, OSError):
                    if path.is_file():
                        raise
                    continue  # a callback took it away in the meantime
                self._sent[name] = stamp
            for name, content in sealed.items():
                target.put(name, content)
            for name in sorted(self._checkpoints - checkpoints):  # run.json names none of them any more
                target.remove_checkpoint(name)
                self._checkpoints.discard(name)
            for name, content in sealed.items():
                self._state[name] = {hashlib.sha256(content).hexdigest()}
            self._state.pop(INFO)
            self.trouble = None
        except (UsageError, CheckpointError, OSError) as error:
            self.trouble = str(error)

    def _copy_checkpoint(self, target: store.Store, name: str) -> None:
        assert self._checkpoints is not None
        try:
            target.put_checkpoint(name, self.folder / name)
        except (UsageError, OSError):
            if (self.folder / name / MANIFEST).is_file():
                raise
            target.remove_checkpoint(name)  # Tune deleted it in the meantime
            return
        self._checkpoints.add(name)

    def _changed(self, sealed: Mapping[str, bytes]) -> list[tuple[str, Path, Stamp]]:
        """Files of the run, its trials and the folders of their callbacks that differ from what was copied last."""
        found = []
        for path in _files(self.folder):
            try:
                name, status = path.relative_to(self.folder).as_posix(), path.stat()
            except FileNotFoundError:
                continue
            stamp = (status.st_size, status.st_mtime_ns)
            if name not in sealed and self._sent.get(name) != stamp:
                found.append((name, path, stamp))
        return found


def _files(folder: Path) -> Iterator[Path]:
    """What a run's folder holds beside checkpoints, which are copied as a whole. A name with a dot is half written."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and iteration_of(name) is None]
        for path in (Path(place, name) for name in names if not name.startswith(".") and name != lock.NAME):
            if path.is_file() and not path.is_symlink():
                yield path


class Away:
    """The store as a trial on another node than the driver's uses it: its checkpoints go there, and come from there."""

    def __init__(self, given: Mapping[str, Any], trial: Path):
        self.store = store.Store(store.join(given["uri"], trial.name))

    def send(self, checkpoint: Path) -> None:
        """Copy a finished checkpoint; here it is not needed any more."""
        self.store.put_checkpoint(checkpoint.name, checkpoint)
        shutil.rmtree(checkpoint, ignore_errors=True)

    def fetch(self, trial: Path) -> None:
        self.store.fetch(trial)


def destination(folder: Path) -> dict[str, Any] | None:
    """Return what a trial must know of the store: its URI, and the driver's node; None without one."""
    import ray

    uri = store.uri_of(folder)
    return {"uri": uri, "node": ray.get_runtime_context().get_node_id()} if uri else None


def away(given: Mapping[str, Any] | None, trial: Path | None) -> Away | None:
    """Return the store if this process is a trial's on another node than the driver's."""
    import ray

    if given is None or trial is None or given["node"] == ray.get_runtime_context().get_node_id():
        return None
    return Away(given, trial)
