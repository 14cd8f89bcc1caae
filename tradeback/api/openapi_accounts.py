"""What the OpenAPI document says of logins and watchlists."""

from __future__ import annotations

from typing import Any

from tradeback.api.auth import COOKIE, MAX_USERNAME
from tradeback.passwords import MOST_BYTES

_TEXT = {"type": "string"}
_SECONDS = {"type": "integer", "description": "unix seconds"}
_TEXTS = {"type": "array", "items": _TEXT}
_SYMBOL = {"name": "symbol", "in": "path", "required": True, "schema": _TEXT, "example": "BTCUSDT"}
_EVERYWHERE = {
    "name": "everywhere",
    "in": "query",
    "required": False,
    "schema": {"enum": ["true", "false"], "default": "false"},
}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_USER = _object(username=_TEXT, symbol_patterns=_TEXTS)

SECURITY_SCHEMES: dict[str, Any] = {
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    "bearer": {"type": "http", "scheme": "bearer"},
}
ACCOUNT_SCHEMAS: dict[str, dict[str, Any]] = {
    "Login": _object(
        username={"type": "string", "minLength": 1, "maxLength": MAX_USERNAME},
        password={"type": "string", "minLength": 1, "description": f"at most {MOST_BYTES} bytes"},
    ),
    "LoggedIn": _object(token=_TEXT, expires_at=_SECONDS, user=_USER),
    "Session": _object(user=_USER, expires_at=_SECONDS, created_at=_SECONDS),
    "Watchlist": _object(symbols=_TEXTS),
}
_MEANINGS = {
    400: "A field or a parameter cannot be",
    401: "Nobody is logged in, or may be with this",
    403: "Not from this page, or not this symbol",
    404: "No such symbol",
    409: "The list is full",
    413: "The body is too large",
    429: "Too many attempts: wait as Retry-After says",
    500: "A fault of ours",
    503: "A component cannot be read",
}


def _operation(
    summary: str,
    schema: str | None,
    errors: tuple[int, ...],
    *,
    body: str | None = None,
    parameters: tuple[dict[str, Any], ...] = (),
    logged_in: bool = True,
) -> dict[str, Any]:
    answers = {"200": _content("The answer", schema)} if schema else {"204": {"description": "Done"}}
    for status in (*errors, 413, 500, 503):
        answers[str(status)] = _content(_MEANINGS[status], "Error")
    told: dict[str, Any] = {"summary": summary, "parameters": list(parameters), "responses": answers}
    if body is not None:
        told["requestBody"] = {"required": True, **_content("", body)}
        del told["requestBody"]["description"]
    if logged_in:
        told["security"] = [{name: []} for name in SECURITY_SCHEMES]
    return told


def _content(description: str, schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


ACCOUNT_PATHS: dict[str, dict[str, Any]] = {
    "/api/v1/auth/login": {
        "post": _operation("Log in", "LoggedIn", (400, 401, 403, 429), body="Login", logged_in=False)
    },
    "/api/v1/auth/logout": {
        "post": _operation(
            "Log out, here or in all sessions of the user", None, (400, 401, 403), parameters=(_EVERYWHERE,)
        )
    },
    "/api/v1/auth/session": {"get": _operation("Who is logged in", "Session", (400, 401))},
    "/api/v1/marketwatch": {
        "get": _operation("The watchlist", "Watchlist", (400, 401)),
        "put": _operation(
            "Replace the watchlist, in this order", "Watchlist", (400, 401, 403, 404, 409), body="Watchlist"
        ),
    },
    "/api/v1/marketwatch/{symbol}": {
        "post": _operation(
            "Add a symbol at the end",
            "Watchlist",
            (400, 401, 403, 404, 409),
            parameters=(_SYMBOL,),
        ),
        "delete": _operation("Take a symbol off", "Watchlist", (400, 401, 403, 404), parameters=(_SYMBOL,)),
    },
}
