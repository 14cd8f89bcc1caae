"""A flood of rubbish from the exchange, at a real server process: its log stays short, and it stays answerable."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.e2e.handmade import ServerConnection, exchange, feeds_on, trade
from tests.e2e.on_loop import run
from tests.e2e.running import ServerProcess, SimProcess
from tests.waiting import until
from tradeback.log.repeats import REPEATS, WINDOW_S
from tradeback.server import connection

MESSAGES = 10_000
RUBBISH = {
    "text": lambda number: f"garbage {number}",
    "binary": lambda number: f"garbage {number}".encode(),
    "event": lambda number: f'{{"stream":"x{number}@trade","data":{{"e":"trade","x":{number}}}}}',
    "price": lambda number: trade(number, price=f"-{number}").decode(),
    "error": lambda number: f'{{"error":{{"code":{number},"msg":"e{number}"}}}}',
    "unknown symbol": lambda number: trade(number, symbol=f"S{number}").decode(),
}


@dataclass
class Endpoints:
    """Streams made by hand, and the REST interface of the simulated exchange."""

    ws_endpoint: str
    rest_endpoint: str


@pytest.mark.parametrize("kind", RUBBISH)
def test_a_flood_leaves_a_short_log(tmp_path: Path, kind: str) -> None:
    flooded = asyncio.Event()
    lines, began = 0, time.monotonic()

    async def behave(connection: ServerConnection) -> None:
        nonlocal lines
        request = orjson.loads(await connection.recv())
        await connection.send(orjson.dumps({"result": None, "id": request["id"]}).decode())
        for number in range(1, MESSAGES + 1):
            await connection.send(RUBBISH[kind](number))
        # Its answer to a ping comes when all before that was read.
        connection.frame(0x89, b"")
        await connection.reader.readexactly(6)
        lines += 1
        if lines == 3:
            flooded.set()
        await connection.wait_closed()

    async def scenario() -> None:
        with SimProcess("--symbols", "2", "--rate", "1") as sim:
            async with exchange(behave) as url:
                endpoints = Endpoints(url, sim.rest_endpoint)
                # The line that ends first is silent while the others flood.
                settings = {"EXCHANGE_SYMBOLS": "BTCUSDT", "EXCHANGE_MUTE_LIMIT": "10m"}
                server = await asyncio.to_thread(ServerProcess, tmp_path, endpoints, **settings)
                with server:
                    async with asyncio.timeout(300):
                        await flooded.wait()
                    status = await asyncio.to_thread(lambda: server.control(type="status"))
                    assert [feed["connects"] for feed in status["feeds"]] == [1, 1, 1]
                    assert await asyncio.to_thread(server.stop) == 0

    asyncio.run(scenario())
    windows = int((time.monotonic() - began) / WINDOW_S) + 1
    warnings = [
        entry
        for entry in map(orjson.loads, (tmp_path / "server.log").read_text().splitlines())
        if entry["level"] != "info"
    ]
    # Of each event so many in a window, and how many were left out; a slow machine needs many windows.
    assert len(warnings) <= REPEATS * max(10, 2 * windows)


UNUSUAL = 40_000


def unusual(number: int) -> bytes:
    """A trade so spelt that only the slow path reads it."""
    return trade(number).replace(b'"s":"B', rb'"s":"\u0042')


async def flooded(connection: ServerConnection, messages: Iterable[bytes], sending: threading.Event) -> None:
    """Send them all on the line of single trades, from another thread: the loop may stand still meanwhile."""
    flood = b"".join(
        struct.pack(">BBH", 129, 126, len(text)) + text
        for text in (message.ljust(126) for message in messages)
    )
    request = orjson.loads(await connection.recv())
    await connection.send(orjson.dumps({"result": None, "id": request["id"]}).decode())
    if request["params"] == ["btcusdt@trade"]:
        sock = connection.transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(sock.fileno())) as other:
            other.setblocking(True)

            def send() -> None:
                sending.set()
                with contextlib.suppress(ConnectionError):
                    other.sendall(flood)

            await asyncio.to_thread(send)
    await connection.wait_closed()


@pytest.mark.parametrize("kind", ["valid", "text", "event", "error"])
@pytest.mark.timeout(120)
def test_the_slow_path_takes_its_turns_and_loses_no_event(tmp_path: Path, kind: str) -> None:
    """Thousands of messages lie ready to be read at once."""
    messages = [
        RUBBISH[kind](number).encode() if kind != "valid" and number % 100 else unusual(number)
        for number in range(1, UNUSUAL + 1)
    ]
    sending = threading.Event()

    async def scenario() -> None:
        async with (
            exchange(lambda connection: flooded(connection, messages, sending)) as url,
            feeds_on(tmp_path, url, mute_limit="60s") as (feeds, ingest),
        ):
            await until(sending.is_set)
            time.sleep(0.5)  # the loop stands still, and the kernel's buffers fill
            wanted = UNUSUAL if kind == "valid" else UNUSUAL // 100
            taken = most = 0
            while taken < wanted:
                await asyncio.sleep(0)
                now = ingest.stats.value("messages_trade")
                taken, most = now, max(most, now - taken)
            if kind == "valid":
                assert ingest.stats.value("unusual") == UNUSUAL
                assert ingest.stats.value("feed_pauses") > 0
                assert most < UNUSUAL / 20
                # The journal of this test may have no room for all. One record says where the symbol begins.
                records = ingest.stats.value("journal_records") + ingest.stats.value("journal_unwritten")
                assert records == UNUSUAL + 1
            assert ingest.stats.value("feed_dropped") == 0
            assert [feed.connects for feed in feeds] == [1, 1, 1]

    run(scenario())


@pytest.mark.timeout(120)
def test_what_waits_when_the_server_ends_is_waited_for_no_longer_than_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [unusual(number) for number in range(1, UNUSUAL + 1)]
    sending = threading.Event()

    async def scenario() -> None:
        async with (
            exchange(lambda connection: flooded(connection, messages, sending)) as url,
            feeds_on(tmp_path, url, mute_limit="60s") as (feeds, ingest),
        ):
            await until(sending.is_set)
            time.sleep(0.5)
            (feed,) = (each for each in feeds if each.stream_type == "trade")
            # More than one turn takes.
            while feed._current is None or feed._current.listener.waiting < UNUSUAL // 20:
                await asyncio.sleep(0)
            monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 0.0)
            await feeds.stop()
            taken, dropped = ingest.stats.value("messages_trade"), ingest.stats.value("feed_dropped")
            assert dropped > 0
            assert taken + dropped == ingest.stats.value("unusual")

    run(scenario())
