"""`document`: the whole of it, with what all paths have in common."""

from __future__ import annotations

import copy
from typing import Any

from tradeback.api.answers import UDF_PREFIXES
from tradeback.api.limits import group_of
from tradeback.api.openapi import accounts, market, tradingview
from tradeback.api.openapi.parts import (
    BEFORE_ALL,
    BEFORE_THE_ROUTE,
    COUNTED,
    HEADERS,
    JSON,
    MEANINGS,
    answer,
    reference,
)

DESCRIPTION = """Market data over REST.

Every error is `{"error":{"code","message"}}`, under TradingView's paths `{"s":"error","errmsg"}`. A method that a path
does not take is answered 405, and `Allow` names those that it takes; a path that does not exist 404. A parameter that
is unknown, given twice or out of range is refused, never guessed at, except under TradingView's paths, where unknown
ones are passed over. What is no HTTP request is answered 400, 417 or 501 and ends its connection. HEAD answers what GET
does, without the body."""
UNROUTED = {
    "MethodNotAllowed": answer("The path does not take this method", {JSON: reference("Error")}, "Allow"),
    "NotFound": answer("There is no such path", {JSON: reference("Error")}),
}


def document() -> dict[str, Any]:
    """The whole document."""
    paths = market.PATHS | accounts.PATHS
    for base in tradingview.BASES:
        paths |= {f"{base}/{name}": methods for name, methods in tradingview.PATHS.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Trade-Back",
            "version": "1",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": {path: _complete(path, methods) for path, methods in paths.items()},
        "components": {
            "schemas": market.SCHEMAS | accounts.SCHEMAS | tradingview.SCHEMAS,
            "headers": HEADERS,
            "responses": UNROUTED,
            "securitySchemes": accounts.SECURITY_SCHEMES,
        },
    }


def _complete(path: str, methods: dict[str, Any]) -> dict[str, Any]:
    """The methods of a path, with OPTIONS, HEAD where there is GET, and what comes of the limits of rates."""
    of_path = [
        parameter for parameter in next(iter(methods.values()))["parameters"] if parameter["in"] == "path"
    ]
    whole = copy.deepcopy(methods)
    whole["options"] = {
        "summary": "The methods that the path takes",
        "parameters": of_path,
        "responses": {
            "200": answer("In the header Allow", None, "Allow"),
            **{
                str(status): answer(MEANINGS[status], {JSON: _error(path)})
                for status in (*BEFORE_THE_ROUTE, *BEFORE_ALL, 500)
            },
        },
    }
    if "get" in whole:
        whole["head"] = copy.deepcopy(whole["get"])
        whole["head"]["summary"] += "; the headers alone"
    if group_of(path) is not None:
        for operation in whole.values():
            _limit(operation, _error(path))
    for told in whole.get("head", {}).get("responses", {}).values():
        told.pop("content", None)
    for method, operation in whole.items():
        operation["operationId"] = _identifier(method, path)
        operation["tags"] = [_tag(path)]
    return whole


def _error(path: str) -> dict[str, Any]:
    return reference("UdfError" if path.startswith(UDF_PREFIXES) else "Error")


def _limit(operation: dict[str, Any], error: dict[str, Any]) -> None:
    answers = operation["responses"]
    answers["429"] = answer(MEANINGS[429], {JSON: error}, "Retry-After")
    for status, told in answers.items():
        if int(status) not in (*BEFORE_THE_ROUTE, *BEFORE_ALL):
            told["headers"] |= {name: {"$ref": f"#/components/headers/{name}"} for name in COUNTED}
    operation["responses"] = dict(sorted(answers.items()))


def _identifier(method: str, path: str) -> str:
    words = path.removeprefix("/api/v1").replace(".json", "").replace("{symbol}", "one").strip("/").split("/")
    return "_".join([method, *words])


def _tag(path: str) -> str:
    if path.startswith(UDF_PREFIXES):
        return "TradingView"
    if path in accounts.PATHS:
        return "Logins and watchlists"
    return "Market data" if path.startswith("/api/v1/symbols") else "Operation"
