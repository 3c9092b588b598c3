"""A disk that fills under a training, or becomes read-only while a checkpoint is written.

The disk is a small tmpfs in a mount namespace of its own, so that no other process sees it and nobody need be root:

    unshare --user --map-root-user --mount python tests/faults/disks.py PPO bytes 0.5

The kernel refuses to make a disk read-only while a file on it is open for writing, as run.lock is. So a second mount of
the disk lies above the first from the first checkpoint on, and that one becomes read-only: no file can be opened for
writing, made, renamed or deleted any more, but what was open before takes bytes as it did.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kills

KINDS = {
    "bytes": "without room for more bytes",
    "files": "without room for more files",
    "readonly": "that becomes read-only in a checkpoint write",
}
INTO_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
SPACE = {
    "bytes": "bytes free)",
    "files": "bytes free, but for no more files)",
    "readonly": "Read-only file system (",
}


def attempt(algorithm: str, kind: str, room: float) -> list[str]:
    """Train on a disk of its own until that gives out, then mend it and resume; what did not hold.

    Args:
        algorithm: whose recipe runs.
        kind: of `KINDS`.
        room: what still fits when the first checkpoint has been written: MB, or files; of no meaning for `readonly`.
    """
    command = [*INTO_A_NAMESPACE, sys.executable, __file__, algorithm, kind, str(room)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return [f"the attempt itself ended with {done.returncode}: {done.stderr[-400:]}"]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def possible() -> bool:
    """Whether this machine lets a user have a mount namespace."""
    try:
        return subprocess.run([*INTO_A_NAMESPACE, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def mount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)


def whole(run: Path) -> list[Path]:
    """The checkpoints that verify."""
    from rlkit.errors import CheckpointError
    from rlkit.runs import manifest

    found = []
    for checkpoint in sorted(run.glob("trial_*/checkpoint_*")):
        try:
            manifest.verify(checkpoint)
        except CheckpointError:
            continue
        found.append(checkpoint)
    return found


def problems(process: subprocess.Popen[str], place: Path, kind: str) -> list[str]:
    """What is wrong with how the training ended, and with what it left."""
    said, bad = process.communicate(timeout=180)[1], []
    if process.returncode != 1:
        bad.append(f"exit {process.returncode}, expected 1: {said[-300:]}")
    if str(place) not in said or "Traceback" in said:
        bad.append(f"stderr names no path below {place}, or is a traceback: {said[-300:]}")
    if SPACE[kind] not in said:
        bad.append(f"stderr does not say what is free: {said[-300:]}")
    runs = list(place.glob("*/*/run.json"))
    if not runs:
        return [*bad, f"no run was left: {said[-300:]}"]
    from rlkit import open_run

    status, expected = open_run(runs[0].parent).status, "interrupted" if kind == "readonly" else "failed"
    if status != expected:  # on a disk that is read-only, run.json stays as it was
        bad.append(f"the run is {status}, expected {expected}")
    if not whole(runs[0].parent):
        bad.append("no checkpoint verifies")
    return bad


def resumed(place: Path) -> list[str]:
    """Whether the run goes on once the disk is mended."""
    run = next(place.glob("*/*/run.json")).parent
    done = max((int(path.name[-6:]) for path in whole(run)), default=0)
    command = ["-m", "rlkit", "train", "--resume", str(run), f"stop.iterations={done + 40}"]
    ended = subprocess.run(
        [sys.executable, *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    if ended.returncode:
        return [f"--resume ended with {ended.returncode}: {ended.stderr[-300:]}"]
    column = [int(line.split(",")[1]) for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    return [] if column == list(range(1, column[-1] + 1)) else [f"iterations after --resume: {column}"]


def inside(algorithm: str, kind: str, room: float) -> list[str]:
    """`attempt`, within the namespace."""
    with tempfile.TemporaryDirectory(prefix="rlkit-disk-") as name:
        place = Path(name)
        mount(place, "size=128m")  # a run asks for 64 MB when it begins
        recipe = place / "recipe.json"
        recipe.write_text(json.dumps({**kills.recipe(algorithm), "checkpoint": {"every": 1, "keep": 10_000}}))
        process = subprocess.Popen(
            [sys.executable, "-m", "rlkit", "train", str(recipe), "--out", str(place)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            until = time.monotonic() + 120
            while not list(place.glob("*/*/trial_*/checkpoint_*/manifest.json")):
                if time.monotonic() > until or process.poll() is not None:
                    return [f"no checkpoint was written: {process.communicate(timeout=60)[1][-300:]}"]
                time.sleep(0.05)
            if kind == "readonly":
                protect(place)
                found = problems(process, place, kind)
                if not list(place.glob("*/*/trial_*/.writing_*")):
                    found.append("no checkpoint was being written")
                subprocess.run(["umount", str(place)], check=True)
            else:
                fill(place, kind, room)
                found = problems(process, place, kind)
                mount_again(place, "size=256m,nr_inodes=100k")
            return found or resumed(place)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            while os.path.ismount(place):
                subprocess.run(["umount", "--lazy", str(place)], check=True)


def protect(place: Path) -> None:
    """Make the disk read-only in the middle of a checkpoint write."""
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if any(any(folder.iterdir()) for folder in place.glob("*/*/trial_*/.writing_*")):
            with contextlib.suppress(subprocess.CalledProcessError):  # a file is open for writing
                mount_again(place, "bind,ro")
                return
    raise OSError(f"{place} could not be made read-only: no checkpoint was written in two minutes")


def fill(place: Path, kind: str, room: float) -> None:
    """Leave `room` on the disk: MB, or files. What is written meanwhile makes a smaller disk impossible: once more."""
    for _ in range(20):
        used = os.statvfs(place)
        bytes_taken, files_taken = (used.f_blocks - used.f_bfree) * used.f_frsize, used.f_files - used.f_ffree
        size = (
            f"size={bytes_taken + int(room * 2**20)}"
            if kind == "bytes"
            else f"nr_inodes={files_taken + int(room)}"
        )
        with contextlib.suppress(subprocess.CalledProcessError):
            mount_again(place, size)
            return
    raise OSError(f"{place} cannot be made smaller")


def mount_again(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


if __name__ == "__main__":
    print(json.dumps(inside(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
