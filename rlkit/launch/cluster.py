"""Which Ray a run uses: one of its own that listens on loopback alone, or the cluster that was named.

Ray 2.60 joins whatever RAY_ADDRESS or the address file of the last `ray start` names unless it is told not to. It turns
token authentication on for new clusters but never for an address that was given, and retries a dead one for minutes.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rlkit
from rlkit import registry, rllib
from rlkit.errors import UsageError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
REACH_S = 10.0  # to open a connection to a cluster
ANSWER_S = 2.0  # the same, to one that has been joined
JOIN_S = 30.0  # to join it; Ray itself gives up after 20 s where it is refused


def token_source() -> str | None:
    """Return where Ray finds this user's token: a variable or a file; None where there is none."""
    if os.environ.get(TOKEN):
        return f"the variable {TOKEN}"
    named = os.environ.get(TOKEN_PATH)
    path = Path(named) if named else _home_token()
    return str(path) if path is not None and path.is_file() else None


def _home_token() -> Path | None:
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # no home at all
        return None


def prepare_embedded() -> None:
    """Give embedded Ray a token where it cannot make its own: it writes one into the home, which may be read-only."""
    if os.environ.get(MODE, "token").lower() != "token" or token_source() is not None:
        return
    path = _home_token()
    try:
        if path is None:
            raise OSError("no home")
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.access(path.parent, os.W_OK):
            return
    except OSError:
        pass
    os.environ[TOKEN] = secrets.token_hex(32)


def prepare_to_join(address: str) -> None:
    """Check that something listens at a cluster's address, and use the token that lies in the user's home.

    A cluster without authentication takes a client with a token.

    Raises:
        UsageError: the address is no `HOST:PORT`, or nobody answers there.
    """
    if address != "auto":
        host, port = _parsed(address)
        try:
            socket.create_connection((host, port), timeout=REACH_S).close()
        except OSError as error:
            raise UsageError(
                f"--address {address}: nothing answers there ({error}); start a cluster with `ray start --head`, "
                "name its GCS address, or leave --address out to run embedded; a run that names a cluster goes "
                "on embedded with --resume RUN --address local"
            ) from None
    rllib.send_token()


def answers(address: str) -> bool:
    """Whether something listens at `HOST:PORT`, and soon says so."""
    try:
        socket.create_connection(_parsed(address), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


def code_to_send(imports: Sequence[str]) -> dict[str, Any]:
    """Return Ray's `runtime_env` that brings a cluster's nodes rlkit and the imported modules as they are here.

    Args:
        imports: modules given with `--import`: paths of `.py` files and dotted names. Of a dotted name the top-level
            package goes along, unless it is installed: then it has to be installed on the nodes too.
    """
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    found = [Path(rlkit.__file__).parent]
    for name in imports:
        module = sys.modules[registry.module_name(name).partition(".")[0]]
        path = Path(module.__file__ or "") if module.__file__ else Path(next(iter(module.__path__)))
        path = path.parent if path.name == "__init__.py" else path
        if path not in found and not installed & set(path.parents):
            found.append(path)
    return {"py_modules": [str(path) for path in found], "excludes": ["**/__pycache__/**"]}


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        fix = (
            "leave --address out to run embedded"
            if address == "local"
            else "write HOST:PORT, such as 10.0.0.5:6379"
        )
        raise UsageError(f"--address {address}: expected HOST:PORT of a cluster's GCS, or auto; {fix}")
    return host.strip("[]"), int(port)


def refused(address: str, error: object) -> str:
    """Return the message for a cluster that listens and does not let us in, or is no Ray cluster."""
    source, mode = token_source(), os.environ.get(MODE)
    if mode is not None and mode.lower() != "token":
        held = f"{MODE} is {mode!r}, so no token was sent"
    elif source is None:
        held = "no token was found"
    else:
        held = f"the token of {source} was sent"
    return (
        f"--address {address}: {error}. Either no GCS of Ray listens there, or it wants another token: {held}. Put the "
        f"cluster's token (on its head: `ray get-auth-token`) into {TOKEN}, or its file's path into {TOKEN_PATH} "
        "(default: ~/.ray/auth_token)"
    )
