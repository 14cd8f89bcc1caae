"""Questions over the bus to a real recorder: answered as REST answers, once, whatever others send there."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import private
from tests.e2e.api import ApiProcess
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, trade_and_drain
from tests.servers.nats import NET, NatsServer
from tests.waiting import await_true

CARRIED = {"EXCHANGE_SYMBOLS": "BTCUSDT", "RECORDER_HISTORY_DAYS": "0"}


class Asker:
    """Asks on a connection of plain sockets, and reads all answers."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), NET)
        self._lines = self._socket.makefile("rb")
        self._numbers = itertools.count()
        self._socket.sendall(
            b'CONNECT {"verbose":false,"no_responders":true,"headers":true}\r\nSUB answers.* 1\r\n'
        )

    def send(self, subject: bytes, content: bytes = b"", reply: bytes = b"") -> None:
        self._socket.sendall(
            b"PUB %b %b%d\r\n%b\r\n" % (subject, reply and reply + b" ", len(content), content)
        )

    def ask(self, subject: bytes, content: bytes = b"") -> Any:
        """The JSON that is answered; None where nobody listens."""
        reply = b"answers.%d" % next(self._numbers)
        self.send(subject, content, reply)
        while line := self._lines.readline():
            words = line.split()
            if words[:1] in ([b"MSG"], [b"HMSG"]):
                payload = self._lines.read(int(words[-1]))
                assert words[1] == reply, "an answer came that nobody waits for"
                return None if words[0] == b"HMSG" else json.loads(payload)
            if words[:1] == [b"PING"]:
                self._socket.sendall(b"PONG\r\n")
        raise AssertionError("the server closed the connection")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Asked:
    """Server, recorder, API and bus, with some trades; and who asks."""

    def __init__(self, nats: NatsServer, recorder: RecorderProcess, api: ApiProcess) -> None:
        self.nats, self.recorder, self.api = nats, recorder, api
        self.asker = Asker(nats.port)

    def ask(self, subject: str, content: bytes = b"") -> Any:
        return self.asker.ask(subject.encode(), content)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("asked")
    with (
        private(NatsServer, tmp_path_factory.mktemp("broker") / "nats") as nats,
        SimProcess("--symbols", "3", "--rate", "2000", "--paused") as sim,
        ServerProcess(folder, sim, **CARRIED) as server,
        RecorderProcess(folder, sim, **CARRIED, **nats.environment) as recorder,
        ApiProcess(folder, **nats.environment) as api,
    ):
        server.await_subscribed(1)
        trade_and_drain(sim.rest_endpoint, 1_000)
        await_listening(recorder)
        running = Asked(nats, recorder, api)
        yield running
        running.asker.close()


def await_listening(recorder: RecorderProcess) -> None:
    await_true(
        lambda: recorder.control(type="status")["requests"]["listening"], "the recorder answers nobody"
    )


def test_answers_are_those_of_rest(asked: Asked) -> None:
    assert asked.ask("request.symbol.BTCUSDT") == asked.api.get("/api/v1/symbols/BTCUSDT")

    def price_is_the_same() -> bool:
        told, rest = asked.ask("request.price.BTCUSDT"), asked.api.get("/api/v1/symbols/BTCUSDT/price")
        assert told.pop("stale_ms") <= rest.pop("stale_ms")
        return bool(told == rest)

    # The volume of the day comes when the exchange's klines have told it, perhaps between the two questions.
    await_true(price_is_the_same, "the price is another than that of REST")
    health = asked.ask("request.health")
    assert health["exchange"] == "sim"
    detailed = asked.api.get("/api/v1/health/detailed")
    assert health["processes"] == detailed["processes"]
    assert abs(health["as_of_ms"] - time.time() * 1000) < 60_000
    assert health["sinks"].keys() == detailed["sinks"].keys()
    assert {sink["state"] for sink in health["sinks"].values()} == {"ok"}


def test_what_has_no_answer_is_told_why(asked: Asked) -> None:
    for name in ("NOSUCH", "btcusdt", "x" * 2_000, "'; DROP TABLE users", "☃", "%s"):
        for kind in ("symbol", "price"):
            if " " not in name:
                assert asked.ask(f"request.{kind}.{name}")["error"]["code"] == "unknown_symbol", name
    assert asked.ask("request.price.ETHUSDT")["error"]["code"] == "no_price"
    assert asked.ask("request.nothing") is None
    assert asked.ask("request.price.BTCUSDT.more") is None


def test_what_others_send_there_breaks_nothing(asked: Asked) -> None:
    asker = asked.asker
    for content in (b"", b"\xff" * 1_000, b"\r\n" * 50, b"{" * 500):
        assert asker.ask(b"request.price.BTCUSDT", content)["symbol"] == "BTCUSDT"
    for _ in range(5_000):  # which nobody waits for
        asker.send(b"request.price.BTCUSDT")
    for number in range(5_000):
        asker.send(b"request.symbol.%d" % number, b"", b"nobody.%d" % number)
    asker.send(b"request.price.\xff\xfe", b"", b"nobody.here")
    asker.send(b"request.symbol.\x01\x7f", b"", b"nobody.here")
    # More than is kept of them: the recorder takes it up again.
    await_listening(asked.recorder)
    await_true(lambda: answered(asked), "nobody answers any more")
    assert "Traceback" not in asked.recorder.said()


def answered(asked: Asked) -> bool:
    """Whether somebody answers within a second. Who asks too much at once is not answered."""
    asker = Asker(asked.nats.port)
    asker._socket.settimeout(1)
    try:
        return bool(asker.ask(b"request.price.BTCUSDT"))
    except TimeoutError:
        return False
    finally:
        asker.close()


def test_a_recorder_finds_its_bus_again(asked: Asked, tmp_path: Path) -> None:
    asked.asker.close()
    for end, begin in ((asked.nats.kill, asked.nats.start), (asked.nats.halt, asked.nats.go_on)):
        end()
        await_true(
            lambda: not asked.recorder.control(type="status")["requests"]["listening"], "it was not noticed"
        )
        begin()
        await_listening(asked.recorder)
        await_true(lambda: answered(asked), "nobody answers any more")
    assert "Traceback" not in asked.recorder.said()
    asked.asker = Asker(asked.nats.port)
