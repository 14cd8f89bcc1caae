"""The OpenAPI document against the table of routes and against what is answered, with inputs made from the document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.api import SYMBOL, Answer, Running, all_running
from tests.servers.services import config_of
from tradeback.api.app import create_app
from tradeback.api.openapi.document import document
from tradeback.commands.api import stores_of
from tradeback.passwords import hash_password
from tradeback.store.accounts import open_accounts

DOCUMENT = document()
PATHS = sorted(DOCUMENT["paths"])
OPERATIONS = sorted((path, method) for path in PATHS for method in DOCUMENT["paths"][path])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with all_running(tmp_path_factory.mktemp("openapi")) as running:
        yield running


def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    app = create_app(config_of(tmp_path), stores_of(config_of(tmp_path)), b"secret")
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


def bodies(schema: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Bodies as the schema has them, and bodies that it does not."""
    fields = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
    texts = st.text(max_size=70)
    values = texts | st.lists(texts | st.sampled_from([SYMBOL, "ETHUSDT"]), max_size=3) | st.none()
    objects = st.fixed_dictionaries(dict.fromkeys(fields, values), optional={"other": values})
    return objects.map(lambda content: json.dumps(content).encode()) | st.binary(max_size=50)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str, bytes | None]:
    """A path of the document, a method, the path with values, and a body."""
    template, method = draw(st.sampled_from(OPERATIONS))
    operation = DOCUMENT["paths"][template][method]
    path, query, body = template, {}, None
    if "requestBody" in operation:
        body = draw(bodies(operation["requestBody"]["content"]["application/json"]["schema"]))
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            value = draw(st.sampled_from([SYMBOL, "ETHUSDT"]) | st.text(min_size=1, max_size=20))
            path = path.replace("{symbol}", quote(value, safe=""))
        elif draw(st.booleans()):
            query[parameter["name"]] = draw(values(parameter["schema"]))
    path = f"{path}?{urlencode(query, errors='replace')}" if query else path
    return template, method, path, body


@pytest.fixture(scope="module")
def token(running: Running) -> str:
    with closing(open_accounts(config_of(running.folder))) as accounts:
        accounts.add_user("alice", hash_password("correct horse"))
    login = b'{"username":"alice","password":"correct horse"}'
    answer = running.api.ask("/api/v1/auth/login", "POST", login, Content_Type="application/json")
    return str(answer.json["token"])


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(request=requests())
def test_what_is_answered_is_described(
    running: Running, token: str, request: tuple[str, str, str, bytes | None]
) -> None:
    template, method, path, body = request
    headers = {"Content_Type": "application/json"} if body is not None else {}
    if template.endswith(("/marketwatch", "/marketwatch/{symbol}")):
        headers["Authorization"] = f"Bearer {token}"
    answer = running.api.ask(path, method.upper(), body, **headers)
    if "%2F" in path.partition("?")[0] and answer.status == 404:
        return  # another path: what a slash parts
    described = DOCUMENT["paths"][template][method]["responses"]
    assert answer.status != 500
    assert str(answer.status) in described, (path, answer)
    check_headers(described[str(answer.status)], answer)
    content = described[str(answer.status)].get("content")
    if content is None:
        assert answer.body == b""
        return
    (kind,) = content
    assert answer.headers["content-type"].startswith(kind)
    if kind == "application/json":
        schema = content[kind]["schema"]
        jsonschema.validate(answer.json, {**schema, "components": DOCUMENT["components"]})


def check_headers(described: dict[str, Any], answer: Answer) -> None:
    """Those that must be there are, and each is as the document says. With the default limits, all counts are there."""
    for name, told in described["headers"].items():
        header = DOCUMENT["components"]["headers"][name] if "$ref" in told else told
        value = answer.headers.get(name.lower())
        if value is None:
            assert not header.get("required"), (name, answer)
            assert not name.startswith("RateLimit-"), (name, answer)
        else:
            typed = int(value) if header["schema"]["type"] == "integer" else value
            jsonschema.validate(typed, header["schema"])


def test_each_path_takes_the_methods_of_the_document(running: Running) -> None:
    for path in PATHS:
        described = {method.upper() for method in DOCUMENT["paths"][path]}
        asked = path.replace("{symbol}", SYMBOL)
        assert set(running.api.ask(asked, "OPTIONS").headers["allow"].split(", ")) == described, path
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - described:
            answer = running.api.ask(asked, method)
            assert answer.status == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) == described, (method, path)


@pytest.mark.parametrize("path", ["/api/v1/symbols", "/udf/config", "/api/v1/tradingview/config"])
def test_what_is_refused_before_there_is_a_request(running: Running, path: str) -> None:
    described = DOCUMENT["paths"][path]["get"]["responses"]
    for status, answer in (
        (414, running.api.ask(f"{path}?{'x' * 5_000}")),
        (431, running.api.ask(path, X="x" * 9_000)),
        (431, running.api.ask(path, **{f"X_{n}": "x" for n in range(60)})),
        (413, running.api.ask(path, body=b"x" * 65_537)),
        (411, running.api.ask(path, Transfer_Encoding="chunked")),
    ):
        assert answer.status == status
        for name in ("x-request-id", "cache-control", "content-type"):
            assert name in answer.headers, (name, answer)
        schema = described[str(status)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json, {**schema, "components": DOCUMENT["components"]})


def test_the_document_is_one_of_openapi_3_1() -> None:
    identifiers = [
        operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()
    ]
    assert len(identifiers) == len(set(identifiers))
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for example in schema.get("examples", []):
            jsonschema.validate(example, {**schema, "components": DOCUMENT["components"]})
        assert f'"#/components/schemas/{name}"' in json.dumps(DOCUMENT["paths"]) + json.dumps(
            DOCUMENT["components"]
        ), f"{name} is used nowhere"
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                jsonschema.Draft202012Validator.check_schema(parameter["schema"])
                if "example" in parameter:
                    jsonschema.validate(parameter["example"], parameter["schema"])
            named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
            assert named == ({"symbol"} if "{symbol}" in path else set())


def test_the_document_and_its_page(running: Running) -> None:
    assert running.api.get("/api/v1/openapi.json") == DOCUMENT
    page = running.api.ask("/api/v1/docs")
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    shown = [f"{method.upper()} {path}" for path, method in OPERATIONS if method not in ("head", "options")]
    assert all(title in text for title in shown)
    assert "http" not in text
    assert "<script" not in text
