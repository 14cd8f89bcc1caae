"""While each thread of the API waits for a store, whether it lives is answered."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

from tests.e2e.api import ApiProcess
from tests.servers.redis import RedisServer
from tradeback.api.gunicorn_conf import THREADS

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
