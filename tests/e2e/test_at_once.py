"""While each thread of the API waits for a store, what waits for nothing is answered."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

from tests.e2e.api import ApiProcess
from tests.e2e.child import SIM_EXCHANGE
from tests.servers.redis import RedisServer
from tradeback.api.gunicorn_conf import THREADS
from tradeback.commands.api import waits_for_nothing
from tradeback.config import load_config

SAFETY = 60.0
COUNTED = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"


def test_whether_it_lives_needs_no_thread(tmp_path: Path, redis_server: RedisServer) -> None:
    with (
        ApiProcess(tmp_path, REDIS_ADDR=redis_server.addr, REDIS_DB="0", REDIS_TIMEOUT="10m") as api,
        ExitStack() as stack,
    ):
        # Each waits until it is counted.
        redis_server.halt()
        waiting = [
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", api.port), timeout=SAFETY)))
            for _ in range(2 * THREADS)
        ]
        for one in waiting:
            one.sendall(COUNTED)
        with closing(HTTPConnection("127.0.0.1", api.port, timeout=SAFETY)) as connection:
            for _ in range(3):
                connection.request("GET", "/api/v1/health")
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
        assert select.select(waiting, [], [], 0)[0] == []
        redis_server.go_on()
        for one in waiting:
            assert one.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_what_may_wait_has_a_thread(tmp_path: Path) -> None:
    here = {**SIM_EXCHANGE, "DATA_DIR": str(tmp_path)}
    at_once = waits_for_nothing(load_config(environ=here))
    price, health = b"GET /api/v1/symbols/BTCUSDT/price HTTP/1.1\r\nHo", b"GET /api/v1/health HTTP/1.1\r\n"
    assert at_once(price)
    assert at_once(health)
    for other in (
        b"GET /api/v1/symbols/BTCUSDT/bars HTTP/1.1",
        b"GET /api/v1/health/ready HTTP/1.1",
        b"POST /api/v1/health HTTP/1.1",
        b"GET /api/v1/symbols HTTP/1.1",
        b"GET /?/api/v1/health HTTP/1.1",
        b"",
    ):
        assert not at_once(other)
    for elsewhere in ({"REDIS_ADDR": "127.0.0.1:1"}, {"MYSQL_HOST": "127.0.0.1"}):
        at_once = waits_for_nothing(load_config(environ={**here, **elsewhere}))
        assert at_once(health)
        assert not at_once(price)
