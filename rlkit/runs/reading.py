"""Reading the files of a run folder, whoever wrote it: nothing hangs, nothing is taken for what it is not.

A run folder may come from a stranger, or from a broken disk. Every file in it is opened here: it must be a regular
file, not a link, a pipe or a device, of a size that its kind can have; JSON must have the types its reader expects.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from rlkit.errors import CheckpointError, printable

T = TypeVar("T")

LARGEST = 16 << 20  # bytes of run.json, manifest.json, params.json
LARGEST_TABLE = 512 << 20  # bytes of metrics.csv
DEEPEST = 64  # levels of JSON
KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a pipe"))


def open_regular(path: Path, limit: int = LARGEST) -> BinaryIO:
    """Open a file for reading.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: a folder, link, pipe, device or socket; a file larger than `limit` bytes, or unreadable.
    """
    try:
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):  # opening a pipe or device could wait, or do something
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and found.st_size <= limit:
                return os.fdopen(handle, "rb")
            os.close(handle)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a NUL byte or a lone surrogate in the path
        raise CheckpointError(f"{shown(path)}: cannot be read ({error})") from None
    if stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{shown(path)}: {found.st_size:,} bytes, expected at most {limit:,}")
    kind = next((name for is_kind, name in KINDS if is_kind(found.st_mode)), "a device or socket")
    raise CheckpointError(f"{shown(path)}: got {kind}, expected a regular file")


def read_bytes(path: Path, limit: int = LARGEST) -> bytes:
    """Return the content of a file; see `open_regular`."""
    with open_regular(path, limit) as file:
        return file.read()


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        FileNotFoundError: there is no file.
        CheckpointError: see `open_regular`; no JSON, no object, or nested deeper than `DEEPEST`.
    """
    return parse_object(read_bytes(path), str(path))


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in a text; see `read_object`."""
    where = printable(where)
    try:
        values = json.loads(text)
    except RecursionError:
        raise CheckpointError(f"{where}: damaged, nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        raise CheckpointError(f"{where}: damaged, not JSON ({printable(error)[:200]})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: damaged, got {_kind(values)}, expected an object")
    level: list[Any] = [values]
    for _ in range(DEEPEST):
        level = [item for value in level for item in _members(value)]
    if level:
        raise CheckpointError(f"{where}: damaged, nested deeper than {DEEPEST} levels")
    return values


def typed(kind: type[T], values: Mapping[str, Any], where: str | Path) -> T:
    """Return values as an instance of a dataclass; keys it does not have are left out.

    Raises:
        CheckpointError: a value is missing or of another type; names the key, got and expected.
    """
    from pydantic import ValidationError

    try:
        # as JSON: in strict mode pydantic takes an object for a dataclass there alone
        read: T = _adapter(kind).validate_json(json.dumps(values), strict=True)  # type: ignore[arg-type]
        return read
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        got = "" if first["type"] == "missing" else f", got {_kind(first['input'])}"
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise CheckpointError(f"{shown(where)}: {printable(place)[:80]}: {message}{got}") from None


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def shown(path: object) -> str:
    """Return a path for a message, without control characters."""
    return printable(path)[-300:]


def _members(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "a bool",
        int: "a number",
        float: "a number",
    }
    name = names.get(type(value), "null")
    return name if isinstance(value, dict | list | None) else f"{name} {printable(repr(value))[:60]}"
