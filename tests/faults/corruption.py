"""Every file of a checkpoint damaged in five ways, every folder deleted, manifest and signature altered: F6.

Unpickling anything is an error while this runs, so a checkpoint that is refused was refused before.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from rlkit.errors import CheckpointError
from rlkit.runs import manifest

Damage = Callable[[Path], None]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = random.Random(path.name).randrange(len(content))
    content[place] ^= 1 << random.Random(path.name).randrange(8)
    path.write_bytes(content)


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


FILES: tuple[Damage, ...] = (truncate, empty, zero, delete, flip)


def _edit(**changes: object) -> Damage:
    def edit(folder: Path) -> None:
        path = folder / manifest.NAME
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def _forge(folder: Path) -> None:
    """Alter a file and everything in the manifest that can be computed without the key."""
    path = folder / manifest.NAME
    values = json.loads(path.read_text())
    name = min(values["files"])
    (folder / name).write_bytes(b"forged")
    values["files"][name] = {"bytes": 6, "sha256": manifest.sha256(folder / name)}
    body = {key: value for key, value in values.items() if key not in ("checksum", "signature")}
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps({**values, "checksum": manifest.hashlib.sha256(text).hexdigest()}))


def _add(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes(pickle.dumps({}))  # type: ignore[return-value]


MANIFEST: dict[str, Damage] = {
    "iteration edited": _edit(iteration=10_000),
    "imports edited": _edit(imports=["os"]),
    "files edited": _edit(files={}),
    "checksum of another type": _edit(checksum=["\u00fc"]),
    "checksum edited": _edit(checksum="0" * 64),
    "signature gone": _edit(signature=None),
    "signature edited": _edit(signature={"key": "0" * 12, "hmac": "0" * 64}),
    "signature of another type": _edit(signature=[3]),
    "a file forged with its sha256": _forge,
    "a pickle added": _add("state.pkl"),
}


def damages(checkpoint: Path) -> Iterator[tuple[str, Path, Damage]]:
    """Yield what is damaged, its path below the checkpoint, and how."""
    for path in sorted(checkpoint.rglob("*")):
        place = path.relative_to(checkpoint)
        if path.is_dir():
            yield f"folder {place}: delete", place, delete
        elif path.stat().st_size and path.name not in manifest.HARMLESS_NAMES:
            for how in FILES:
                yield f"{place}: {how.__name__}", place, how
    for name, how in MANIFEST.items():
        yield f"manifest: {name}", Path(), how


class Unpickled(BaseException):
    """Nothing catches it on its way."""


@contextmanager
def nothing_is_unpickled() -> Iterator[None]:
    """Make every way to unpickle an error."""
    import torch
    from ray import cloudpickle

    refuse = mock.Mock(side_effect=Unpickled)
    with ExitStack() as stack:
        for place, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load"),
                            (cloudpickle, "load"), (cloudpickle, "loads")):  # fmt: skip
            stack.enter_context(mock.patch.object(place, name, refuse))
        yield


def resume_past(newest: Path) -> tuple[int, list[str]]:
    """Damage the newest checkpoint of a finished run and go on for an iteration.

    Returns:
        How many iterations were done again, and what is wrong.
    """
    import rlkit

    run = newest.parent.parent
    truncate(max(newest.rglob("*.pkl"), key=lambda path: path.stat().st_size))
    told = io.StringIO()
    last = int(rlkit.open_run(run).last_metrics["iteration"])
    with contextlib.redirect_stderr(told):
        again = rlkit.resume(run, [f"stop.iterations={last + 1}"], quiet=False)
    said = " ".join(told.getvalue().split())
    bad = [word for word in ("passing over", newest.name, "going on from checkpoint_") if word not in said]
    rows = [int(iteration) for iteration in again.metrics["iteration"]]
    if rows != list(range(1, last + 2)):
        bad.append(f"iterations {rows}")
    first = int(said.partition("going on from checkpoint_")[2].split()[0]) if not bad else 0
    return last - first, bad


def matrix(checkpoint: Path, work: Path, read: Callable[[Path], object]) -> tuple[int, list[str]]:
    """Damage copies of a checkpoint and read each.

    Args:
        read: must raise a CheckpointError.

    Returns:
        How many were tried, and what was accepted, or refused for another reason, or without the file's name.
    """
    bad = []
    every = list(damages(checkpoint))
    for what, place, how in every:
        copy = work / checkpoint.name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(checkpoint, copy)
        how(copy / place)
        try:
            with nothing_is_unpickled():
                read(copy)
            bad.append(f"{what}: accepted")
        except CheckpointError as error:
            if (place.name or copy.name) not in str(error):
                bad.append(f"{what}: does not name {place}: {error}")
        except Unpickled:
            bad.append(f"{what}: something was unpickled")
        except Exception as error:
            bad.append(f"{what}: {type(error).__name__}: {error}")
    return len(every), bad
