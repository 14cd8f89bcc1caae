"""What every answer has in common: the one shape of errors, JSON bytes, entity tags."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from falcon import HTTPError, Request, Response, ResponseOptions

JSON = "application/json"
NO_STORE = "no-store"
_OF_THIS_MOMENT = {"content-type": JSON, "cache-control": NO_STORE}
UDF_PREFIXES = ("/api/v1/tradingview/", "/udf/")
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)

# What every answer has from the start, and gunicorn's own as well.
CONSTANT_HEADERS = {name.lower(): value for name, value in (*SECURITY_HEADERS, ("Vary", "Origin"))}


class Answer(Response):
    """An answer that has the headers of every answer from the start, whatever becomes of the request."""

    __slots__ = ()

    def __init__(self, options: ResponseOptions | None = None) -> None:
        super().__init__(options)
        # Falcon's own way for several headers at once takes as long as all else that this API does for a price.
        self._headers = CONSTANT_HEADERS.copy()

    def tell(self, headers: dict[str, str]) -> None:
        """Set headers whose names are in lower case and whose values are of our own making."""
        self._headers |= headers


class Refused(HTTPError):
    """An answer that is an error: `code` is for programs, the message for people; `parameter` names the culprit."""

    def __init__(
        self, status: int, error_code: str, message: str, *, parameter: str | None = None, **more: Any
    ) -> None:
        super().__init__(status, title=error_code, description=message, headers=more.pop("headers", None))
        self.error_code = error_code
        self.more = {**({"parameter": parameter} if parameter else {}), **more}


def write_json(response: Answer, content: object) -> None:
    """JSON as the body, of this moment."""
    response.data = orjson.dumps(content)
    response.tell(_OF_THIS_MOMENT)


def write_bytes(response: Answer, body: bytes, *, cache: str = NO_STORE, kind: str = JSON) -> None:
    """A body that is ready."""
    response.data = body
    response.tell({"content-type": kind, "cache-control": cache})


def write_tagged(
    request: Request, response: Answer, body: bytes, *, cache: str, tag: str | None = None, kind: str = JSON
) -> None:
    """A body with its entity tag, or 304 without it where the client has the same."""
    tag = tag or entity_tag(body)
    write_bytes(response, body, cache=cache, kind=kind)
    response.set_header("ETag", tag)
    wanted = request.get_header("If-None-Match")
    if wanted is not None and any(one.strip().removeprefix("W/") in (tag, "*") for one in wanted.split(",")):
        response.status = 304
        response.data = None


def entity_tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def write_error(request: Request, response: Answer, error: HTTPError) -> None:
    """The one shape of errors; under TradingView's paths its own, which its adapter reads whatever the status is."""
    message = error.description or error.title or "refused"
    code = getattr(error, "error_code", None) or _CODES.get(error.status_code, "refused")
    if not isinstance(error, Refused):
        message = _MESSAGES.get(error.status_code, message)
    if request.path.startswith(UDF_PREFIXES):
        content: dict[str, Any] = {"s": "error", "errmsg": message}
    else:
        content = {"error": {"code": code, "message": message, **getattr(error, "more", {})}}
    write_json(response, content)


_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    411: "length_required",
    413: "too_large",
    415: "bad_media_type",
    500: "internal",
}
_MESSAGES = {
    404: "There is nothing at this path; /api/v1/openapi.json lists what there is.",
    405: "This path does not take this method; the header Allow names those that it takes.",
}
