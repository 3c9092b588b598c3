"""Run folders in object storage: whatever pyarrow opens by a URI (`s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`).

Object storage can neither append to a file nor rename a folder, so a run keeps to a folder of this machine, its staging
folder, and is copied from there; what reads a run fetches it into the same place first.

    s3://bucket/runs/my/2026-01-01_00-00-00      <->  ~/.cache/rlkit/stores/s3/bucket/runs/my/2026-01-01_00-00-00

A checkpoint never changes once it is finished, and its manifest goes last and is removed first: half a checkpoint is
none, as in a folder. Nothing here unpickles anything; what was fetched is verified like any other folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rlkit.errors import CheckpointError, UsageError
from rlkit.runs import lock
from rlkit.runs.layout import INFO, MANIFEST

BUCKETS = ("s3", "gs", "gcs")  # a bucket's name has no colon
_URI = re.compile(r"([a-z][a-z0-9+.-]+):/+([^?]*)(\?.*)?", re.DOTALL)
_OUTLINE = re.compile(r"run\.json|metrics\.csv|trial_[^/]*/params\.json")
# s3: a small file is one request, not the three of a multipart upload; gs: pyarrow's own limit is 15 minutes
OPTIONS = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=20", "gcs": "retry_limit_seconds=20"}
PLAIN = "/=,+:@~!$&'()*;"  # as they are in a URI; a space and a per cent sign are not
CLOCK_S = 1.0  # stores keep whole seconds


def is_uri(place: object) -> bool:
    """Whether a path names object storage. `Path("s3://bucket")` has lost a slash and counts."""
    return _URI.fullmatch(str(place)) is not None


def stores() -> Path:
    """Where staging folders are: `$RLKIT_STORES`, or `rlkit/stores` in the user's cache folder."""
    given = os.environ.get("RLKIT_STORES")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return Path(os.path.abspath(os.path.expanduser(given or os.path.join(cache, "rlkit", "stores"))))


def staging(uri: str | Path) -> Path:
    """Return the folder of this machine that stands for a URI.

    Raises:
        UsageError: no bucket or folder, or `..` in it.
    """
    scheme, path, query = _split(uri)
    return stores().joinpath(urllib.parse.quote(f"{scheme}{query}", safe=""), *path.parts)


def uri_of(folder: str | Path) -> str | None:
    """Return the URI that a folder stands for; None for one that is nobody's staging folder."""
    root, here = stores(), Path(os.path.abspath(folder))
    if root not in here.parents or here.parent == root:
        return None
    first, *rest = here.relative_to(root).parts
    scheme, mark, query = urllib.parse.unquote(first).partition("?")
    return _written(scheme, "/".join(rest), mark + query)


def place_of(folder: str | Path) -> str:
    """Return how a person names a folder: its URI, or the path itself."""
    return uri_of(folder) or str(folder)


def _written(scheme: str, path: object, query: str) -> str:
    return (
        f"{scheme}{':///' if scheme == 'file' else '://'}{urllib.parse.quote(str(path), safe=PLAIN)}{query}"
    )


def _split(uri: str | Path) -> tuple[str, PurePosixPath, str]:
    found = _URI.fullmatch(str(uri))
    assert found is not None, uri
    path = PurePosixPath(urllib.parse.unquote(found[2]).strip("/"))
    if not path.parts or ".." in path.parts or "\0" in str(path):
        raise UsageError(f"{uri}: expected {found[1]}://BUCKET/FOLDER")
    authority = urllib.parse.unquote(found[2].partition("/")[0])
    keyed = re.search(":.*@", authority, re.DOTALL) or (":" in authority and found[1] in BUCKETS)
    if keyed or re.search("secret|password|token", found[3] or "", re.IGNORECASE):
        raise UsageError(
            f"{found[1]}://…: got a URI with a key in it, which run.json and messages would show; give keys by the "
            "environment, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return found[1], path, found[3] or ""


@dataclass(frozen=True)
class Found:
    """A file of a store: bytes, and seconds since 1970 when it was written."""

    size: int
    written: float


class Store:
    """A folder in object storage.

    Args:
        uri: of the folder; `?endpoint_override=HOST:PORT&scheme=http` and the like are pyarrow's.

    Raises:
        UsageError: pyarrow cannot open it; says why.
    """

    def __init__(self, uri: str | Path):
        from pyarrow import fs  # 0.1 s, and only runs in object storage need it

        scheme, path, query = _split(uri)
        self.uri = _written(scheme, path, query)
        option = OPTIONS.get(scheme, "")
        asked = f"{query}{'&' if query else '?'}{option}" if option.partition("=")[0] not in query else query
        with self._telling("open"):
            self._files, self._root = fs.FileSystem.from_uri(_written(scheme, path, asked))
        self._flat = scheme != "file"  # folders exist by what lies in them

    def listing(self, below: str = "") -> dict[str, Found]:
        """Return every file below a folder, by its path from this one; {} where there is nothing."""
        from pyarrow import fs

        if not self._flat:
            return self._local(below)
        place = fs.FileSelector(self._path(below), recursive=True, allow_not_found=True)
        found = {}
        with self._telling("read"):
            for entry in self._files.get_file_info(place):
                relative = entry.path[len(self._root) :].strip("/")
                if entry.type == fs.FileType.File:
                    found[relative] = Found(entry.size, entry.mtime_ns / 1e9 if entry.mtime_ns else 0.0)
        return found

    def _local(self, below: str) -> dict[str, Found]:
        """`listing` of `file://`: pyarrow (26) follows links, round in circles too."""
        found = {}
        with self._telling("read"):
            for root, _, files in os.walk(self._path(below)):
                for name in files:
                    path = os.path.join(root, name)
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode):
                        relative = os.path.relpath(path, self._root)
                        relative.encode()  # pyarrow's paths are UTF-8
                        found[relative] = Found(status.st_size, status.st_mtime)
        return found

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        from pyarrow import fs

        with self._telling("read"):
            return bool(self._files.get_file_info(self._path(name)).type == fs.FileType.File)

    def put(self, name: str, content: bytes) -> None:
        """Write one file; a reader sees the old content or the new one."""
        with self._writing(name) as file:
            file.write(content)

    def put_file(self, name: str, path: Path) -> None:
        """Copy a file of this machine."""
        with self._writing(name) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)

    @contextmanager
    def _writing(self, name: str) -> Iterator[Any]:
        with self._telling("write"):
            path = self._path(name)
            if not self._flat:
                self._files.create_dir(path.rpartition("/")[0], recursive=True)
            with self._files.open_output_stream(path) as file:
                yield file

    def put_checkpoint(self, name: str, folder: Path) -> None:
        """Copy a finished checkpoint, its manifest last."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: path == folder / MANIFEST):
            self.put_file(f"{name}/{path.relative_to(folder).as_posix()}", path)
        for relative, file in self.listing(name).items():  # so that nobody fetches it again
            with contextlib.suppress(OSError):
                os.utime(folder / relative[len(name) + 1 :], (file.written, file.written))

    def remove_checkpoint(self, name: str) -> None:
        """Remove a checkpoint, its manifest first."""
        with self._telling("write"):
            files = self.listing(name)
            for relative in sorted(files, key=lambda relative: relative != f"{name}/{MANIFEST}"):
                self._files.delete_file(self._path(relative))
            if not self._flat:
                self._files.delete_dir(self._path(name))

    def fetch(self, folder: Path, found: Mapping[str, Found] | None = None) -> None:
        """Bring `folder` up to date: files that it lacks, or that are newer in the store.

        Args:
            found: of `listing`, the files that are wanted; all of them if None.

        Raises:
            UsageError: the store cannot be read, or there is nothing.
            CheckpointError: a name in the store leads out of the folder.
        """
        found = self.listing() if found is None else found
        if not found:
            raise UsageError(f"no such run, trial or checkpoint: {self.uri}")
        for relative, file in sorted(found.items(), key=lambda item: item[0].endswith(MANIFEST)):
            target = self._inside(folder, relative)
            if target.is_file():
                mine = target.stat()
                if mine.st_mtime >= file.written - CLOCK_S and (
                    mine.st_size == file.size or mine.st_mtime > file.written + CLOCK_S
                ):
                    continue
            self._fetch_file(relative, target, file.written)

    def _fetch_file(self, relative: str, target: Path, written: float) -> None:
        with self._telling("read"):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".fetching_", dir=target.parent)
            try:
                with (
                    os.fdopen(handle, "wb") as file,
                    self._files.open_input_stream(self._path(relative)) as source,
                ):
                    shutil.copyfileobj(source, file, 1 << 20)
                os.utime(temporary, (written, written))
                os.replace(temporary, target)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _inside(self, folder: Path, relative: str) -> Path:
        parts = relative.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise CheckpointError(f"{self.uri} holds {relative!r}, expected names inside the run folder")
        return folder.joinpath(*parts)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Name the store in whatever pyarrow says."""
        from pyarrow import ArrowException

        try:
            yield
        except (UsageError, CheckpointError):
            raise
        except (OSError, ValueError, NotImplementedError, ArrowException) as error:
            raise UsageError(f"cannot {what} {self.uri}: {_short(error)}") from error


def _short(error: Any) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def join(uri: str, name: str) -> str:
    """Return the URI of something in a folder; `name` is its path there, as in `Store.listing`."""
    place, mark, query = uri.partition("?")
    return f"{place.rstrip('/')}/{urllib.parse.quote(name, safe=PLAIN)}{mark}{query}"


def fetched(uri: str | Path) -> Path:
    """Return the staging folder of a URI: a run, something in one, or a folder of runs, of which the newest comes.

    A staging folder that a process of this machine writes is the newest there is, and left alone.

    Raises:
        UsageError: the store cannot be read, or there is no run.
    """
    place = Store(uri).uri  # two slashes again
    base, mark, query = place.partition("?")
    for above in range(3):  # a checkpoint lies in a trial, a trial in a run
        root = base.rsplit("/", above)[0]
        if not PurePosixPath(root.partition(":")[2]).parts[1:]:
            break
        run = Store(root + mark + query)
        try:
            found = run.has(INFO)
        except UsageError:
            if above == 0:
                raise
            found = False  # a user of one folder may not see those above it
        if found:
            _update(run)
            return staging(place)
    store = Store(uri)
    runs = [name for name in store.listing() if name.endswith(f"/{INFO}") and name.count("/") == 1]
    if not runs:
        raise UsageError(f"no such run, trial or checkpoint: {store.uri}")
    folders = [name.removesuffix(f"/{INFO}") for name in runs]
    newest = max(folders, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    _update(Store(join(store.uri, newest)))
    return staging(join(store.uri, newest))


def outlines(uri: str | Path) -> dict[Path, int]:
    """Bring what a list of runs shows of each one at and below a URI; return staging folder -> bytes in the store.

    Raises:
        UsageError: the store cannot be read, or there is nothing.
    """
    store = Store(uri)
    found = store.listing()
    if not found:
        raise UsageError(f"no such folder: {store.uri}")
    runs: dict[str, dict[str, Found]] = {}
    for name in sorted((n for n in found if f"/{n}".endswith(f"/{INFO}")), key=lambda n: n.count("/")):
        root = name[: -len(INFO)]  # "" or with a slash behind it
        if not any(root.startswith(outer) for outer in runs):
            runs[root] = {n[len(root) :]: file for n, file in found.items() if n.startswith(root)}
    sizes = {}
    for root, files in runs.items():
        run = Store(join(store.uri, root.rstrip("/"))) if root else store
        folder = staging(run.uri)
        if lock.holder(folder) is None:
            run.fetch(folder, {n: file for n, file in files.items() if _OUTLINE.fullmatch(n)})
        sizes[folder] = sum(file.size for file in files.values())
    return sizes


def _update(run: Store) -> None:
    folder = staging(run.uri)
    if lock.holder(folder) is None:
        run.fetch(folder)
