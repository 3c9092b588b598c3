"""What a checkpoint folder must contain, and who wrote it: checked before anything in it is unpickled.

RLlib's checkpoints hold Python pickles, so reading one runs whatever code is in it, and RLlib itself notices
little: without `rl_module/` it restores random weights, a truncated file ends in an UnpicklingError. `write`
puts a `manifest.json` into a finished checkpoint: size and sha256 of every file, versions, the recipe, and a
signature made with a key that only this user can read. `verify` refuses a folder that differs from it.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlkit.errors import CheckpointError, printable
from rlkit.files import regular_size, sha256, write_atomic
from rlkit.runs import signing
from rlkit.runs.layout import MANIFEST as NAME
from rlkit.runs.layout import checkpoints_in, versions
from rlkit.runs.reading import read_object, typed

FORMAT = 1
RLLIB_MARKS = (
    "rllib_checkpoint.json",
    "algorithm_state.pkl",
    "algorithm_state.msgpack",
    "class_and_ctor_args.pkl",
)
# Files that nothing reads back may lie in a checkpoint: Tune's note, and what a person leaves there.
HARMLESS = frozenset(
    {".csv", ".gif", ".html", ".jpg", ".log", ".md", ".mp4", ".onnx", ".png", ".svg", ".txt", ".yaml"}
)
HARMLESS_NAMES = frozenset({".metadata.json", ".DS_Store"})

FORCE = ", or try anyway with --force (Python: force=True)"
TRUST = (
    "Loading a checkpoint runs the code inside it (RLlib stores Python pickles), with all your rights. If "
    "you trust whoever wrote this one, repeat with --trust (Python: trust=True)"
)


@dataclass(frozen=True)
class File:
    """What a file of the checkpoint must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a verified checkpoint says about itself.

    `recipe` is None for a plain RLlib checkpoint, which has no manifest. `env_steps` counts sampled steps.
    """

    path: Path
    recipe: dict[str, Any] | None = None
    imports: list[str] = field(default_factory=list)
    iteration: int = 0
    env_steps: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    files: dict[str, File] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    signed: bool = False


def is_checkpoint(folder: str | Path) -> bool:
    """Whether a folder is a checkpoint itself, rlkit's or RLlib's, rather than a run or a trial."""
    return any(Path(folder, mark).exists() for mark in (NAME, *RLLIB_MARKS))


def write(
    folder: str | Path,
    *,
    recipe: Mapping[str, Any],
    imports: Sequence[str] = (),
    iteration: int,
    env_steps: int,
    extra: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write the manifest of a finished checkpoint, as its last file.

    Args:
        folder: the checkpoint, complete.
        recipe: `Recipe.to_dict()`, JSON-able; environment and policies are rebuilt from it.
        imports: modules to import before the checkpoint can be read (`--import`).
        iteration: training iterations done.
        env_steps: environment steps sampled.
        extra: anything JSON-able to hand back with `verify`.

    Raises:
        CheckpointError: the folder cannot be read or written; names the file and the bytes needed.
    """
    folder = Path(folder)
    try:
        entries = [(relative, entry) for relative, entry in _walk(folder) if relative != NAME]
        body = {
            "format": FORMAT,
            "versions": versions(),
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "iteration": int(iteration),
            "env_steps": int(env_steps),
            "imports": list(imports),
            "recipe": dict(recipe),
            "extra": dict(extra or {}),
            "folders": [relative for relative, entry in entries if entry.is_dir()],
            "files": {
                relative: {"bytes": entry.stat().st_size, "sha256": sha256(entry.path)}
                for relative, entry in entries
                if not entry.is_dir()
            },
        }
        body = json.loads(json.dumps(body, default=_plain))
        text = _canonical(body)
        seal = {"checksum": hashlib.sha256(text).hexdigest(), "signature": signing.stamp(text)}
        write_atomic(folder / NAME, json.dumps({**body, **seal}))  # `indent` would take ten times as long
    except OSError as error:
        raise CheckpointError(cannot_write(error, folder / NAME)) from error
    values = {name: body[name] for name in Manifest.__dataclass_fields__ if name in body}
    values["files"] = {name: File(**is_) for name, is_ in body["files"].items()}
    return Manifest(path=folder, signed=seal["signature"] is not None, **values)


def verify(folder: str | Path, *, trust: bool = False, force: bool | None = None) -> Manifest:
    """Check a checkpoint before anything in it is unpickled.

    Args:
        folder: a checkpoint folder.
        trust: accept a checkpoint that this user did not sign, and a plain RLlib one without a manifest. A
            folder that differs from its manifest is refused all the same.
        force: go on with another version of ray, Python or rlkit's checkpoint format; None where the caller has no
            such option, which the message then does not suggest.

    Raises:
        CheckpointError: names the file that is missing, truncated, changed or unknown; or who signed the
            checkpoint; or the two versions.
    """
    folder = Path(folder)
    path = folder / NAME
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    if not path.exists():
        return _without_manifest(folder, trust)
    body, seal = _read(path)
    if not force:
        _check_format(path, body, forcible=force is not None)
    text = _canonical(body)
    if not hmac.compare_digest(
        str(seal["checksum"]).encode("utf-8", "replace"), hashlib.sha256(text).hexdigest().encode()
    ):
        raise CheckpointError(f"{path}: damaged or edited, it does not match its own checksum")
    signed = _check_signature(path, text, seal["signature"], trust)
    manifest = _manifest(folder, body, signed)
    _check_files(manifest)
    if not force:
        _check_versions(manifest, forcible=force is not None)
    return manifest


def latest_good(
    folder: str | Path, *, trust: bool = False, force: bool | None = None
) -> tuple[Manifest | None, list[tuple[Path, str]]]:
    """Return the newest checkpoint in a trial folder that verifies, and what was passed over, with reasons.

    Checkpoints are the sub-folders named `checkpoint_<number>`; the largest number is the newest.
    """
    skipped: list[tuple[Path, str]] = []
    for path in reversed(checkpoints_in(folder)):
        try:
            return verify(path, trust=trust, force=force), skipped
        except CheckpointError as error:
            skipped.append((path, str(error)))
    return None, skipped


def _without_manifest(folder: Path, trust: bool) -> Manifest:
    if not is_checkpoint(folder):
        raise CheckpointError(
            f"{folder} is not a checkpoint: it has neither {NAME} (rlkit) nor rllib_checkpoint.json (RLlib)"
        )
    if not trust:
        raise CheckpointError(
            f"{folder} has no {NAME}: it is a plain RLlib checkpoint or an unfinished one, and nothing in it "
            f"can be verified. {TRUST}; to evaluate it, also name its environment (--env, Python: env=...) "
            "unless that is a Gymnasium id"
        )
    return Manifest(path=folder)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest's content, and its checksum and signature apart."""
    body = read_object(path)
    return body, {key: body.pop(key, None) for key in ("checksum", "signature")}


def _check_signature(path: Path, text: bytes, signature: Any, trust: bool) -> bool:
    """Return whether this user signed the text; raise if not, unless trusted."""
    if signing.is_own(text, signature):
        return True
    if signing.names_own_key(signature):
        raise CheckpointError(f"{path}: damaged or forged, it names your signing key with a wrong signature")
    if trust:
        return False
    raise CheckpointError(f"{path.parent} {signing.whose(signature)}. {TRUST}")


def _check_files(manifest: Manifest) -> None:
    """Compare the folder with its manifest: same folders, same files, same sizes, same bytes."""
    folder = manifest.path
    for relative in manifest.folders:
        if not (folder / _inside(relative)).is_dir():
            raise CheckpointError(f"{folder / relative}: this folder of the checkpoint is missing")
    for relative, expected in manifest.files.items():
        path = folder / _inside(relative)
        size = regular_size(path, "checkpoint")
        if size != expected.bytes:
            raise CheckpointError(
                f"{path}: damaged, {size} bytes instead of {expected.bytes} (truncated, or not "
                "copied completely)"
            )
    try:
        entries = list(_walk(folder))
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read ({_reason(error)})") from error
    for relative, entry in entries:
        known = relative == NAME or relative in manifest.files or entry.is_dir()
        harmless = Path(relative).suffix.lower() in HARMLESS or entry.name in HARMLESS_NAMES
        if entry.is_symlink() or not (known or harmless):
            raise CheckpointError(f"{entry.path}: not in {NAME}, and it may be read as code; remove it")
    for relative, expected in manifest.files.items():
        try:
            found = sha256(os.path.join(folder, relative))
        except OSError as error:
            raise CheckpointError(f"{folder / relative}: cannot be read ({_reason(error)})") from error
        if found != expected.sha256:
            raise CheckpointError(f"{folder / relative}: damaged or edited, its sha256 is not the manifest's")


def _check_format(path: Path, body: Mapping[str, Any], forcible: bool) -> None:
    if body.get("format") != FORMAT:
        then = body.get("versions") if isinstance(body.get("versions"), dict) else {}
        raise CheckpointError(
            f"{path} has checkpoint format {body.get('format')} of rlkit {(then or {}).get('rlkit')}, this "
            f"is rlkit {versions()['rlkit']} with format {FORMAT}; use that version{FORCE * forcible}"
        )


def _check_versions(manifest: Manifest, forcible: bool) -> None:
    here = versions()
    for name in ("python", "ray"):
        then = manifest.versions.get(name, "unknown")
        if _minor(then) != _minor(here[name]):
            raise CheckpointError(
                f"{manifest.path} was written with {name} {then}, this is {name} {here[name]}; use that "
                f"version{FORCE * forcible}"
            )


def _manifest(folder: Path, body: Mapping[str, Any], signed: bool) -> Manifest:
    missing = [name for name in Manifest.__dataclass_fields__ if name not in (*body, "path", "signed")]
    if missing:
        raise CheckpointError(f"{folder / NAME}: incomplete, it lacks {', '.join(missing)}")
    found = typed(Manifest, {**body, "path": "", "signed": signed}, folder / NAME)
    return dataclasses.replace(found, path=folder)


def _inside(relative: str) -> str:
    parts = Path(relative).parts
    if not parts or Path(relative).is_absolute() or ".." in parts or "\0" in relative:
        raise CheckpointError(f"{NAME} names {printable(relative)!r}, which is outside the checkpoint")
    return relative


def _walk(folder: str | Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file and folder below with its path from `folder` on, links not followed.

    Raises:
        OSError: a folder cannot be read.
    """
    waiting = [(os.fspath(folder), "")]
    for place, above in waiting:
        with os.scandir(place) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            yield above + entry.name, entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{above}{entry.name}/"))


def _minor(version: str) -> str:
    found = re.match(r"\d+\.\d+", version)
    return found.group() if found else version


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """Return a numpy scalar or array as Python values, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"the manifest cannot hold a {type(value).__name__}: {value!r}")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def takes_files(folder: Path) -> bool:
    """Whether a folder's disk has an inode for one more file; some file systems do not count them."""
    status = os.statvfs(folder)
    return not status.f_files or status.f_favail > 0


def free_space(folder: Path) -> str:
    """Return what is free on a folder's disk: bytes and, when it takes no more files, that.

    Raises:
        OSError: nobody can say.
    """
    status = os.statvfs(folder)
    files = "" if takes_files(folder) else ", but for no more files"
    return f"{status.f_bavail * status.f_frsize:,} bytes free{files}"


def cannot_write(error: OSError, path: Path) -> str:
    """Return what a failed write says: the path, the reason, the bytes already there, and those that are free."""
    folder = path if path.is_dir() else path.parent
    try:
        there = sum(entry.stat().st_size for _, entry in _walk(folder) if entry.is_file())
        space = f" ({there:,} bytes needed so far, {free_space(folder)})"
    except OSError:
        space = ""
    named = str(error.filename or "")
    where = path if Path(named).name.startswith(".writing_") else named or path
    return f"cannot write {where}: {_reason(error)}{space}"
