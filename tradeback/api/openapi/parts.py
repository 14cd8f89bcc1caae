"""What the document is made of: schemas, parameters, headers, answers, operations."""

from __future__ import annotations

from typing import Any

NUMBER: dict[str, Any] = {"type": "number"}
MAYBE: dict[str, Any] = {"type": ["number", "null"]}
INTEGER: dict[str, Any] = {"type": "integer"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
TEXT: dict[str, Any] = {"type": "string"}
GIVEN_TEXT: dict[str, Any] = {"type": "string", "pattern": r"^[^\u0000]*$"}
FLAG: dict[str, Any] = {"type": "boolean"}
UNIX_SECONDS: dict[str, Any] = {"type": "integer", "description": "unix seconds", "examples": [1_700_000_000]}
UNIX_MS: dict[str, Any] = {"type": "integer", "description": "unix milliseconds"}

JSON = "application/json"
PLAIN = "text/plain"
HTML = "text/html"
# Answered before there is a route, so before anything is counted.
BEFORE_THE_ROUTE = (411, 413)
# Answered before there is a request.
BEFORE_ALL = (414, 431)

MEANINGS = {
    400: "A parameter or a field cannot be; `parameter` names it",
    401: "Nobody is logged in, or nobody can be with this",
    403: "Not from a page of this origin, or not this symbol",
    404: "There is no such symbol, it has nothing of this, or an operator switched it off",
    409: "The list is full",
    411: "A body without Content-Length",
    413: "The body is too large",
    414: "The path with its parameters is longer than 4,000 bytes or so",
    415: "The body is no JSON by its Content-Type",
    426: "WebSockets are taken elsewhere: `websocket` says where",
    429: "Too many requests: wait as Retry-After says",
    431: "There are more than 50 headers, or one is longer than 8,000 bytes or so",
    500: "A fault of ours, which is in the log with the answer's X-Request-Id",
    503: "A component cannot be read: `component` says which",
}

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "Names this request in the log",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    },
    "Cache-Control": {"description": "How long it may be kept", "required": True, "schema": TEXT},
    "ETag": {
        "description": "Changes with the answer; for If-None-Match",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{32}"$'},
    },
    "X-Total-Count": {
        "description": "How many there are, those that `limit` left out included",
        "required": True,
        "schema": COUNT,
    },
    "RateLimit-Limit": {
        "description": "How many requests of this kind are answered in a window of time",
        "schema": COUNT,
    },
    "RateLimit-Remaining": {"description": "How many of them are left", "schema": COUNT},
    "RateLimit-Reset": {"description": "Seconds until the window ends", "schema": COUNT},
    "Retry-After": {"description": "Seconds to wait", "required": True, "schema": COUNT},
    "WWW-Authenticate": {"description": "How to log in", "required": True, "schema": TEXT},
    "Set-Cookie": {"description": "The session's token", "schema": TEXT},
    "Allow": {"description": "The methods that this path takes", "required": True, "schema": TEXT},
    "Upgrade": {"description": "websocket", "required": True, "schema": TEXT},
}
EVERYWHERE = ("X-Request-Id", "Cache-Control")
COUNTED = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
OF_STATUS = {
    304: ("ETag",),
    401: ("WWW-Authenticate",),
    426: ("Upgrade",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def object_of(closed: bool = True, /, **properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has all of these, and with `closed` nothing else."""
    more = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": properties, "required": list(properties), **more}


def also(schema: dict[str, Any], **optional: dict[str, Any]) -> dict[str, Any]:
    """The object, with properties that it need not have."""
    return {**schema, "properties": {**schema["properties"], **optional}}


def list_of(of: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An array of one kind."""
    return {"type": "array", "items": of, **more}


def reference(name: str) -> dict[str, Any]:
    """One of the document's schemas, or with `[]` behind it an array of it."""
    schema = {"$ref": f"#/components/schemas/{name.removesuffix('[]')}"}
    return list_of(schema) if name.endswith("[]") else schema


def query(
    name: str, schema: dict[str, Any], description: str, *, example: object = None, required: bool = False
) -> dict[str, Any]:
    """A parameter of a query."""
    shown = {} if example is None else {"example": example}
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": schema,
        **shown,
    }


SYMBOL_PATH: dict[str, Any] = {
    "name": "symbol",
    "in": "path",
    "required": True,
    "description": "The symbol's name, in upper case",
    "schema": {"type": "string", "minLength": 1},
    "example": "BTCUSDT",
}


def answer(description: str, content: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    """One answer: the schemas of its content by kind, and the names of its headers beside those of every answer."""
    told: dict[str, Any] = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in (*EVERYWHERE, *names)},
    }
    if content:
        told["content"] = {kind: {"schema": schema} for kind, schema in content.items()}
    return told


def operation(
    summary: str,
    schema: dict[str, Any] | None,
    errors: tuple[int, ...],
    *,
    parameters: tuple[dict[str, Any], ...] = (),
    description: str = "",
    status: int = 200,
    kind: str = JSON,
    headers: tuple[str, ...] = (),
    error: str = "Error",
    body: str | None = None,
    logged_in: bool = False,
) -> dict[str, Any]:
    """An operation: its answer when all is well, of this schema and kind, and the errors that it may answer.

    Where its answer has an ETag it may also say 304. `body` is the schema of its body, `error` that of its errors.
    """
    content = None if schema is None else {kind: schema}
    answers: dict[int, dict[str, Any]] = {}
    if status not in errors:
        answers[status] = answer("The answer", content, *headers)
    if "ETag" in headers:
        answers[304] = answer("Not changed: the client has the same", None, "ETag")
    for refused in (*errors, *BEFORE_THE_ROUTE, *BEFORE_ALL, 500):
        answers[refused] = answer(MEANINGS[refused], {JSON: reference(error)}, *OF_STATUS.get(refused, ()))
    told: dict[str, Any] = {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {str(number): answers[number] for number in sorted(answers)},
    }
    if description:
        told["description"] = description
    if body is not None:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": reference(body)}}}
    if logged_in:
        told["security"] = [{"cookie": []}, {"bearer": []}]
    return told
