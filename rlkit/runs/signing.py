"""The key that says a checkpoint or run was written by this user: 32 random bytes that nobody else can read."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from rlkit.errors import CheckpointError

KEY_BYTES = 32


def key_path() -> Path:
    """Where the key is kept: `$RLKIT_KEY`, or `rlkit/signing.key` in the user's config folder."""
    given = os.environ.get("RLKIT_KEY")
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join("~", ".config")
    return Path(os.path.expanduser(given or os.path.join(folder, "rlkit", "signing.key")))


def read_key() -> bytes | None:
    """Return the user's key, or None if there is none.

    Raises:
        CheckpointError: others may read the key, so a signature would prove nothing.
    """
    path = key_path()
    try:
        status, key = path.stat(), path.read_bytes()
    except OSError:
        return None
    if status.st_mode & 0o077 or status.st_uid != os.getuid():
        raise CheckpointError(
            f"{path}: your signing key can be read by others, or is not yours; run chmod 600 {path}"
        )
    return key if len(key) == KEY_BYTES else None


def make_key() -> bytes | None:
    """Return the user's key, created on first use; None where it cannot be kept (a read-only home)."""
    path = key_path()
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _create(path)
        return read_key()
    except (OSError, CheckpointError):
        return None


def key_id(key: bytes) -> str:
    """Return the name a key goes by in manifests and messages; it does not reveal the key."""
    return hashlib.sha256(b"rlkit key " + key).hexdigest()[:12]


def sign(key: bytes, text: bytes) -> str:
    """Return the HMAC-SHA256 of a text, as hex."""
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def stamp(text: bytes) -> dict[str, str] | None:
    """Return what goes beside a text to say that this user wrote it; None where no key can be kept."""
    key = make_key()
    return {"key": key_id(key), "hmac": sign(key, text)} if key is not None else None


def names_own_key(signature: Any) -> bool:
    """Whether a `stamp` claims to be made with this user's key."""
    key = read_key()
    return key is not None and isinstance(signature, dict) and signature.get("key") == key_id(key)


def is_own(text: bytes, signature: Any) -> bool:
    """Whether a `stamp` was made with this user's key for this text."""
    key = read_key()
    if key is None or not names_own_key(signature):
        return False
    return hmac.compare_digest(
        str(signature.get("hmac")).encode("utf-8", "replace"), sign(key, text).encode()
    )


def whose(signature: Any) -> str:
    """Say who signed something that this user did not sign, and where this user's key is."""
    key = read_key()
    name = signature.get("key") if isinstance(signature, dict) else None
    author = f"was signed with the key {name}" if name else "is not signed"
    own = f"yours is {key_id(key)} in" if key else "you have none yet in"
    return f"{author}; {own} {key_path()}"


def _create(path: Path) -> None:
    """Write the key under a temporary name and link it into place: two processes end with the same key."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
