"""The REST interface over real processes: a simulated exchange, server, recorder and API."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.e2e.api import SYMBOL, ApiProcess, Running, all_running
from tests.e2e.running import pause_and_drain, stream_ids, trade_and_drain
from tests.servers.services import ASKED_FOR, config_of
from tradeback.store.histories import open_history


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with all_running(tmp_path_factory.mktemp("api")) as running:
        yield running


def test_symbols(running: Running) -> None:
    answer = running.api.ask("/api/v1/symbols")
    assert {row["symbol"]: row["id"] for row in answer.json} == stream_ids(running.folder)
    assert answer.headers["x-total-count"] == "5"
    assert set(answer.json[0]) >= {"symbol", "name", "base_currency", "quote_currency", "is_active"}
    same = running.api.ask("/api/v1/symbols", If_None_Match=answer.headers["etag"])
    assert (same.status, same.body) == (304, b"")
    assert [row["symbol"] for row in running.api.get("/api/v1/symbols?q=btc")] == [SYMBOL]
    assert running.api.get("/api/v1/symbols?q=nothing") == []
    assert running.api.get(f"/api/v1/symbols/{SYMBOL}")["symbol"] == SYMBOL


def test_price(running: Running) -> None:
    answer = running.api.ask(f"/api/v1/symbols/{SYMBOL}/price")
    price = answer.json
    assert set(price) == {"symbol", "price", "bid", "ask", "volume", "timestamp", "stale_ms"}
    assert answer.headers["cache-control"] == "no-store"
    assert price["bid"] < price["ask"]
    assert abs(price["timestamp"] - time.time() * 1000) < 600_000
    assert price["stale_ms"] >= 0
    trade_and_drain(running.sim.rest_endpoint, 500)
    assert running.api.get(f"/api/v1/symbols/{SYMBOL}/price") != price
    listed = running.api.ask("/api/v1/symbols/BNBUSDT/price")
    assert (listed.status, listed.json["error"]["code"]) == (404, "no_price")


def test_bars(running: Running) -> None:
    path = f"/api/v1/symbols/{SYMBOL}/bars"
    bars = running.api.get(path)["bars"]
    assert bars
    assert set(bars[0]) == {"time", "open", "high", "low", "close", "volume"}
    first = bars[0]["time"]
    assert first % 60 == 0
    assert running.api.get(f"{path}?from={first}&to={first + 1}")["bars"] == bars[:1]
    assert running.api.get(f"{path}?from=600&to=660")["bars"] == []
    open_now = running.api.ask(f"{path}?from={first}")
    assert open_now.headers["cache-control"] == "no-store"
    assert "etag" not in open_now.headers
    closed = running.api.ask(f"{path}?from={first - 600}&to={first}")
    assert closed.headers["cache-control"].startswith("public")
    again = running.api.ask(f"{path}?from={first - 600}&to={first}", If_None_Match=closed.headers["etag"])
    assert again.status == 304
    (day,) = running.api.get(f"{path}?resolution=1d&limit=1")["bars"]
    assert day["time"] % 86_400 == 0


def test_enigma(running: Running) -> None:
    level = running.api.get(f"/api/v1/symbols/{SYMBOL}/enigma")
    assert level["atl"] <= level["current_price"] <= level["ath"]
    assert set(level["fib_levels"]) == {"0", "23.6", "38.2", "50", "61.8", "78.6", "100"}


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("symbols?q=" + "x" * 51, "q"),
        ("symbols?unknown=1", "unknown"),
        ("symbols?q=a&q=b", "q"),
        ("symbols?q=%ff", "query"),
        ("symbols?q=%00", "q"),
        (f"symbols/{SYMBOL}/price?x=1", "x"),
        (f"symbols/{SYMBOL}/bars?resolution=2m", "resolution"),
        (f"symbols/{SYMBOL}/bars?from=yesterday", "from"),
        (f"symbols/{SYMBOL}/bars?from=-1", "from"),
        (f"symbols/{SYMBOL}/bars?to=1e9", "to"),
        (f"symbols/{SYMBOL}/bars?to=" + "9" * 30, "to"),
        (f"symbols/{SYMBOL}/bars?from=10&to=10", "from"),
        (f"symbols/{SYMBOL}/bars?limit=5001", "limit"),
        (f"symbols/{SYMBOL}/bars?limit=0", "limit"),
    ],
)
def test_a_bad_parameter_is_named(running: Running, path: str, parameter: str) -> None:
    answer = running.api.ask(f"/api/v1/{path}")
    assert answer.status == 400
    assert answer.json["error"]["code"] == "bad_parameter"
    assert answer.json["error"]["parameter"] == parameter


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1",
        "/api/v1/nothing",
        "/api/v1/symbols/NOTHING",
        "/api/v1/symbols/btcusdt/price",
        "/api/v1/symbols/../../etc/passwd",
        "/api/v1/symbols/%2e%2e%2f%2e%2e%2fetc%2fpasswd/price",
        "/api/v1/symbols/%00/price",
        "/api/v1/symbols/BTCUSDT'%20OR%201=1--/bars",
        "/api/v1/symbols//price",
        "/api/v1/symbols/%ff%fe/price",
    ],
)
def test_what_is_not_there_is_404(running: Running, path: str) -> None:
    answer = running.api.ask(path)
    assert answer.status == 404, answer
    assert set(answer.json) == {"error"}
    assert "Traceback" not in answer.body.decode()


def test_methods(running: Running) -> None:
    whole = running.api.ask("/api/v1/symbols")
    head = running.api.ask("/api/v1/symbols", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert head.headers["etag"] == whole.headers["etag"]
    wrong = running.api.ask("/api/v1/symbols", "DELETE")
    assert wrong.status == 405
    assert {"GET", "HEAD", "OPTIONS"} <= set(wrong.headers["allow"].split(", "))
    options = running.api.ask("/api/v1/symbols", "OPTIONS")
    assert options.status == 200
    assert "GET" in options.headers["allow"]


def test_bodies_are_bounded(running: Running) -> None:
    large = running.api.ask("/api/v1/symbols", "POST", b"x" * 65_537)
    assert (large.status, large.json["error"]["code"]) == (413, "too_large")
    lying = b"POST /api/v1/symbols HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"
    assert b" 413 " in running.api.raw(lying).split(b"\r\n")[0]
    chunked = b"POST /api/v1/symbols HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    assert b" 411 " in running.api.raw(chunked).split(b"\r\n")[0]


def test_clients_that_never_end_their_request_hold_nobody_up(running: Running) -> None:
    limits = {"SERVER_READ_TIMEOUT": "3s", "SERVER_WRITE_TIMEOUT": "1s"}
    with ApiProcess(running.folder, **limits) as api, ExitStack() as stack:
        slow = [
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", api.port), timeout=60)))
            for _ in range(40)
        ]
        for connection in slow:
            connection.sendall(b"GET /api/v1/symbols HTTP/1.1\r\nHost: a\r\n")
        assert api.ask("/api/v1/symbols").status == 200
        # Each is cut off.
        assert all(connection.recv(1) == b"" for connection in slow)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\nX: a\r\n b\x00\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_malformed_requests_are_refused(running: Running, request_bytes: bytes) -> None:
    status = int(running.api.raw(request_bytes).split(b" ", 2)[1])
    assert 400 <= status < 500
    assert running.api.ask("/api/v1/health").status == 200


def test_nothing_of_a_request_becomes_a_header(running: Running) -> None:
    path = "/api/v1/symbols/%0d%0aX-Injected:%201/price"
    for answer in (running.api.ask(path), running.api.ask("/api/v1/health", X_Request_Id="evil")):
        assert "x-injected" not in answer.headers
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


def test_headers_of_every_answer(running: Running) -> None:
    for path in ("/api/v1/symbols", "/nothing", "/api/v1/symbols?x=1"):
        headers = running.api.ask(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["content-type"].startswith("application/json")


def test_cors(running: Running) -> None:
    for origin in ("https://charts.example", "http://127.0.0.1:5173"):
        answer = running.api.ask("/api/v1/symbols", Origin=origin)
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-expose-headers"] == "X-Total-Count"
        assert "Origin" in answer.headers["vary"]
    for origin in ("https://evil.example", "null", "https://charts.example.evil.example"):
        assert "access-control-allow-origin" not in running.api.ask("/api/v1/symbols", Origin=origin).headers
    preflight = running.api.ask(
        "/api/v1/symbols", "OPTIONS", Origin="https://charts.example", Access_Control_Request_Method="GET"
    )
    assert "GET" in preflight.headers["access-control-allow-methods"]
    assert "Authorization" in preflight.headers["access-control-allow-headers"]


def test_health(running: Running) -> None:
    assert running.api.get("/api/v1/health") == {"status": "ok"}
    assert running.api.get("/api/v1/health/ready")["components"] == dict.fromkeys(
        ("catalog", "history", "prices"), "ok"
    )
    detailed = running.api.get("/api/v1/health/detailed")
    assert detailed["components"]["prices"]["symbols_with_price"] == 2
    assert detailed["processes"]["server"]["state"] == "running"


def test_metrics(running: Running) -> None:
    def metrics() -> str:
        return running.api.ask("/api/v1/metrics").body.decode()

    assert running.api.ask("/api/v1/symbols").status == 200
    # The volumes of the day wait for the exchange's klines.
    deadline = time.monotonic() + 60
    while not re.search(r"^tradeback_recorder_day_volumes_total [1-9]", text := metrics(), re.M):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    assert 'tradeback_up{process="server"} 1.0' in text
    assert re.search(r"^tradeback_server_\w+_total [1-9]", text, re.M)
    assert re.search(r"^tradeback_server_\w+_seconds_bucket", text, re.M)
    # The recorder fetched the trades of the minute in which symbols began.
    for name in ("repair_steps_total", "rest_weight_limit"):
        assert re.search(rf"^tradeback_recorder_{name} [1-9]", text, re.M), name
    assert 'tradeback_api_requests_total{method="GET",route="/api/v1/symbols",status="200"}' in text
    seconds = "tradeback_api_request_seconds"
    buckets = [
        float(line.split()[1])
        for line in text.splitlines()
        if line.startswith(f"{seconds}_bucket") and 'route="/api/v1/symbols"' in line
    ]
    assert len(buckets) == 13
    assert buckets == sorted(buckets)
    assert f'{seconds}_count{{route="/api/v1/symbols"}} {buckets[-1]}' in text


def test_the_websocket_is_elsewhere(running: Running) -> None:
    answer = running.api.ask("/api/v1/ws")
    assert answer.status == 426
    assert answer.headers["upgrade"] == "websocket"
    assert answer.json["error"]["websocket"] == f"ws://127.0.0.1:{running.server.ws_port}/api/v1/ws"


def test_it_answers_while_the_recorder_writes(running: Running) -> None:
    running.sim.get("/sim/resume")
    try:
        seen: set[float] = set()
        asked, deadline = 0, time.monotonic() + 60
        # 200 answers may take no longer than the recorder takes for its next batch.
        while asked < 200 or len(seen) < 2:
            seen.add(running.api.get(f"/api/v1/symbols/{SYMBOL}/bars?limit=1")["bars"][0]["volume"])
            asked += 1
            assert time.monotonic() < deadline, f"{asked} answers, and nothing was written meanwhile"
    finally:
        pause_and_drain(running.sim.rest_endpoint)


def test_what_is_missing_or_torn_is_named(tmp_path: Path) -> None:
    with ApiProcess(tmp_path) as api:
        ready = api.ask("/api/v1/health/ready")
        assert ready.status == 503
        # An InfluxDB can be read before anything was written to it.
        missing = {name for name, state in ready.json["components"].items() if state == "unavailable"}
        assert missing >= {"catalog", "prices"} | (set() if ASKED_FOR else {"history"})
        answer = api.ask("/api/v1/symbols")
        assert (answer.status, answer.json["error"]["component"]) == (503, "catalog")
        assert str(tmp_path) not in answer.body.decode()
        assert api.get("/api/v1/health") == {"status": "ok"}
        assert api.stop() == 0
    assert "Traceback" not in (tmp_path / "api.log").read_text()


@pytest.mark.embedded("its file is moved away")
def test_a_history_that_goes_and_comes_again(running: Running) -> None:
    history = running.folder / "sim" / "history.sqlite"
    kept = history.with_name("kept.sqlite")
    path = f"/api/v1/symbols/{SYMBOL}/bars"
    assert running.api.get(path)["bars"]
    history.rename(kept)
    try:
        answer = running.api.ask(path)
        assert (answer.status, answer.json["error"]["component"]) == (503, "history")
        assert running.api.ask("/api/v1/health/ready").status == 503
        assert running.api.get(f"/api/v1/symbols/{SYMBOL}/price")
    finally:
        kept.rename(history)
    assert running.api.get(path)["bars"]


@pytest.mark.embedded("its file is torn")
def test_a_torn_history_is_named(running: Running, tmp_path: Path) -> None:
    folder = tmp_path / "sim"
    folder.mkdir()
    shutil.copy(running.folder / "sim" / "catalog.sqlite", folder)
    history = folder / "history.sqlite"
    history.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    path = f"/api/v1/symbols/{SYMBOL}/bars"
    with ApiProcess(tmp_path) as api:
        answer = api.ask(path)
        assert (answer.status, answer.json["error"]["component"]) == (503, "history")
        history.unlink()
        open_history(config_of(tmp_path), write=True).close()
        assert api.get(path)["bars"] == []
