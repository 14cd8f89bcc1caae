"""A connection that relieves another while both are cut, mute or refused, on an exchange made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from structlog.testing import capture_logs

from tests.e2e.handmade import ServerConnection, exchange, feeds_on, trade
from tests.e2e.on_loop import run
from tests.waiting import until
from tradeback.server.feed import Feed

NOTICE = '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}'


class Relief:
    """An exchange whose connections of the trade line are in the test's hands; the other lines just stay open."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.requests: list[dict[str, Any]] = []
        self.leaving: list[asyncio.Event] = []

    async def behave(self, connection: ServerConnection) -> None:
        request = orjson.loads(await connection.recv())
        if request["params"] != ["btcusdt@trade"]:
            await connection.send(orjson.dumps({"result": None, "id": request["id"]}).decode())
            await connection.wait_closed()
            return
        leave = asyncio.Event()
        self.connections.append(connection)
        self.requests.append(request)
        self.leaving.append(leave)
        await leave.wait()

    async def reached(self, number: int) -> ServerConnection:
        """The trade line's connection of that number, from 1 on, once it has asked for its stream."""
        await until(lambda: len(self.connections) >= number)
        return self.connections[number - 1]

    async def agree(self, number: int, *messages: str | bytes) -> None:
        """Answer its SUBSCRIBE, and send messages."""
        connection = await self.reached(number)
        await connection.send(orjson.dumps({"result": None, "id": self.requests[number - 1]["id"]}).decode())
        for message in messages:
            await connection.send(message.decode() if isinstance(message, bytes) else message)

    def cut(self, number: int) -> None:
        self.leaving[number - 1].set()

    def end(self) -> None:
        for leave in self.leaving:
            leave.set()


@asynccontextmanager
async def relief(folder: Path, **settings: Any) -> AsyncIterator[tuple[Relief, Feed]]:
    """A trade line that delivers on its first connection, and is asked to make another."""
    hands = Relief()
    async with exchange(hands.behave) as url:
        try:
            async with feeds_on(folder, url, **settings) as (feeds, _):
                feed = next(feed for feed in feeds if feed.stream_type == "trade")
                await hands.agree(1, trade(1))
                await until(lambda: bool(feed.last_message_ns))
                await hands.agree(1, NOTICE)
                yield hands, feed
        finally:
            hands.end()


def test_a_cut_while_the_next_connection_is_on_its_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relief(tmp_path, reconnect_interval="60s") as (hands, feed):
            await hands.reached(2)
            hands.cut(1)
            await until(lambda: not feed.connected)
            await hands.agree(2, trade(2))
            await until(lambda: feed.connected and feed.connects == 2)
            assert feed.last_error is None

    run(scenario())


def test_both_cut_while_one_relieves_the_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relief(tmp_path) as (hands, feed):
            await hands.reached(2)
            hands.cut(1)
            hands.cut(2)
            await hands.agree(3, trade(2))
            await until(lambda: feed.connected and feed.describe()["subscribed"] == 1)
            assert "closed the connection" in (feed.last_error or "")

    run(scenario())


def test_a_cut_after_a_relief_that_failed_is_seen_at_once(tmp_path: Path) -> None:
    """The next try is half a minute away, but for the old connection's end."""

    async def scenario() -> None:
        async with relief(tmp_path, reconnect_interval="60s") as (hands, feed):
            await hands.reached(2)
            with capture_logs() as logs:
                hands.cut(2)
                await until(lambda: any(line["event"].startswith("not relieved") for line in logs))
            hands.cut(1)
            await hands.agree(3, trade(2))
            await until(lambda: feed.connected and feed.describe()["subscribed"] == 1)

    run(scenario())


def test_a_next_connection_that_brings_nothing_does_not_take_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relief(tmp_path, mute_limit="500ms") as (hands, feed):
            await hands.agree(2)
            await until(lambda: feed.connects == 2)
            number = 2
            while len(hands.connections) < 3:
                await hands.agree(1, trade(number))
                number += 1
                await asyncio.sleep(0.02)
            assert feed.connected
            await hands.agree(3, trade(number))
            await until(lambda: feed.describe()["subscribed"] == 1 and feed.connects == 3)

    run(scenario())
