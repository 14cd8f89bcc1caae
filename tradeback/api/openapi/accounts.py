"""What the document says of logins and watchlists."""

from __future__ import annotations

from typing import Any

from tradeback.api.auth import COOKIE, MAX_USERNAME
from tradeback.api.openapi.parts import (
    SYMBOL_PATH,
    TEXT,
    UNIX_SECONDS,
    list_of,
    object_of,
    operation,
    query,
    reference,
)
from tradeback.passwords import MOST_BYTES

_USER = object_of(
    username=TEXT,
    symbol_patterns={**list_of(TEXT), "description": "what the user may watch", "examples": [["*"]]},
)

SECURITY_SCHEMES: dict[str, Any] = {
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "set by logging in"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "the token that logging in answered"},
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "Login": object_of(
        username={"type": "string", "minLength": 1, "maxLength": MAX_USERNAME},
        password={
            "type": "string",
            "minLength": 1,
            "maxLength": MOST_BYTES,
            "description": f"at most {MOST_BYTES} bytes of UTF-8",
        },
    ),
    "LoggedIn": object_of(token=TEXT, expires_at=UNIX_SECONDS, user=_USER),
    "Session": object_of(user=_USER, expires_at=UNIX_SECONDS, created_at=UNIX_SECONDS),
    "Watchlist": object_of(symbols={**list_of(TEXT), "examples": [["BTCUSDT", "ETHUSDT"]]}),
}
_WATCHLIST = reference("Watchlist")
PATHS: dict[str, dict[str, Any]] = {
    "/api/v1/auth/login": {
        "post": operation(
            "Log in",
            reference("LoggedIn"),
            (400, 401, 403, 415, 503),
            body="Login",
            headers=("Set-Cookie",),
            description="401 says no more, whatever was wrong. Failures are slowed: 429.",
        )
    },
    "/api/v1/auth/logout": {
        "post": operation(
            "Log out",
            None,
            (400, 401, 403, 503),
            parameters=(
                query(
                    "everywhere",
                    {"enum": ["true", "false"], "default": "false"},
                    "Whether all sessions of the user end",
                ),
            ),
            status=204,
            headers=("Set-Cookie",),
            logged_in=True,
        )
    },
    "/api/v1/auth/session": {
        "get": operation("Who is logged in", reference("Session"), (400, 401, 503), logged_in=True)
    },
    "/api/v1/marketwatch": {
        "get": operation("The watchlist", _WATCHLIST, (400, 401, 503), logged_in=True),
        "put": operation(
            "Replace the watchlist, in this order",
            _WATCHLIST,
            (400, 401, 403, 404, 409, 415, 503),
            body="Watchlist",
            logged_in=True,
        ),
    },
    "/api/v1/marketwatch/{symbol}": {
        "post": operation(
            "Add a symbol at the end",
            _WATCHLIST,
            (400, 401, 403, 404, 409, 503),
            parameters=(SYMBOL_PATH,),
            logged_in=True,
        ),
        "delete": operation(
            "Take a symbol off",
            _WATCHLIST,
            (400, 401, 403, 404, 503),
            parameters=(SYMBOL_PATH,),
            logged_in=True,
        ),
    },
}
