"""Writing so that a reader, or a crash, sees the old content or the new one, never a part; what a file holds."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from pathlib import Path

from rlkit.errors import CheckpointError

FOLDERS = 'no < > : " / \\ | ?, no space or dot at the end, not empty'
# checkpoints name folders after policies; RLlib 2.60 refuses such modules
NO_FOLDER = re.compile(r'[<>:"/\\|?]|[ .]$|^$')


class Pending:
    """A file on its way: written to `temporary`, beside its place; `finish` puts it there, `discard` drops it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.temporary = self.path.with_name(f".writing_{os.getpid()}_{self.path.name}")

    def finish(self) -> None:
        """Flush the file and its name to the disk."""
        _flush(self.temporary)
        os.replace(self.temporary, self.path)
        _flush(self.path.parent)

    def discard(self) -> None:
        self.temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file as a whole; a link or a pipe of that name is replaced, not written through."""
    pending = Pending(path)
    try:
        pending.discard()  # of a process that died, or a stranger's link
        with open(pending.temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        pending.finish()
    finally:
        pending.discard()


def swap_folder(new: Path, final: Path) -> None:
    """Rename a finished folder to its place; what stood there goes only when the new one is there."""
    old = final.with_name(f".replaced_{final.name}")
    if final.exists() and not final.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder, so it is not replaced by one", str(final))
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def regular_size(path: Path, owner: str) -> int:
    """Return the size in bytes of a file that is no link.

    Args:
        path: the file.
        owner: what it is part of, for the message: `bundle`, `checkpoint`.

    Raises:
        CheckpointError: it is missing, or a link, a folder, a pipe, a device.
    """
    try:
        status = path.lstat()
    except OSError:
        raise CheckpointError(f"{path}: this file of the {owner} is missing") from None
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: expected a regular file, got a link or something else")
    return status.st_size


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, as hex."""
    digest, block = hashlib.sha256(), bytearray(1 << 18)  # what the processor's cache holds
    view = memoryview(block)
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(view[:size])
    return digest.hexdigest()
