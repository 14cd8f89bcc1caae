"""A real `tradeback api`, and requests to it, byte by byte where it matters."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.child import ReadyChild
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, trade_and_drain

ANSWER_S = 30
SYMBOL = "BTCUSDT"


@dataclass(frozen=True)
class Answer:
    """Status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ApiProcess(ReadyChild):
    """`tradeback api` on a free port, on the data folder of a simulated exchange."""

    def __init__(self, folder: Path, **environment: str) -> None:
        mine = {"SERVER_HOST": "127.0.0.1", "SERVER_PORT": "0"}
        super().__init__("api", folder, (), {**mine, **environment})
        self.address = self.addresses["rest"]
        self.host = urllib.parse.urlsplit(self.address).hostname or "127.0.0.1"
        self.port = urllib.parse.urlsplit(self.address).port or 0

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; `_` in a header's name stands for `-`."""
        return ask((self.host, self.port), path, method, body, **headers)

    def get(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        answer = self.ask(path)
        assert answer.status == 200, answer
        return answer.json

    def raw(self, request: bytes) -> bytes:
        """All bytes that are answered to these until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_S) as connection:
            connection.sendall(request)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            return b"".join(parts)


def ask(
    to: int | tuple[str, int], path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> Answer:
    """One request to a host and port, or to a port of this machine."""
    host, port = to if isinstance(to, tuple) else ("127.0.0.1", to)
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, told, response.read())
    finally:
        connection.close()


@dataclass(frozen=True)
class Running:
    """A simulated exchange, server, recorder and API, with 4,000 messages of two symbols stored."""

    folder: Path
    sim: SimProcess
    server: ServerProcess
    api: ApiProcess


@contextmanager
def all_running(folder: Path) -> Iterator[Running]:
    """All four, ended with the block."""
    with SimProcess("--symbols", "5", "--rate", "2000", "--paused") as sim:
        symbols = {"EXCHANGE_SYMBOLS": "BTCUSDT,ETHUSDT"}
        with ServerProcess(folder, sim, **symbols) as server, RecorderProcess(folder, sim) as recorder:
            server.await_subscribed(2)
            trade_and_drain(sim.rest_endpoint, 4_000)
            recorder.await_stored()
            ports = {"WS_PORT": str(server.ws_port)}
            origins = {"SERVER_CORS_ALLOWED_ORIGINS": "https://charts.example"}
            with ApiProcess(folder, **ports, **origins) as api:
                yield Running(folder, sim, server, api)
