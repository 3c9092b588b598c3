"""Who is writing a run folder: a lock that ends with the process that holds it, however that ends.

The lock is `flock` on `run.lock` in the run folder, and the file says who holds it. The kernel drops it when the holder
dies. NFS passes it on to other machines; where a file system has no locks, a living process of this machine that the
file names counts as the holder. Reading a run needs no lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlkit.errors import CheckpointError, UsageError, printable
from rlkit.runs.reading import read_bytes

NAME = "run.lock"
SPARE_BYTES = 64 << 10  # of the lock file: room for run.json where the disk is full
PATIENCE_S = 1.0  # someone who only looks whether a run is locked holds the lock for a moment
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def hold(folder: str | Path, why: str) -> Iterator[None]:
    """Keep everybody else from writing into a run folder.

    Args:
        folder: of the run.
        why: what the caller wants to do; begins the message: `--resume`.

    Raises:
        UsageError: another process holds the lock; names it.
    """
    path = Path(folder) / NAME
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise UsageError(f"{why}: cannot write {path}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UsageError(
                f"{why}: cannot write {path}: got a pipe or device, expected a regular file; remove it"
            )
        deadline = time.monotonic() + PATIENCE_S
        while not _take(handle, fcntl.LOCK_EX, path):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"{why}: {folder} is in use by {_holder(path)}; wait for its end, or stop it"
                )
            time.sleep(0.05)
        said = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        text = json.dumps(said).encode() + b"\n"
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.ljust(SPARE_BYTES), 0)
        yield
    finally:
        os.close(handle)


def give_space(folder: str | Path) -> None:
    """Free the bytes that the lock file keeps, so that the holder can write run.json on a full disk."""
    with contextlib.suppress(OSError):
        os.truncate(Path(folder) / NAME, 200)


def holder(folder: str | Path) -> str | None:
    """Say who writes a run folder now; None if nobody does."""
    path = Path(folder) / NAME
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return None if _take(handle, fcntl.LOCK_SH, path) else _holder(path)
    finally:
        os.close(handle)


def _take(handle: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        said = _said(path)
        pid = said.get("pid")
        mine = said.get("host") == socket.gethostname() and pid != os.getpid()
        return not (mine and isinstance(pid, int) and alive(pid))
    return True


def _said(path: Path) -> dict[str, object]:
    try:
        said = json.loads(read_bytes(path))
    except (CheckpointError, OSError, ValueError, RecursionError):
        return {}  # the holder is writing it
    return said if isinstance(said, dict) else {}


def _holder(path: Path) -> str:
    said = _said(path)
    if not {"pid", "host", "since"} <= set(said):
        return "another process"
    return printable(f"process {said['pid']} on {said['host']}, since {said['since']}")[:200]


def alive(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
