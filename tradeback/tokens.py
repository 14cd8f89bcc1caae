"""Session tokens: signed, so that the event server refuses a forged or expired one without any I/O.

A token is 96 characters of URL-safe base64, which are 72 bytes: 32 random ones, the unix second at which it expires
(u64, big-endian), and the HMAC-SHA256 of both. Stores keep its SHA-256 only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tradeback.errors import ConfigError, DataFolderError, ExpiredTokenError, ForgedTokenError

COOKIE = "session_token"
MAX_COOKIES = 10  # of our name in a request
SECRET_FILE = "session.secret"
SECRET_BYTES = 32
LEAST_SECRET_CHARACTERS = 32  # of SESSION_SECRET
RANDOM_BYTES = 32
_EXPIRY = struct.Struct(">Q")
_SIGNED = RANDOM_BYTES + _EXPIRY.size
_PURPOSE = b"tradeback session token 1\0"  # so that what is signed here is of no use elsewhere
_TOKEN = re.compile(r"[A-Za-z0-9_-]{96}")


def new_token(secret: bytes, lifetime: float, *, now: float | None = None) -> str:
    """A new token that expires `lifetime` seconds after `now` (unix seconds; None: the clock's)."""
    expires = int((time.time() if now is None else now) + lifetime)
    signed = secrets.token_bytes(RANDOM_BYTES) + _EXPIRY.pack(expires)
    return base64.urlsafe_b64encode(signed + _signature(secret, signed)).decode("ascii")


def check_token(secret: bytes, token: str, now: float) -> bytes:
    """The 32 bytes under which stores know the token (`token_hash`), if it is ours and not expired.

    ForgedTokenError, ExpiredTokenError otherwise. It may be revoked all the same: only the store knows.
    """
    if not _TOKEN.fullmatch(token):
        raise ForgedTokenError("The session token is none of ours: log in again")
    content = base64.urlsafe_b64decode(token)
    signed, signature = content[:_SIGNED], content[_SIGNED:]
    if not hmac.compare_digest(signature, _signature(secret, signed)):
        raise ForgedTokenError("The session token is none of ours: log in again")
    if now >= _EXPIRY.unpack_from(signed, RANDOM_BYTES)[0]:
        raise ExpiredTokenError("The session has expired: log in again")
    return token_hash(token)


def session_name(known: bytes) -> str:
    """What a log calls the session of a `token_hash`: neither a token nor enough to find one in a store by."""
    return known[:6].hex()


def token_expiry(token: str) -> int:
    """The unix second at which a token that `check_token` found good expires."""
    expires: int = _EXPIRY.unpack_from(base64.urlsafe_b64decode(token), RANDOM_BYTES)[0]
    return expires


def brought_tokens(cookies: Iterable[str], authorizations: Sequence[str]) -> list[str]:
    """The tokens that a request brings in its Cookie and Authorization headers, not checked.

    An Authorization decides alone; where it is no Bearer, or there are two, the token is "", which is none. Of the
    cookies of our name those that are not empty, in their order: those of other folders and domains come along with
    ours. A Cookie header may come several times (RFC 9113, 8.2.3), a value in double quotes (RFC 6265, 4.1.1).
    """
    if authorizations:
        scheme, _, token = authorizations[0].strip(" \t").partition(" ")
        return [token.strip(" \t") if scheme.lower() == "bearer" and len(authorizations) == 1 else ""]
    pairs = (pair.strip(" \t").partition("=") for header in cookies for pair in header.split(";"))
    values = [value for name, _, value in pairs if name == COOKIE]
    bare = [value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value for value in values]
    return [value for value in bare if value][:MAX_COOKIES]


def token_hash(token: str) -> bytes:
    """The token's SHA-256. The token has 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode("ascii")).digest()


def load_secret(folder: Path, configured: str) -> bytes:
    """The key of the signatures: `configured`, or where that is empty the content of a file in `folder`, which the
    first start makes with the mode 0600; safe when several processes do so at once.

    ConfigError where `configured` is too short; DataFolderError where the file cannot be used.
    """
    if configured:
        if len(configured) < LEAST_SECRET_CHARACTERS:
            raise ConfigError(
                f"SESSION_SECRET has {len(configured)} characters, and at least {LEAST_SECRET_CHARACTERS} are needed "
                "so that nobody guesses it: leave it out, and one is made in the data folder"
            )
        return hashlib.sha256(configured.encode()).digest()
    path = folder / SECRET_FILE
    try:
        with suppress(FileNotFoundError):
            return _read_secret(path)
        _make_secret(path)
        return _read_secret(path)
    except OSError as error:
        raise DataFolderError(
            f"The session secret {path} cannot be used ({error.strerror}): give this user the right to read and "
            "write it, or set SESSION_SECRET"
        ) from error


def _signature(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + signed, "sha256")


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link is made whole or not at all, and never over the one that another process made meanwhile.
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink()


def _read_secret(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode & 0o777
        text = file.read(1024)
    if mode & 0o077:
        raise DataFolderError(
            f"The session secret {path} can be read or changed by others (mode {mode:04o}): delete it, so that a new "
            "one is made and everybody logs in again"
        )
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise DataFolderError(
            f"The session secret {path} is not {2 * SECRET_BYTES} hexadecimal digits: delete it, so that a new one is "
            "made and everybody logs in again"
        )
    return secret
