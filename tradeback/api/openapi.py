"""The OpenAPI 3.1 document of the API, and a page to read it that needs no outside host.

`tests/e2e/test_openapi.py` holds it against the table of routes and against what is answered.
"""

from __future__ import annotations

import html
from typing import Any

import orjson
from falcon import Request, Response

from tradeback.api.answers import UDF_PREFIXES, write_bytes, write_tagged
from tradeback.api.bars import MAX_BARS
from tradeback.api.limits import group_of
from tradeback.api.openapi_accounts import ACCOUNT_PATHS, ACCOUNT_SCHEMAS, SECURITY_SCHEMES
from tradeback.api.params import MAX_SECONDS
from tradeback.api.symbols import MAX_QUERY
from tradeback.api.udf import SERVED
from tradeback.model import FIBONACCI, RESOLUTIONS

NUMBER: dict[str, Any] = {"type": "number"}
MAYBE: dict[str, Any] = {"type": ["number", "null"]}
INTEGER: dict[str, Any] = {"type": "integer"}
TEXT: dict[str, Any] = {"type": "string"}
FLAG: dict[str, Any] = {"type": "boolean"}


def _object(closed: bool = True, /, **properties: dict[str, Any]) -> dict[str, Any]:
    more = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": properties, "required": list(properties), **more}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": _object(error=_object(False, code=TEXT, message=TEXT)),
    "Symbol": _object(
        id={"type": "integer", "minimum": 1, "maximum": 65_535},
        symbol=TEXT,
        name=TEXT,
        base_currency=TEXT,
        quote_currency=TEXT,
        is_active=FLAG,
        price_precision=INTEGER,
        quantity_precision=INTEGER,
    ),
    "Price": _object(
        symbol=TEXT, price=NUMBER, bid=MAYBE, ask=MAYBE, volume=NUMBER, timestamp=INTEGER, stale_ms=INTEGER
    ),
    "Bar": _object(time=INTEGER, open=NUMBER, high=NUMBER, low=NUMBER, close=NUMBER, volume=NUMBER),
    "Bars": _object(
        symbol=TEXT,
        resolution={"enum": list(RESOLUTIONS)},
        bars=_list({"$ref": "#/components/schemas/Bar"}),
        truncated=FLAG,
    ),
    "Enigma": _object(
        symbol=TEXT,
        level=MAYBE,
        ath=NUMBER,
        atl=NUMBER,
        current_price=NUMBER,
        fib_levels=_object(**dict.fromkeys(FIBONACCI, NUMBER)),
        timestamp=INTEGER,
    ),
    "Health": _object(False, status={"enum": ["ok", "unavailable"]}),
    "UdfError": _object(s={"const": "error"}, errmsg=TEXT),
    "UdfObject": {"type": "object"},
    "UdfList": _list({"type": "object"}),
}
SYMBOL_PATH = {"name": "symbol", "in": "path", "required": True, "schema": TEXT, "example": "BTCUSDT"}
SECONDS = {"type": "integer", "minimum": 0, "maximum": MAX_SECONDS}


def _query(name: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema}


BARS_QUERY = [
    _query("resolution", {"enum": list(RESOLUTIONS), "default": "1m"}),
    _query("from", SECONDS),
    _query("to", SECONDS),
    _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_BARS}),
]
RESOLUTION = _query("resolution", {"enum": [*SERVED, "D"]}, required=True)
UDF_SYMBOL = _query("symbol", TEXT, required=True)
RANGE = [_query("from", INTEGER), _query("to", INTEGER)]

# path: what it is, its parameters, the schema of its answer (None: plain text), the errors that it may answer
DESCRIBED: dict[str, tuple[str, list[dict[str, Any]], str | None, tuple[int, ...]]] = {
    "/api/v1/symbols": (
        "The active symbols; `q` searches",
        [_query("q", {"type": "string", "maxLength": MAX_QUERY})],
        "Symbol[]",
        (400, 503),
    ),
    "/api/v1/symbols/{symbol}": ("One symbol", [SYMBOL_PATH], "Symbol", (400, 404, 503)),
    "/api/v1/symbols/{symbol}/price": ("The current price", [SYMBOL_PATH], "Price", (400, 404, 503)),
    "/api/v1/symbols/{symbol}/bars": ("Bars", [SYMBOL_PATH, *BARS_QUERY], "Bars", (400, 404, 503)),
    "/api/v1/symbols/{symbol}/enigma": ("The Enigma level", [SYMBOL_PATH], "Enigma", (400, 404, 503)),
    "/api/v1/health": ("Whether the process lives", [], "Health", ()),
    "/api/v1/health/ready": ("Whether all can be read", [], "Health", (400, 503)),
    "/api/v1/health/detailed": ("What each component says", [], "Health", (400, 503)),
    "/api/v1/metrics": ("Counters and histograms for Prometheus", [], None, (400, 503)),
    "/api/v1/ws": ("The address of the WebSocket, with 426", [], "Error", (426,)),
    "/api/v1/openapi.json": ("This document", [], "UdfObject", ()),
    "/api/v1/docs": ("This document as a page", [], "html", ()),
}
UDF: dict[str, tuple[str, list[dict[str, Any]], str | None, tuple[int, ...]]] = {
    "config": ("What the feed can do", [], "UdfObject", ()),
    "symbols": ("One symbol for the chart", [UDF_SYMBOL], "UdfObject", (400, 404, 503)),
    "search": (
        "Symbols by text",
        [_query(name, TEXT) for name in ("query", "type", "exchange")]
        + [_query("limit", {"type": "integer", "minimum": 1})],
        "UdfList",
        (400, 503),
    ),
    "history": (
        "Bars for the chart",
        [UDF_SYMBOL, RESOLUTION, *RANGE, _query("countback", {"type": "integer", "minimum": 0})],
        "UdfObject",
        (400, 404, 503),
    ),
    "time": ("The time in unix seconds", [], None, ()),
    "quotes": (
        "Quotes of several symbols",
        [_query("symbols", TEXT, required=True)],
        "UdfObject",
        (400, 503),
    ),
    "marks": ("Where trades are missing", [UDF_SYMBOL, RESOLUTION, *RANGE], "UdfList", (400, 404, 503)),
    "timescale_marks": (
        "The same on the time scale",
        [UDF_SYMBOL, RESOLUTION, *RANGE],
        "UdfList",
        (400, 404, 503),
    ),
}

TAGGED = {
    DESCRIBED[path][0]
    for path in (
        "/api/v1/symbols",
        "/api/v1/symbols/{symbol}",
        "/api/v1/symbols/{symbol}/bars",
        "/api/v1/openapi.json",
    )
}


LIMIT_HEADERS = {
    name: {"description": what, "schema": INTEGER}
    for name, what in {
        "RateLimit-Limit": "How many requests of this kind are answered in a window; told with other answers too",
        "RateLimit-Remaining": "How many of them are left",
        "RateLimit-Reset": "Seconds until the window ends",
        "Retry-After": "The same, with 429 only",
    }.items()
}


def document() -> dict[str, Any]:
    """The whole document."""
    paths = {path: _path(*described, error="Error") for path, described in DESCRIBED.items()}
    for base in ("/api/v1/tradingview", "/udf"):
        paths |= {f"{base}/{name}": _path(*described, error="UdfError") for name, described in UDF.items()}
    for path, methods in paths.items():
        if group_of(path) is not None:
            refused = _answer("Too many requests", "UdfError" if path.startswith(UDF_PREFIXES) else "Error")
            for described in methods.values():
                described["responses"]["429"] = {**refused, "headers": LIMIT_HEADERS}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Trade-Back", "version": "1", "description": "Market data over REST."},
        "paths": paths | ACCOUNT_PATHS,
        "components": {"schemas": SCHEMAS | ACCOUNT_SCHEMAS, "securitySchemes": SECURITY_SCHEMES},
    }


def _path(
    summary: str, parameters: list[dict[str, Any]], schema: str | None, errors: tuple[int, ...], *, error: str
) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    if 426 not in errors:
        answers["200"] = _answer("The answer", schema)
    if summary in TAGGED:
        answers["304"] = {"description": "Not changed: the client has the same"}
    for status in (*errors, 413, 500):
        kind = "Health" if status == 503 and schema == "Health" else error
        answers[str(status)] = _answer("Refused", kind)
    return {"get": {"summary": summary, "parameters": parameters, "responses": answers}}


def _answer(description: str, schema: str | None) -> dict[str, Any]:
    if schema is None or schema == "html":
        kind = "text/html" if schema else "text/plain"
        return {"description": description, "content": {kind: {"schema": TEXT}}}
    reference: dict[str, Any] = {"$ref": f"#/components/schemas/{schema.removesuffix('[]')}"}
    content = _list(reference) if schema.endswith("[]") else reference
    return {"description": description, "content": {"application/json": {"schema": content}}}


class OpenApiResource:
    """`GET /openapi.json`, and `/docs`, its page."""

    def __init__(self) -> None:
        described = document()
        self._document = orjson.dumps(described)
        self._page = page(described).encode()

    def on_get(self, request: Request, response: Response) -> None:
        write_tagged(request, response, self._document, cache="public, max-age=60")

    def on_get_page(self, request: Request, response: Response) -> None:
        write_bytes(response, self._page, cache="public, max-age=60", kind="text/html; charset=utf-8")


def _operation(title: str, operation: dict[str, Any]) -> str:
    parts = [f"<h2><code>{html.escape(title)}</code></h2><p>{html.escape(operation['summary'])}</p><ul>"]
    for parameter in operation["parameters"]:
        schema = html.escape(orjson.dumps(parameter["schema"]).decode())
        need = ", required" if parameter["required"] else ""
        parts.append(
            f"<li><code>{parameter['name']}</code> ({parameter['in']}{need}): <code>{schema}</code></li>"
        )
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        schema = html.escape(orjson.dumps(body["schema"]).decode())
        parts.append(f"<li>the body, {kind}: <code>{schema}</code></li>")
    if operation.get("security"):
        parts.append("<li>for whoever is logged in</li>")
    parts.append(f"</ul><p>Answers: {', '.join(operation['responses'])}</p>")
    return "".join(parts)


def page(described: dict[str, Any]) -> str:
    """The document as HTML: no script, nothing from elsewhere."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Trade-Back REST</title>'
        "<style>body{font:15px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em;color-scheme:light dark}"
        "code{font-size:1.05em}li{margin:.2em 0}</style><h1>Trade-Back REST</h1>"
        '<p>The same for programs: <a href="/api/v1/openapi.json">openapi.json</a></p>'
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(f"{method.upper()} {path}", operation))
    parts.append("<h2>Schemas</h2>")
    for name, schema in described["components"]["schemas"].items():
        text = html.escape(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())
        parts.append(f"<h3>{name}</h3><pre>{text}</pre>")
    return "".join(parts)
