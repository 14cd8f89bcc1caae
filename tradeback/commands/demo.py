"""The user `demo` of `tradeback up`, whose password is kept in a file of the data folder and printed at each start.

`up` makes it where there is no user at all, and owns its password: where the file is gone, can be read by others or
has another password, a new one is set. Where there are users but no demo, or demo is disabled, it stays so.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tradeback.config import Config
from tradeback.errors import DataFolderError
from tradeback.passwords import hash_password, password_is
from tradeback.store.accounts import open_accounts

DEMO = "demo"
PASSWORD_FILE = "demo.password"
FIRST_WATCHED = 20  # of the symbols that are carried always, so that the first look is not at an empty page
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 of them, none that looks like another
_GROUPS, _GROUP = 4, 4  # 80 bits


def demo_login(config: Config) -> str:
    """A sentence that says how to log in; the user and the file are made where they are to be. Blocks on I/O.

    The exchange must be decided. DataFolderError where catalog or file cannot be used.
    """
    path = config.data.of(config.exchange.name) / PASSWORD_FILE
    with closing(open_accounts(config)) as accounts:
        found = accounts.user(DEMO)
        if found is None and accounts.users():
            return "Log in as one of your users: tradeback user list"
        if found is not None and not found[0].is_active:
            return f"The user {DEMO} is disabled; log in as another: tradeback user list"
        password = _read(path)
        if found is None or password is None or not password_is(found[1], password):
            password = "-".join(
                "".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS)
            )
            _write(path, password)
            if found is None:
                user = accounts.add_user(DEMO, hash_password(password))
                accounts.set_watchlist(user.id, config.exchange.symbols[:FIRST_WATCHED])
            else:
                accounts.set_password(found[0].id, hash_password(password))
    return f"Log in as {DEMO} with the password {password}"


def page_address(rest: str) -> str:
    """The address to open, of the one that the API listens on: of all addresses of the machine, its own."""
    parts = urlsplit(rest)
    host = parts.hostname or ""
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = "localhost"
    return f"http://[{host}]:{parts.port}/" if ":" in host else f"http://{host}:{parts.port}/"


def secure_cookie(config: Config) -> bool:
    """Whether browsers are to send the cookie by HTTPS only: as configured; where nothing is, not on loopback, where
    the page is opened by plain HTTP."""
    return config.session.cookie_secure and (_told(config) or not is_loopback(config.server.host))


def cookie_notice(config: Config) -> str | None:
    """What to say to somebody who may be surprised that a login by plain HTTP does not last."""
    if not secure_cookie(config) or _told(config):
        return None
    return (
        f"Others can reach {config.server.host}, so browsers keep a login by HTTPS only; for plain HTTP in a network "
        "that you trust set SESSION_COOKIE_SECURE=false."
    )


def _told(config: Config) -> bool:
    return "cookie_secure" in config.session.model_fields_set


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> str | None:
    """The password in the file; None where there is none, or others may have read it."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                return None
            return file.read(1024).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error


def _write(path: Path, password: str) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(password + "\n")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> DataFolderError:
    return DataFolderError(
        f"The password of the user {DEMO} cannot be kept in {path} ({error.strerror}): give this user the right to "
        f"read and write it, or do without it: tradeback user disable {DEMO}"
    )
