"""Passwords: hashed with argon2id, and compared in the same time whether or not there is such a user."""

from __future__ import annotations

import functools
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from tradeback.errors import AccountError

# The parameters that the OWASP Password Storage Cheat Sheet names first for argon2id with 19 MiB: several threads
# check passwords at once, and each takes that memory.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
LEAST_CHARACTERS = 8
MOST_BYTES = 1024


def hash_password(password: str) -> str:
    """The hash to store. AccountError where the password is too short or too long."""
    secret = _bytes(password)
    if len(password) < LEAST_CHARACTERS or len(secret) > MOST_BYTES:
        raise AccountError(
            f"A password has at least {LEAST_CHARACTERS} characters and at most {MOST_BYTES} bytes"
        )
    return _HASHER.hash(secret)


def password_is(password_hash: str | None, password: str) -> bool:
    """Whether it is the password; of no user at all (None) it never is, which takes as long to find out."""
    secret = _bytes(password)
    fitting = secret if len(secret) <= MOST_BYTES else b""
    try:
        same = _HASHER.verify(password_hash or _nobodys_hash(), fitting)
    except (Argon2Error, InvalidHashError, UnicodeEncodeError):  # the last: a stored text that is no ASCII
        return False
    return same and password_hash is not None and fitting == secret


def _bytes(password: str) -> bytes:
    # One password may be typed as different code points on two machines.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


@functools.cache
def _nobodys_hash() -> str:
    return _HASHER.hash(b"nobody's password")
