"""What a hostile client can send to the REST interface: it fails cleanly, and nobody else notices.

Time to read a request and to write an answer is set far above what a test waits, so that whatever waits for a hostile
client fails the test.
"""

from __future__ import annotations

import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import orjson
import pytest

from tests.e2e.api import ANSWER_S, SYMBOL, ApiProcess
from tests.servers.services import config_of
from tradeback.api.gunicorn_conf import CONNECTIONS, THREADS
from tradeback.api.openapi.document import document
from tradeback.model import MINUTE_NS, Bar, SymbolInfo
from tradeback.store.accounts import open_accounts
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

BARS = 5_000
BARS_PATH = f"/api/v1/symbols/{SYMBOL}/bars?limit={BARS}"
HEALTH = b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\n\r\n"
OF_A_THREAD = f"/api/v1/symbols/{SYMBOL}"  # which is answered where a thread is free
PATIENT = {
    "SERVER_READ_TIMEOUT": "10m",
    "SERVER_WRITE_TIMEOUT": "10m",
    **{f"LIMIT_{name}": "off" for name in ("PAGE", "BARS", "SYMBOLS", "UDF", "AUTH")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with symbols, a user's tables and bars, as server and recorder leave it."""
    folder = tmp_path_factory.mktemp("hostile")
    config = config_of(folder)
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([SymbolInfo(SYMBOL, "BTC", "USDT", True, 2, 5)])
        stream_id = catalog.symbols()[0].stream_id
    open_accounts(config).close()
    with closing(open_history(config, write=True)) as history:
        last = time.time_ns() // MINUTE_NS * MINUTE_NS
        bars = [
            Bar(last - n * MINUTE_NS, 12_345.67, 12_399.99, 12_300.01, 12_350.5, 0.12345, 9)
            for n in range(BARS)
        ]
        history.write_bars(stream_id, "1m", bars)
    return folder


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[ApiProcess]:
    with ApiProcess(folder, **PATIENT) as api:
        yield api
    assert "Traceback" not in (folder / "api.log").read_text()


def connect(api: ApiProcess, *, receive_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(ANSWER_S)
    connection.connect(("127.0.0.1", api.port))
    return connection


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def assert_serves(api: ApiProcess) -> None:
    """More requests than there are threads, one after the other."""
    for _ in range(3 * THREADS):
        assert api.ask(OF_A_THREAD).status == 200


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"G",
        b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\n",
        b"GET /api/v1/health HTTP/1.1\nHost: a\n\n",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n" + b"x" * 60_000,
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        HEALTH + b"GET /api/v1/he",
        # Answered, with an end that the client does not answer.
        b"nonsense\r\n\r\n",
        b"GET /nothing HTTP/1.0\r\n\r\n",
        b"POST /api/v1/symbols HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST /api/v1/symbols HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\nabc",
    ],
)
def test_who_stops_in_the_middle_holds_nobody_up(api: ApiProcess, begun: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(10 * THREADS):
            stack.enter_context(connect(api)).sendall(begun)
        assert_serves(api)


def test_who_sends_byte_by_byte_is_answered(api: ApiProcess) -> None:
    body = b'{"username":"nobody","password":"nothing"}'
    request = (
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    with connect(api) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(request)):
            connection.sendall(request[place : place + 1])
        assert read_all(connection).startswith(b"HTTP/1.1 401 ")


def test_who_waits_to_be_told_to_go_on_is_told(api: ApiProcess) -> None:
    with connect(api) as connection:
        connection.sendall(
            b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_who_does_not_read_holds_nobody_up_and_loses_nothing(api: ApiProcess) -> None:
    expected = api.ask(BARS_PATH).body
    assert len(expected) > 400_000
    with ExitStack() as stack:
        readers = [stack.enter_context(connect(api, receive_buffer=4_096)) for _ in range(4 * THREADS)]
        for reader in readers:
            reader.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % BARS_PATH.encode() * 3)
        assert_serves(api)
        # What waited comes whole, and the requests behind it are answered in their order.
        with readers[0].makefile("rb") as answers:
            for _ in range(3):
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                head = b"".join(iter(answers.readline, b"\r\n"))
                size = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
                assert answers.read(size) == expected


def test_idle_connections_make_room(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * CONNECTIONS)), hard))
    try:
        with ExitStack() as stack:
            api = stack.enter_context(ApiProcess(folder, **PATIENT))
            for count in range(CONNECTIONS + 200):
                connection = stack.enter_context(connect(api))
                if count % 2:
                    connection.sendall(HEALTH)
                if count % 100 == 0:
                    assert api.ask(OF_A_THREAD).status == 200
            assert_serves(api)
            assert api.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_requests_in_one_piece_are_answered_in_order(api: ApiProcess) -> None:
    paths = ["/api/v1/health", "/nothing", OF_A_THREAD, "/api/v1/symbols?x=1"] * 100
    request = b"".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for path in paths)
    last = b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", api.raw(request + last))
    assert statuses == [b"200", b"404", b"200", b"400"] * 100 + [b"200"]


SMUGGLED = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 0\r\nContent-Length: 47\r\n",
        b"Content-Length: 0, 47\r\n",
        b"Content-Length: +0\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x10\r\n",
        b"Content-Length: 1_0\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length:\r\n",
        b"Content-Length : 0\r\n",
        b" Content-Length: 0\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
        b"Content-Length: 10\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 10\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding\x00: chunked\r\n",
        b"Transfer_Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"X: 1\r\n folded: 2\r\n",
        b"X: a\nTransfer-Encoding: chunked\r\n",
        b"X: a\rTransfer-Encoding: chunked\r\n",
        b"X: \x00\r\n",
        b": nameless\r\n",
        b"no colon\r\n",
        b"Host: b\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(api: ApiProcess, headers: bytes) -> None:
    """One answer, an error, and the end: what stands behind is never taken for a request."""
    request = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n0\r\n\r\n" + SMUGGLED
    answer = api.raw(request)
    assert re.match(rb"HTTP/1\.1 (400|411|413|501) ", answer), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert_is_ours(answer)


@pytest.mark.parametrize(
    "line",
    [
        b"GET",
        b"GET /api/v1/health",
        b"GET  /api/v1/health HTTP/1.1",
        b"get /api/v1/health HTTP/1.1",
        b"GET /api/v1/health HTTP/9.9",
        b"GET /api/v1/health HTTP/2.0",
        b"GET /api/v1/hea\x00lth HTTP/1.1",
        b"GET /api/v1/hea\xfflth HTTP/1.1",
        b"GET /api/v1/symbols?q=\xff HTTP/1.1",
        b"GET /api/v1/symbols?q=a b HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /udf/time HTTP/1.x",
    ],
)
def test_a_line_that_is_none_is_refused(api: ApiProcess, line: bytes) -> None:
    assert_is_ours(api.raw(line + b"\r\nHost: a\r\n\r\n"), udf=b"/udf/" in line)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 4_200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /api/v1/symbols?q=" + b"%41" * 1_500 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 51 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000, 431),
        (b"a" * 200_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", 417),
        (b"GET /udf/time HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", 417),
    ],
)
def test_what_is_too_large_is_refused(api: ApiProcess, request_bytes: bytes, status: int) -> None:
    answer = api.raw(request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert_is_ours(answer, udf=b"/udf/" in request_bytes)


@pytest.mark.parametrize("host", [b"", b"a b", b"a/b", b"a:b", b"[", b"?", b"a\\b", b"-" * 256])
def test_a_host_that_is_none_is_refused_after_one_that_was_good(api: ApiProcess, host: bytes) -> None:
    ask = b"GET /api/v1/health HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
    for good in (b"localhost", b"a", b"127.0.0.1:80"):
        assert api.raw(ask % good).startswith(b"HTTP/1.1 200 ")
        answer = api.raw(ask % host)
        assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
        assert_is_ours(answer, closes=False)


def assert_is_ours(answer: bytes, *, udf: bool = False, closes: bool = True) -> None:
    """An error in the one shape, with the headers of every answer, and where it `closes` of itself, it says so."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    assert re.match(r"HTTP/1\.[01] [45]\d\d ", status), status
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"])
    assert headers["connection"] == "close" or not closes
    assert int(headers["content-length"]) == len(body)
    assert set(orjson.loads(body)) == ({"s", "errmsg"} if udf else {"error"})


@pytest.mark.parametrize(
    "symbol",
    [
        "'%20OR%201=1--",
        "BTCUSDT'%3BDROP%20TABLE%20symbolsmap%3B--",
        'BTCUSDT"%20UNION%20SELECT%20password_hash%20FROM%20users--',
        "%25",
        "BTC%25",
        "_______",
        "..%2f..%2f..%2fetc%2fpasswd",
        "..%5c..%5cwindows",
        "BTCUSDT%00.json",
        "BTCUSDT;jsessionid=1",
        "BTCUSDT%0d%0aX-Injected:%201",
        "%C0%AE%C0%AE",
        "\\..\\..",
        "%2e%2e",
        ".%2fBTCUSDT",
    ],
)
def test_a_symbol_is_a_name_and_nothing_else(api: ApiProcess, folder: Path, symbol: str) -> None:
    for path in ("", "/price", "/bars", "/enigma"):
        answer = api.ask(f"/api/v1/symbols/{symbol}{path}")
        assert answer.status == 404, answer
        assert "x-injected" not in answer.headers
    assert api.ask(f"/udf/symbols?symbol={symbol}").json["s"] == "error"
    searched = api.ask(f"/api/v1/symbols?q={symbol}")
    assert searched.status == 400 or searched.json == []
    with closing(open_catalog(config_of(folder))) as catalog:
        assert [known.name for known in catalog.symbols()] == [SYMBOL]


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize(
    "text", ["' OR '1'='1", "admin'--", '" OR ""="', "a\x00b", "\ud83d\ude00", "%s%n", "a\r\nb: c"]
)
def test_a_login_is_no_statement(api: ApiProcess, field: str, text: str) -> None:
    body = (
        orjson.dumps({"username": "nobody", "password": "nothing", field: text})
        if text.isprintable()
        else (b'{"username":"nobody","password":"nothing","%b":"x"}' % field.encode())
    )
    answer = api.ask("/api/v1/auth/login", "POST", body, Content_Type="application/json")
    assert answer.status in (400, 401, 429), answer
    assert set(answer.json) == {"error"}


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/api/v1/symbols/../metrics", {404}),
        ("/api/v1/./health", {404}),
        ("//api/v1/health", {200}),
        ("/api//v1/health", {404}),
        ("/api/v1/health/", {404}),
        ("/api/v1/health;a=b", {404}),
        ("/api/v1/health%00", {404}),
        ("/api/v1/health%2e", {404}),
        ("/api/v1/%68ealth", {200}),
        ("/assets/../../../etc/passwd", {404}),
        ("/assets/%2e%2e%2f%2e%2e%2fpyproject.toml", {404}),
        ("/assets/..%5c..%5csecret", {404}),
        ("/.git/config", {404}),
        ("/sim/session.secret", {404}),
        ("/api/v1/symbols?" + "q=a&" * 21, {400}),
        ("/api/v1/symbols?" + "a" * 3_000, {400}),
        ("/api/v1/symbols?%", {400}),
        ("/api/v1/symbols?q=%zz", {200, 400}),
        ("/api/v1/symbols?q=%ed%a0%80", {400}),
        ("/api/v1/symbols?q[]=1", {400}),
        (f"/api/v1/symbols/{SYMBOL}/bars?from=1e400", {400}),
        (f"/api/v1/symbols/{SYMBOL}/bars?from=%D9%A1", {400}),
        (f"/api/v1/symbols/{SYMBOL}/bars?limit=5000&limit=1", {400}),
        ("http://other.example/api/v1/health", {200, 400, 404}),
    ],
)
def test_paths_and_queries(api: ApiProcess, path: str, statuses: set[int]) -> None:
    answer = api.ask(path)
    assert answer.status in statuses, answer
    assert b"root:" not in answer.body


def named(api: ApiProcess, path: str, host: str) -> bytes:
    return api.raw(f"GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode())


@pytest.mark.parametrize(
    "host",
    [
        *(
            "<script>alert(1)</script>",
            "a b",
            '"',
            "[::1",
            "a,b",
            "x" * 5_000,
            "a:b",
            "a:",
            "a:-1",
            "a:123456",
            "",
        ),
        *("user@a", "a/b", "a?b", "a#b", "[zz]", "a:80:80", "\u0430.example"),
    ],
)
def test_a_host_that_is_none_is_refused(api: ApiProcess, host: str) -> None:
    for path in ("/", "/api/v1/ws", "/api/v1/docs", "/nothing"):
        assert_is_ours(named(api, path, f"Host: {host}\r\n"), closes=False)
    assert_is_ours(named(api, "/udf/time", f"Host: {host}\r\n"), udf=True, closes=False)


def test_a_host_is_needed_and_may_be_any_name(api: ApiProcess) -> None:
    assert_is_ours(named(api, "/", ""), closes=False)
    assert api.raw(b"GET /api/v1/health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")
    for host in ("evil.example", "evil.example:99999", "[::1]:8080", "xn--80a.example"):
        for path, status in (("/", b"200"), ("/api/v1/ws", b"426")):
            answer = named(api, path, f"Host: {host}\r\n")
            assert answer.startswith(b"HTTP/1.1 %b " % status), answer[:300]


def test_every_path_takes_head_and_options(api: ApiProcess) -> None:
    for template, methods in document()["paths"].items():
        path = template.replace("{symbol}", SYMBOL)
        told = api.ask(path, "OPTIONS")
        allowed = set(told.headers["allow"].split(", "))
        assert told.status in (200, 204), (path, told)
        assert {method.upper() for method in methods} <= allowed | {"OPTIONS"}
        if "get" in methods:
            assert {"GET", "HEAD"} <= allowed
            got, head = api.ask(path), api.ask(path, "HEAD")
            assert (head.status, head.body) == (got.status, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
        wrong = api.ask(path, "PATCH")
        assert (wrong.status, set(wrong.headers["allow"].split(", "))) == (405, allowed)
        for method in ("TRACE", "CONNECT", "PROPFIND", "WEBSOCKET"):
            odd = api.ask(path, method)
            assert odd.status in (400, 405), (path, method)
            assert "x-request-id" in odd.headers


def test_a_preflight_names_what_is_configured(folder: Path) -> None:
    configured = {
        "SERVER_CORS_ALLOWED_ORIGINS": "*",
        "SERVER_CORS_ALLOW_CREDENTIALS": "false",
        "SERVER_CORS_ALLOWED_METHODS": "GET",
        "SERVER_CORS_ALLOWED_HEADERS": "X-One,X-Two",
        "SERVER_CORS_EXPOSE_HEADERS": "",
    }
    with ApiProcess(folder, **configured) as api:
        origin = {"Origin": "https://anywhere.example"}
        preflight = api.ask("/api/v1/symbols", "OPTIONS", Access_Control_Request_Method="GET", **origin)
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert preflight.headers["access-control-allow-methods"] == "GET"
        assert preflight.headers["access-control-allow-headers"] == "X-One, X-Two"
        assert "access-control-allow-credentials" not in preflight.headers
        for path in ("/api/v1/symbols", "/nothing", "/udf/nothing"):
            assert api.ask(path, **origin).headers["access-control-allow-origin"] == "*"
    with pytest.raises(AssertionError, match=r"allowed_origins is \* while .*allow_credentials is true"):
        ApiProcess(folder, **{**configured, "SERVER_CORS_ALLOW_CREDENTIALS": "true"})
