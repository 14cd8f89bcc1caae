"""An exchange that answers with whatever it likes, made by hand: the feed neither dies nor believes a wrong price."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import struct
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.handmade import ServerConnection, exchange, feeds_on, plain, trade
from tests.e2e.on_loop import run
from tests.waiting import until
from tradeback.server.feed import Feeds


def told(feeds: Feeds, words: str) -> bool:
    return all(words in (feed.last_error or "") for feed in feeds)


def http(status: str, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    "answer",
    [
        http("429 Too Many Requests"),
        http("503 Service Unavailable"),
        http("418 I'm a teapot"),
        http("302 Found", "Location: http://127.0.0.1:1/\r\n"),
        http("101 Switching Protocols"),
        b"garbage\x00\xff\r\n\r\n",
        b"",
    ],
    ids=["429", "503", "418", "302", "101-without-key", "garbage", "hung-up"],
)
def test_a_refused_upgrade_is_tried_again(tmp_path: Path, answer: bytes) -> None:
    async def scenario() -> None:
        async with plain(answer) as url, feeds_on(tmp_path, url) as (feeds, _):
            await until(lambda: told(feeds, "no connection to"))
            for feed in feeds:
                feed.last_error = None
            await until(lambda: told(feeds, "no connection to"))

    run(scenario())


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "ws://no-such-host.invalid:1"])
def test_nobody_there_is_tried_again(tmp_path: Path, url: str) -> None:
    async def scenario() -> None:
        async with feeds_on(tmp_path, url) as (feeds, _):
            await until(lambda: told(feeds, "no connection to"))
            for feed in feeds:
                feed.last_error = None
            await until(lambda: told(feeds, "no connection to"))

    run(scenario())


def test_a_refused_subscription_and_a_close_at_once_are_tried_again(tmp_path: Path) -> None:
    connections = 0

    async def behave(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        if connections <= 3:
            return
        if connections <= 6:
            request = orjson.loads(await connection.recv())
            await connection.send(
                orjson.dumps({"error": {"code": 2, "msg": "Invalid request"}, "id": request["id"]}).decode()
            )
            await connection.wait_closed()
            return
        request = orjson.loads(await connection.recv())
        await connection.send(orjson.dumps({"result": None, "id": request["id"]}).decode())
        await connection.wait_closed()

    async def scenario() -> None:
        async with exchange(behave) as url, feeds_on(tmp_path, url) as (feeds, _):
            await until(lambda: all(feed.describe()["subscribed"] == 1 for feed in feeds))
            assert connections >= 9
            assert told(feeds, ":")

    run(scenario())


GARBAGE: list[str | bytes] = [
    "",
    "null",
    "[1,2,3]",
    "{",
    "x" * 10_000_000,
    "[" * 100_000,
    b"\x00\x01binary",
    b"\x00" * 70_000,
    '{"id":true}',
    '{"id":[1],"error":{}}',
    '{"data":{"e":7}}',
    '{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":3}}',
    trade(5, price="NaN").decode(),
    trade(6, price="Infinity").decode(),
    trade(7, price="1e400").decode(),
    trade(8, price="-1").decode(),
    trade(9, price="9" * 400).decode(),
    trade(10, quantity="9" * 400).decode(),
    trade(11, quantity="0").decode(),
    trade(12, symbol="X" * 300).decode(),
    trade(13, symbol="比特币").decode(),
    trade(10**30).decode(),
    trade(-5).decode(),
]


def test_garbage_is_counted_and_changes_nothing(tmp_path: Path) -> None:
    async def behave(connection: ServerConnection) -> None:
        request = orjson.loads(await connection.recv())
        await connection.send(orjson.dumps({"result": None, "id": request["id"]}).decode())
        if request["params"] != ["btcusdt@trade"]:
            await connection.wait_closed()
            return
        await connection.send(trade(1).decode())
        for message in GARBAGE:
            await connection.send(message)
        # One message in three frames, in the middle of a character's bytes where it has any.
        whole = trade(2, price="200.5").decode()
        await connection.send([whole[:30], whole[30:31], whole[31:]])
        await connection.wait_closed()

    async def scenario() -> None:
        async with exchange(behave) as url, feeds_on(tmp_path, url) as (feeds, ingest):
            slot = ingest.table.find("BTCUSDT")
            await until(lambda: ingest.table.state(slot)["next_id"] == 3)
            assert ingest.table.state(slot)["price"] == 200.5
            assert [feed.connects for feed in feeds] == [1, 1, 1]
            assert ingest.journal.next_seq == 4  # the beginning, and two trades

    run(scenario())


BROKEN = {
    "a-terabyte": b"\x81\x7f" + struct.pack(">Q", 1 << 40),
    "reserved-opcode": b"\x83\x00",
    "long-ping": b"\x89\x7e\x01\x00" + bytes(256),
}
ODD = {
    "not-utf8": b"\x81\x05\xff\xfe\xfd\xfc\xfb",
    "reserved-bits": b"\xf1\x00",
    "continues-nothing": b"\x80\x01x",
}


@pytest.mark.parametrize("frame", [*BROKEN.values(), *ODD.values()], ids=[*BROKEN, *ODD])
@pytest.mark.parametrize("at_once", [True, False], ids=["with-the-upgrade", "later"])
def test_a_broken_frame_costs_one_connection_at_most(tmp_path: Path, frame: bytes, at_once: bool) -> None:
    connections = 0

    async def behave(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        mine = connections
        if mine <= 3 and at_once:
            connection.transport.write(frame)
        request = orjson.loads(await connection.recv())
        await connection.send(orjson.dumps({"result": None, "id": request["id"]}).decode())
        if mine <= 3:
            connection.transport.write(frame)
            await connection.transport.drain()
        if mine > 3 or frame in ODD.values():
            await connection.send(trade(mine).decode())
        await connection.wait_closed()

    async def scenario() -> None:
        unheard: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        async with exchange(behave) as url, feeds_on(tmp_path, url) as (feeds, ingest):
            await until(lambda: all(feed.connected and feed.last_message_ns for feed in feeds))
            assert ingest.table.state(0)["price"] == 100.5
            if frame in BROKEN.values():
                assert told(feeds, "the exchange broke the WebSocket protocol: ")
        gc.collect()
        await asyncio.sleep(0)
        assert not unheard

    run(scenario())


@pytest.mark.parametrize(
    ("close", "words"),
    [
        (b"\x88\x13" + struct.pack(">H", 1008) + b"Too many requests", "with code 1008 Too many requests"),
        (b"\x88\x02" + struct.pack(">H", 4999), "with code 4999"),
        (b"\x88\x00", "closed the connection"),
        (b"", "closed the connection"),
    ],
    ids=["with-a-reason", "unknown-code", "without-a-code", "without-a-word"],
)
def test_why_the_exchange_closed_is_told(tmp_path: Path, close: bytes, words: str) -> None:
    async def behave(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.write(close)

    async def scenario() -> None:
        async with exchange(behave) as url, feeds_on(tmp_path, url) as (feeds, _):
            await until(lambda: told(feeds, words))

    run(scenario())


def test_an_upgrade_that_is_answered_when_nobody_waits_any_more(tmp_path: Path) -> None:
    asked, stopped = asyncio.Event(), asyncio.Event()
    closed = 0

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        asked.set()
        await stopped.wait()
        with contextlib.suppress(ConnectionError):
            await ServerConnection(reader, writer).shake_hands()
            await reader.read()
        closed += 1
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
        async with server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with feeds_on(tmp_path, url):
                await asked.wait()
            stopped.set()
            await until(lambda: closed == 3)

    run(scenario())


def test_an_exchange_that_announces_a_shutdown_to_everybody_is_not_pressed(tmp_path: Path) -> None:
    """Twice on each connection, as soon as it is there: a new one each time would get the address banned."""
    opened: list[float] = []

    async def behave(connection: ServerConnection) -> None:
        opened.append(time.monotonic())
        request = orjson.loads(await connection.recv())
        await connection.send(orjson.dumps({"result": None, "id": request["id"]}).decode())
        notice = {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1770123456789}}
        for number in range(2):
            await connection.send(trade(len(opened) + number).decode())
            await connection.send(orjson.dumps(notice).decode())
        await connection.wait_closed()

    async def scenario() -> None:
        async with exchange(behave) as url, feeds_on(tmp_path, url, reconnect_interval="500ms") as (feeds, _):
            await until(lambda: all(feed.connects >= 4 for feed in feeds))
            assert told(feeds, "")
            # The second at once, the others after 0.5 s and 1 s, each with jitter above a half.
            assert max(opened) - min(opened) > 0.7

    run(scenario())
