"""The OpenAPI document against the table of routes and against what is answered, with inputs made from the document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.api import SYMBOL, Running, all_running
from tests.store.conftest import sqlite_config
from tradeback.api.app import create_app
from tradeback.api.openapi import document
from tradeback.commands.api import stores_of

DOCUMENT = document()
PATHS = sorted(DOCUMENT["paths"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with all_running(tmp_path_factory.mktemp("openapi")) as running:
        yield running


def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    app = create_app(sqlite_config(tmp_path), stores_of(sqlite_config(tmp_path)))
    for path in PATHS:
        assert app._router.find(path.replace("{symbol}", "X")) is not None, path
    described = {path.replace("{symbol}", "*") for path in PATHS}
    # The page and its files are no part of the API.
    routes = {route for route in templates(app._router._roots) if route.startswith(("/api/", "/udf/"))}
    assert routes == described


def templates(nodes: Any, before: str = "") -> Iterator[str]:
    for node in nodes:
        path = f"{before}/{'*' if node.is_var else node.raw_segment}"
        if node.resource is not None:
            yield path
        yield from templates(node.children, path)


def values(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Values as the schema has them, and values that it does not."""
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], "", "2m"])
    if schema.get("type") == "integer":
        return st.integers(-(2**70), 2**70).map(str) | st.integers(0, 2**31).map(str) | st.text(max_size=5)
    return st.sampled_from([SYMBOL, "BINANCE:ETHUSDT", "BTC,ETH"]) | st.text(max_size=60)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str]:
    """A path of the document, and it with values."""
    template = draw(st.sampled_from(PATHS))
    path, query = template, {}
    for parameter in DOCUMENT["paths"][template]["get"]["parameters"]:
        if parameter["in"] == "path":
            value = draw(st.sampled_from([SYMBOL, "ETHUSDT"]) | st.text(min_size=1, max_size=20))
            path = path.replace("{symbol}", quote(value, safe=""))
        elif draw(st.booleans()):
            query[parameter["name"]] = draw(values(parameter["schema"]))
    return template, f"{path}?{urlencode(query, errors='replace')}" if query else path


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(request=requests())
def test_what_is_answered_is_described(running: Running, request: tuple[str, str]) -> None:
    template, path = request
    answer = running.api.ask(path)
    if "%2F" in path.partition("?")[0] and answer.status == 404:
        return  # another path: what a slash parts
    described = DOCUMENT["paths"][template]["get"]["responses"]
    assert answer.status != 500
    assert str(answer.status) in described, (path, answer)
    (kind,) = described[str(answer.status)]["content"]
    assert answer.headers["content-type"].startswith(kind)
    if kind == "application/json":
        schema = described[str(answer.status)]["content"][kind]["schema"]
        jsonschema.validate(answer.json, {**schema, "components": DOCUMENT["components"]})


def test_the_document_and_its_page(running: Running) -> None:
    assert running.api.get("/api/v1/openapi.json") == DOCUMENT
    page = running.api.ask("/api/v1/docs")
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    assert all(path in text for path in PATHS)
    assert "http" not in text
    assert "<script" not in text
