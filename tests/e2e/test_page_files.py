"""The files of the page over HTTP: what is cached how long, what may run there, and that no path leads elsewhere."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from falcon import App
from falcon.testing import TestClient

from tests.e2e.api import ApiProcess
from tradeback.api.answers import Answer
from tradeback.api.page import DIST, PORT_IS_TOLD, PageResource

ASSET = "/assets/index-A1b2C3d4.js"
SCRIPT = b"export const number = 1;\n" * 40


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A page as the build leaves one."""
    (tmp_path / "assets").mkdir()
    (tmp_path / ASSET[1:]).write_bytes(SCRIPT)
    (tmp_path / "client.js").write_bytes(SCRIPT)
    (tmp_path / "assets" / "secret.txt").write_bytes(b"of no known kind")
    (tmp_path / "index.html").write_bytes(b"<head>" + PORT_IS_TOLD + b"</head>")
    return tmp_path


def client_of(dist: Path, port: int = 8080) -> TestClient:
    app = App(response_type=Answer)
    for path, resource, suffix in PageResource(port, 8081, dist).routes():
        app.add_route(path, resource, suffix=suffix)
    return TestClient(app, headers={"Host": "127.0.0.1:8080"})


def test_the_page_is_asked_for_again_and_its_assets_never(dist: Path) -> None:
    client = client_of(dist)
    page, asset, module = client.get("/"), client.get(ASSET), client.get("/client.js")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert asset.headers["Content-Type"] == module.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "immutable" in asset.headers["Cache-Control"]
    assert page.headers["Cache-Control"] == module.headers["Cache-Control"] == "no-cache"
    assert asset.content == module.content == SCRIPT
    again = client.get("/", headers={"If-None-Match": page.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Vary"] == "Origin, Accept-Encoding"


def test_gzip_for_those_who_take_it(dist: Path) -> None:
    client = client_of(dist)
    packed = client.get(ASSET, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.content) == SCRIPT
    plain = client.get(ASSET, headers={"Accept-Encoding": "gzip;q=0, br"})
    assert "Content-Encoding" not in plain.headers
    assert plain.content == SCRIPT
    assert plain.headers["ETag"] != packed.headers["ETag"]


@pytest.mark.parametrize(
    "path",
    [
        "/assets/none.js",
        "/assets/secret.txt",
        "/assets/../index.html",
        "/assets/..%2findex.html",
        "/assets/%2e%2e/%2e%2e/app.py",
        "/assets/",
        "/assets",
        "/index.html",
        "/../app.py",
        "//etc/passwd",
        "/client.js/",
        "/client.js%00",
    ],
)
def test_there_is_nothing_but_the_files(dist: Path, path: str) -> None:
    assert client_of(dist).get(path).status_code == 404


def policy(client: TestClient, host: str) -> str:
    text: str = client.get("/", headers={"Host": host}).headers["Content-Security-Policy"]
    return text


def test_the_page_may_speak_to_its_own_host_alone(dist: Path) -> None:
    client = client_of(dist)
    told = client.get("/").text
    assert '<meta name="websocket-port" content="8081">' in told
    direct = policy(client, "market.example:8080")
    assert "connect-src 'self' ws://market.example:8081;" in direct
    assert "unsafe" not in direct
    assert "connect-src 'self' ws://[::1]:8081;" in policy(client, "[::1]:8080")
    # Behind a proxy all is one origin.
    assert "connect-src 'self';" in policy(client, "market.example")
    assert PORT_IS_TOLD.decode() in client.get("/", headers={"Host": "market.example"}).text
    for host in ("a;script-src *:8080", "a b:8080", "a'self':8080", "*:8080"):
        assert "connect-src 'self';" in policy(client, host)
        assert policy(client, host).count("script-src") == 1


def test_where_it_was_not_built_the_page_says_how_to(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    page = client.get("/")
    assert page.status_code == 200
    assert "make build" in page.text
    assert client.get("/client.js").status_code == 404


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    with ApiProcess(tmp_path_factory.mktemp("page"), WS_PORT="8181") as api:
        yield api


def test_the_api_serves_what_was_built(api: ApiProcess) -> None:
    page = api.ask("/")
    assert page.status == 200
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "connect-src 'self' ws://127.0.0.1:8181;" in page.headers["content-security-policy"]
    assert api.ask("/", "HEAD").headers["content-length"] == page.headers["content-length"]
    named = re.findall(rb'(?:src|href)="(/[^"]+)"', page.body)
    if not (DIST / "index.html").exists():
        pytest.skip("the page was not built: run `make build` where the packages of npm can be had")
    assert len(named) >= 3
    for name in named:
        assert api.ask(name.decode()).status == 200
    assert b'content="8181"' in page.body
