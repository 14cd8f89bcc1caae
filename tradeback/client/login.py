"""Logging in and out over REST. What the server answers is believed no further than it must be."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from tradeback.errors import ServerRefusedError, TradebackError

LOGIN_PATH = "/api/v1/auth/login"
LOGOUT_PATH = "/api/v1/auth/logout"
ANSWER_PATIENCE_S = 15.0  # for a whole answer: a login takes part of a second of hashing
ANSWER_BYTES_MAX = 64 * 1024
LONGEST_WAIT_S = 3600.0  # that a server can ask for
EXAMPLE = "http://127.0.0.1:8080"
SHOWN_MAX = 300  # characters of a server's own words
_TOKEN = re.compile(r"[!-~]{1,4096}")  # it becomes a header: no spaces, no line ends


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in where. `rest` is the REST interface's address, such as http://127.0.0.1:8080."""

    rest: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """What a login gave. `expires_at` in unix seconds; `symbol_patterns` say which symbols may be watched."""

    token: str = field(repr=False)
    username: str
    expires_at: float
    symbol_patterns: tuple[str, ...]


class LoginLaterError(TradebackError):
    """The login can be tried again, after `wait_s` where the server said so."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def readable(text: object) -> str:
    """A server's words as one line that a terminal can be given."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text)[:SHOWN_MAX])
    return shown.strip()


async def log_in(credentials: Credentials) -> Login:
    """A new session. ServerRefusedError where it would be refused again, LoginLaterError where it may not."""
    url = _address(credentials.rest) + LOGIN_PATH
    named = {"username": credentials.username, "password": credentials.password}
    status, headers, body = await _post(url, orjson.dumps(named))
    if status == 200:
        return _login(url, body)
    told = _told(body)
    if status == 401:
        why = f": {told}" if told else ""
        raise ServerRefusedError(f"{url} refused the login of {credentials.username}{why}")
    if status == 429 or status >= 500:
        raise LoginLaterError(f"{url} answered {status}{f' ({told})' if told else ''}", _retry_after(headers))
    raise ServerRefusedError(
        f"{url} answered {status}{f' ({told})' if told else ''}: see that this is the REST interface's address"
    )


async def log_out(rest: str, token: str) -> None:
    """End the session; also well where it had ended. TradebackError where that could not be done."""
    url = _address(rest) + LOGOUT_PATH
    status, _, body = await _post(url, b"", {"Authorization": f"Bearer {token}"})
    if not 200 <= status < 300 and status != 401:
        raise ServerRefusedError(f"{url} answered {status} ({_told(body)})")


def _address(rest: str) -> str:
    """Where paths are appended. ServerRefusedError for what is no address."""
    try:
        parts = urlsplit(rest)
        named = (
            parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        )
        if named and " " not in rest and httpx.URL(rest).host:
            return rest.rstrip("/")
    except (ValueError, httpx.InvalidURL) as error:
        raise ServerRefusedError(f"{rest!r} is no address ({error}): give one like {EXAMPLE}") from error
    raise ServerRefusedError(f"{rest!r} is no address: give one like {EXAMPLE}")


async def _post(
    url: str, content: bytes, headers: dict[str, str] | None = None
) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and body. No redirects: they would carry the password elsewhere. LoginLaterError where
    there is no answer."""
    sent = {"Content-Type": "application/json", "Accept-Encoding": "identity", **(headers or {})}
    try:
        async with (
            asyncio.timeout(ANSWER_PATIENCE_S),
            httpx.AsyncClient(timeout=ANSWER_PATIENCE_S, trust_env=False) as http,
            http.stream("POST", url, content=content, headers=sent) as answer,
        ):
            body = bytearray()
            async for part in answer.aiter_raw():  # what is compressed could be of any size
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    raise ServerRefusedError(
                        f"{url} answered more than {ANSWER_BYTES_MAX} bytes: see that this is the REST interface"
                    )
            return answer.status_code, answer.headers, bytes(body)
    except (httpx.HTTPError, TimeoutError) as error:
        why = readable(error) or type(error).__name__
        raise LoginLaterError(f"{url} cannot be reached ({why})") from error


def _login(url: str, body: bytes) -> Login:
    try:
        content = orjson.loads(body)
        user = content["user"]
        token = content["token"]
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError("the token is none")
        return Login(
            token=token,
            username=readable(user["username"]),
            expires_at=float(content["expires_at"]),
            symbol_patterns=tuple(readable(pattern) for pattern in user["symbol_patterns"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ServerRefusedError(
            f"{url} answered what is no login ({error!r}): see that this is the REST interface's address"
        ) from error


def _told(body: bytes) -> str:
    """The sentence in an error's body, where there is one."""
    try:
        content: Any = orjson.loads(body)
        return readable(content["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return ""


def _retry_after(headers: httpx.Headers) -> float | None:
    try:
        seconds = float(headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return min(seconds, LONGEST_WAIT_S) if seconds > 0 else None
