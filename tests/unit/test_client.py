"""The client against a small server on loopback: what it decodes, and when it connects again."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from tradeback._fast.batch import decode_frame, encode_frames
from tradeback.cli import main
from tradeback.client import AutoSubscribed, AutoUnsubscribed, Client, Event, Level, Refused, Update
from tradeback.client import client as client_module
from tradeback.client import connection as connection_module
from tradeback.client import events as events_module
from tradeback.client.events import Backlog
from tradeback.commands import watch as watch_module
from tradeback.errors import CLOSE_REASONS, ProtocolError, ServerRefusedError, UnknownSymbolError

PATIENCE = 120.0
ENOUGH = ("0.5", "5", "50")  # seconds for one connection: the first of them that are
IDS = {"BTCUSDT": 1, "ETHUSDT": 65_535}


@dataclass
class Server:
    """Answers as the protocol says; `frames` are sent after each subscription, `after` does the rest."""

    frames: list[bytes] = field(default_factory=list)
    after: Callable[[WSTransport, int], None] = lambda transport, connection: None
    status: int = 101
    answers_pings: bool = True
    connections: int = 0
    asked: list[list[str]] = field(default_factory=list)
    url: str = ""

    def accept(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener | WSListener:
        if self.status != 101:
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(self.status), None)
        self.connections += 1
        return _Peer(self, self.connections)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Server]:
        server = await ws_create_server(self.accept, "127.0.0.1", 0, enable_auto_ping=False)
        port = server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}/api/v1/ws"
        try:
            yield self
        finally:
            server.close()


class _Peer(WSListener):
    def __init__(self, server: Server, connection: int) -> None:
        super().__init__()
        self.server = server
        self.connection = connection

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        if frame.msg_type != WSMsgType.TEXT:
            return
        message = orjson.loads(frame.get_payload_as_bytes())
        if message["type"] == "ping" and self.server.answers_pings:
            send(transport, {"type": "pong"})
        if message["type"] == "subscribe":
            names = message["symbols"]
            self.server.asked.append(names)
            known = [{"symbol": name, "id": IDS[name]} for name in names if name in IDS]
            unknown = [name for name in names if name not in IDS]
            if unknown:
                error = {
                    "type": "error",
                    "code": "unknown_symbols",
                    "message": "No such symbol",
                    "symbols": unknown,
                }
                send(transport, error)
            if known:
                send(transport, {"type": "subscribed", "symbols": known})
            for frame_bytes in self.server.frames:
                transport.send(WSMsgType.BINARY, frame_bytes)
            self.server.after(transport, self.connection)


def send(transport: WSTransport, message: object) -> None:
    transport.send(WSMsgType.TEXT, orjson.dumps(message))


def frame_of(*records: tuple[int, float, float]) -> bytes:
    body = struct.pack("<H", len(records)) + b"".join(struct.pack("<Hdd", *record) for record in records)
    return struct.pack("<I", zlib.crc32(body)) + body


async def take(client: Client, count: int) -> list[Update]:
    updates = []
    async with asyncio.timeout(PATIENCE):
        async for update in client:
            updates.append(update)
            if len(updates) == count:
                break
    return updates


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(connection_module, "PING_INTERVAL_S", 0.05)


RECORDS = st.lists(
    st.tuples(st.integers(1, 65_535), st.floats(allow_nan=False), st.floats(allow_nan=False)),
    min_size=1,
    max_size=50,
)


@given(RECORDS)
def test_a_frame_is_decoded_as_it_was_encoded(records: list[tuple[int, float, float]]) -> None:
    assert decode_frame(frame_of(*records)) == records


def test_what_the_server_encodes_is_read() -> None:
    records = [(1, 2.0, 3.0), (65_535, 0.1, 0.0)]
    websocket_header = 2
    assert decode_frame(encode_frames(records)[websocket_header:]) == records


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "short_frame"),
        (frame_of((1, 2.0, 3.0))[:-1], "bad_length"),
        (frame_of((1, 2.0, 3.0)) + b"\0", "bad_length"),
        (frame_of((1, 2.0, 3.0))[:-1] + b"\1", "bad_crc"),
    ],
)
def test_a_damaged_frame_is_refused(frame: bytes, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_frame(frame)
    assert caught.value.code == code


def test_updates_come_with_their_symbols() -> None:
    async def scenario() -> None:
        async with Server([frame_of((1, 50_000.5, 0.0), (65_535, 4.0, 2.0))]).listening() as server:
            async with Client(server.url, ["btcusdt", "ETHUSDT", "BTCUSDT"]) as client:
                assert await take(client, 2) == [("BTCUSDT", 50_000.5, 0.0), ("ETHUSDT", 4.0, 2.0)]
            assert server.asked == [["BTCUSDT", "ETHUSDT"]]

    asyncio.run(scenario())


def test_prices_as_text() -> None:
    def prices(transport: WSTransport, connection: int) -> None:
        send(transport, {"type": "prices", "data": [{"symbol": "BTCUSDT", "price": 1.5, "volume": 2}]})

    async def scenario() -> None:
        async with Server(after=prices).listening() as server, Client(server.url, ["BTCUSDT"]) as client:
            assert await take(client, 1) == [("BTCUSDT", 1.5, 2)]

    asyncio.run(scenario())


def test_the_round_trip_is_measured() -> None:
    async def scenario() -> None:
        async with Server().listening() as server, Client(server.url, ["BTCUSDT"]) as client:
            async with asyncio.timeout(PATIENCE):
                while client.round_trip_s is None:
                    await asyncio.sleep(0.01)
            assert 0 < client.round_trip_s < 60

    asyncio.run(scenario())


def close_with(code: int) -> Callable[[WSTransport, int], None]:
    def close(transport: WSTransport, connection: int) -> None:
        if connection == 1:
            transport.send_close(code, b"as asked")

    return close


def break_off(transport: WSTransport, connection: int) -> None:
    if connection == 1:
        transport.disconnect(graceful=False)


def send_garbage(transport: WSTransport, connection: int) -> None:
    if connection == 1:
        transport.send(WSMsgType.BINARY, frame_of((1, 2.0, 3.0))[:-1] + b"\1")


def name_an_unknown_id(transport: WSTransport, connection: int) -> None:
    if connection == 1:
        transport.send(WSMsgType.BINARY, frame_of((7, 2.0, 3.0)))


@pytest.mark.parametrize(
    ("after", "notice"),
    [
        (close_with(1012), "closed with 1012 (as asked): connecting again"),
        (close_with(4408), "closed with 4408 (as asked): connecting again"),
        (close_with(1001), "closed with 1001 (as asked): connecting again"),
        (close_with(4999), "closed with 4999 (as asked): connecting again"),
        (break_off, "broke off: connecting again"),
        (send_garbage, "sent what cannot be understood"),
        (name_an_unknown_id, "sent what cannot be understood"),
    ],
)
def test_it_connects_again(
    after: Callable[[WSTransport, int], None], notice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module.random, "uniform", lambda low, high: low / 1000)
    notices: list[str] = []

    async def scenario() -> None:
        server = Server([frame_of((1, 2.0, 3.0))], after)
        async with server.listening(), Client(server.url, ["BTCUSDT"], on_notice=notices.append) as client:
            assert await take(client, 2) == [("BTCUSDT", 2.0, 3.0)] * 2
            assert client.connections == server.connections == 2

    asyncio.run(scenario())
    assert notice in notices[0]


@pytest.mark.parametrize("code", [code for code, reason in CLOSE_REASONS.items() if reason.wait_s is None])
def test_it_does_not_connect_again_where_the_table_says_no(code: int) -> None:
    async def scenario() -> None:
        async with (
            Server(after=close_with(code)).listening() as server,
            Client(server.url, ["BTCUSDT"]) as client,
        ):
            with pytest.raises(ServerRefusedError, match=f"closed with {code:d}"):
                await take(client, 1)
            assert server.connections == 1

    asyncio.run(scenario())


def test_it_waits_for_a_server_that_is_not_there_yet() -> None:
    async def scenario() -> None:
        server = Server([frame_of((1, 2.0, 3.0))], status=503)
        async with server.listening():
            notices: list[str] = []
            async with Client(server.url, ["BTCUSDT"], on_notice=notices.append) as client:
                async with asyncio.timeout(PATIENCE):
                    while not notices:
                        await asyncio.sleep(0.01)
                server.status = 101
                await take(client, 1)
        assert "answered 503: connecting again" in notices[0]

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [401, 403, 404])
def test_it_gives_up_where_it_is_refused_for_good(status: int) -> None:
    async def scenario() -> None:
        async with Server(status=status).listening() as server, Client(server.url, ["BTCUSDT"]) as client:
            with pytest.raises(ServerRefusedError, match=f"answered {status}"):
                await take(client, 1)

    asyncio.run(scenario())


def test_a_server_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "PONG_PATIENCE_S", 0.2)
    notices: list[str] = []

    async def scenario() -> None:
        server = Server([frame_of((1, 2.0, 3.0))], answers_pings=False)
        async with server.listening(), Client(server.url, ["BTCUSDT"], on_notice=notices.append) as client:
            await take(client, 2)

    asyncio.run(scenario())
    assert "does not answer: connecting again" in notices[0]


def test_unknown_symbols_are_told_and_end_it_where_no_other_is_left() -> None:
    notices: list[str] = []

    async def scenario() -> None:
        async with Server([frame_of((1, 2.0, 3.0))]).listening() as server:
            async with Client(server.url, ["BTCUSDT", "NONSENSE"], on_notice=notices.append) as client:
                await take(client, 1)
            async with Client(server.url, ["NONSENSE"]) as client:
                with pytest.raises(UnknownSymbolError, match="No such symbol"):
                    await take(client, 1)

    asyncio.run(scenario())
    assert notices == ["The server says unknown_symbols: No such symbol"]


class TestBacklog:
    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events_module, "QUEUE_LIMIT", 10)

    def test_a_reader_that_lags_gets_the_latest_price_and_all_the_volume(self) -> None:
        backlog = Backlog()
        for n in range(100):
            backlog.extend([Update("BTCUSDT", float(n), 1.0), Update("ETHUSDT", float(-n), 0.5)])
        assert len(backlog) == 12
        waiting = drained(backlog)
        updates = [event for event in waiting if isinstance(event, Update)]
        assert sum(u.volume for u in updates if u.symbol == "BTCUSDT") == 100
        assert sum(u.volume for u in updates if u.symbol == "ETHUSDT") == 50
        assert waiting[-1] == ("ETHUSDT", -99.0, 47.5)
        assert backlog.conflated == 200 - len(waiting)

    def test_nothing_grows_with_what_nobody_takes(self) -> None:
        backlog = Backlog()
        level = Level("BTCUSDT", None, 1.0, 1.0, 1.0, {}, 1)
        for n in range(1000):
            for event in (
                AutoSubscribed("BTCUSDT"),
                AutoUnsubscribed("BTCUSDT"),
                level._replace(timestamp=n),
                Refused(str(n), "no", (str(n),)),
            ):
                backlog.put(event)
        waiting = drained(backlog)
        assert waiting[10:] == [
            AutoUnsubscribed("BTCUSDT"),
            level._replace(timestamp=999),
            Refused("999", "no", ("999",)),
        ]

    def test_symbols_without_end_are_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events_module, "LATEST_LIMIT", 20)
        backlog = Backlog()
        for n in range(1000):
            backlog.put(AutoSubscribed(str(n)))
            backlog.put(Update(str(n), 1.0, 1.0))
        assert len(backlog) == 30
        assert backlog.conflated == 2000 - 30

    @given(
        st.lists(
            st.one_of(
                st.none(), st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 9), st.integers(0, 9)))
            )
        )
    )
    def test_whenever_it_is_taken_volumes_add_up_and_prices_come_in_order(
        self, steps: list[list[tuple[str, int, int]] | None]
    ) -> None:
        """Prices of a symbol rise here, so that their order can be seen."""
        backlog, put, got = Backlog(), [], []
        for number, step in enumerate(steps):
            if step is None:
                while (event := backlog.take()) is not None and len(got) % 3:
                    got.append(event)
                if event is not None:
                    got.append(event)
                continue
            updates = [Update(name, float(number), float(volume)) for name, _, volume in step]
            put += updates
            backlog.extend(updates)
            assert len(backlog) <= 10 + 3
        got += drained(backlog)
        for name in "ABC":
            of_name = [update for update in got if update.symbol == name]
            assert sum(u.volume for u in of_name) == sum(u.volume for u in put if u.symbol == name)
            assert [u.price for u in of_name] == sorted(u.price for u in of_name)
            assert [u.price for u in of_name][-1:] == [u.price for u in put if u.symbol == name][-1:]


def drained(backlog: Backlog) -> list[Event]:
    events = []
    while (event := backlog.take()) is not None:
        events.append(event)
    return events


class TestWatch:
    def run(self, server: Server, *arguments: str) -> tuple[int, str, str]:
        """The command runs in a thread with a loop of its own, the server in this one."""

        async def scenario() -> tuple[int, str, str]:
            async with server.listening():
                run = CliRunner().invoke
                result = await asyncio.to_thread(run, main, ["watch", *arguments, "--url", server.url])
                return result.exit_code, result.stdout, result.stderr

        return asyncio.run(scenario())

    def test_a_line_an_update_where_there_is_no_terminal(self) -> None:
        server = Server([frame_of((1, 50_000.5, 0.0), (1, 50_001.0, 0.25))])
        status, out, err = self.run(server, "BTCUSDT", "--count", "2")
        assert (status, err) == (0, "")
        lines = [line.split() for line in out.splitlines()]
        assert [line[1:] for line in lines] == [["BTCUSDT", "50000.5", "0"], ["BTCUSDT", "50001", "0.25"]]

    def test_the_end_by_time(self) -> None:
        for seconds in ENOUGH:
            status, out, _ = self.run(Server([frame_of((1, 2.0, 3.0))]), "BTCUSDT", "--seconds", seconds)
            if "BTCUSDT" in out:
                break
        assert status == 0
        assert out.count("BTCUSDT 2 3") == 1

    def test_no_server(self) -> None:
        for seconds in ENOUGH:
            arguments = ["watch", "BTCUSDT", "--url", "ws://127.0.0.1:1/api/v1/ws", "--seconds", seconds]
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 1
            if "did not answer" not in result.stderr:
                break
        assert "cannot be reached" in result.stderr
        assert "start a server with `tradeback up`" in result.stderr

    def test_an_unknown_symbol(self) -> None:
        status, _, err = self.run(Server(), "NONSENSE")
        assert status == 1
        assert "Error: The server says unknown_symbols: No such symbol" in err

    def test_a_table_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        console = watch_module.Console
        monkeypatch.setattr(watch_module, "Console", lambda: console(force_terminal=True, width=120))
        status, out, _ = self.run(
            Server([frame_of((1, 50_000.0, 0.0), (1, 50_500.0, 0.25))]), "BTCUSDT", "ETHUSDT", "--count", "2"
        )
        assert status == 0
        for shown in ("connected", "BTCUSDT", "50,500", "+1.000 %", "0.25", "ETHUSDT"):
            assert shown in out
