"""A disk that fills under a training: no bytes are left, or no more files may be made.

The disk is a small tmpfs in a mount namespace of its own, so that no other process sees it and nobody need be root:

    unshare --user --map-root-user --mount python tests/faults/disks.py PPO bytes 0.5
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

KINDS = ("bytes", "files")
INTO_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
SPACE = {"bytes": "bytes free)", "files": "bytes free, but for no more files)"}


def attempt(algorithm: str, kind: str, room: float) -> list[str]:
    """Train on a disk of its own until that gives out, then mend it and resume; what did not hold.

    Args:
        algorithm: whose recipe runs.
        kind: `bytes` or `files`.
        room: what still fits when the first checkpoint has been written: MB, or files.
    """
    command = [*INTO_A_NAMESPACE, sys.executable, __file__, algorithm, kind, str(room)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return [f"the attempt itself ended with {done.returncode}: {done.stderr[-400:]}"]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


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
    status = json.loads(runs[0].read_text())["status"]
    if status != "failed":
        bad.append(f"run.json says {status}, expected failed")
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
            fill(place, kind, room)
            found = problems(process, place, kind)
            mount_again(place, "size=256m,nr_inodes=100k")
            return found or resumed(place)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            subprocess.run(["umount", "--lazy", str(place)], check=True)


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
