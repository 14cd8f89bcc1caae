"""Requests with bytes put in, taken out and changed, sent in pieces: each gets a clean answer, and nothing hangs."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.e2e.api import ANSWER_S, ApiProcess

REQUESTS = 400
WHOLE = [
    b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    b'{"a":"b"}',
    b"GET /api/v1/symbols?q=%41&x=1 HTTP/1.1\r\nHost: a\r\nCookie: session_token=abc; b=c\r\n"
    b"Authorization: Bearer x\r\n\r\n",
    b"POST /api/v1/symbols HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"OPTIONS /udf/time HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nAccess-Control-Request-Method: GET\r\n"
    b"X-Forwarded-For: 192.0.2.1\r\n\r\n",
    b"PUT /api/v1/marketwatch HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    b'GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0\r\nIf-None-Match: W/"x", *\r\n\r\n',
    b"GET /api/v1/ws HTTP/1.1\r\nHost: a:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]
PIECES = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b"\t",
        b"\xff",
        b"\r\n\r\n",
        b"%",
        b"//",
        b"..",
        b";",
        b"{",
        b"-1",
    ),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"Connection: close\r\n"),
    *(b"Expect: 100-continue\r\n", b"HTTP/1.1", b"HTTP/2", b"a" * 5_000, b"9" * 30, b"\xc3\xa9"),
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n",
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    folder = tmp_path_factory.mktemp("mutated")
    patient = {"SERVER_READ_TIMEOUT": "10m", "LIMIT_PAGE": "off", "LIMIT_AUTH": "off", "LIMIT_UDF": "off"}
    with ApiProcess(folder, **patient) as api:
        yield api
    log = (folder / "api.log").read_text()
    assert "Traceback" not in log
    assert '"level": "error"' not in log


def mutated(choice: random.Random) -> bytes:
    data = bytearray(b"".join(choice.choice(WHOLE) for _ in range(choice.choice([1, 1, 1, 2, 5]))))
    for _ in range(choice.choice([0, 1, 1, 2, 3, 8])):
        place = choice.randrange(len(data) + 1)
        what = choice.random()
        if what < 0.45:
            data[place:place] = choice.choice(PIECES)
        elif what < 0.7:
            del data[place : place + choice.choice([1, 1, 2, 5, 20])]
        elif what < 0.85 and place < len(data):
            data[place] = choice.randrange(256)
        else:
            start = choice.randrange(len(data) + 1)
            data[place:place] = data[start : start + choice.randrange(60)]
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_a_mutated_request_is_answered_cleanly(api: ApiProcess, seed: int) -> None:
    choice = random.Random(seed)
    answered = 0
    for _ in range(REQUESTS):
        data = mutated(choice)
        with socket.create_connection(("127.0.0.1", api.port), timeout=ANSWER_S) as connection:
            got = b""
            try:
                cuts = sorted(choice.randrange(len(data) + 1) for _ in range(choice.choice([0, 0, 1, 3])))
                for start, end in pairwise([0, *cuts, len(data)]):
                    connection.sendall(data[start:end])
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65_536):
                    got += part
            except ConnectionError:
                continue  # it answered and ended before all was sent
        statuses = re.findall(rb"HTTP/1\.[01] (\d\d\d) ", got)
        assert b"500" not in statuses, data
        answered += bool(statuses)
    assert answered > REQUESTS / 2
    assert api.ask("/api/v1/health").status == 200
