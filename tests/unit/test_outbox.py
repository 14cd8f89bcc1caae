"""The way of levels to the server, where that is away, slow, closes midway, refuses or talks nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tradeback._fast.stats import Stats
from tradeback.control import ControlClient
from tradeback.model import EnigmaLevel
from tradeback.recorder import outbox
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.outbox import MESSAGES_PER_LINE, Outbox

SAFETY = 120.0

Answer = Callable[[list[dict[str, Any]]], Awaitable[bytes | None]]


def level(price: float, stream_id: int = 1) -> EnigmaLevel:
    return EnigmaLevel(stream_id, 1_000_000, price, None, price, price)


class Peer:
    """What listens at the control socket: `answer` gets a line's messages and gives the bytes to answer with, None to
    close. `prices` are those that came, by symbol, in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Answer = taken
        self.lines = 0
        self.prices: dict[str, list[float]] = {}
        self.news = asyncio.Event()
        self.serving: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            while line := await reader.readline():
                self.lines += 1
                messages = json.loads(line)["messages"]
                answer = await self.answer(messages)
                if answer is not None and b"published" in answer:
                    for message in messages:
                        data = message["message"]["data"]
                        self.prices.setdefault(message["symbol"], []).append(data["current_price"])
                self.news.set()
                if answer is None:
                    break
                writer.write(answer)
        except ConnectionError:
            self.news.set()
        finally:
            writer.transport.abort()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SAFETY):
            while not condition():
                self.news.clear()
                await self.news.wait()


async def taken(messages: list[dict[str, Any]]) -> bytes | None:
    return b'{"type":"published","clients":1}\n'


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[None]:
    server = await asyncio.start_unix_server(peer.serve, str(peer.path), limit=1 << 22)
    try:
        yield
    finally:
        server.close()
        for task in peer.serving:
            task.cancel()
        await asyncio.gather(*peer.serving, return_exceptions=True)
        await server.wait_closed()
        peer.path.unlink(missing_ok=True)  # Python 3.13 did it


@asynccontextmanager
async def sending(path: Path) -> AsyncIterator[Outbox]:
    client = ControlClient(path)
    box = Outbox(client, Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS))
    running = asyncio.create_task(box.run())
    try:
        yield box
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        client.close()


def run(scenario: Callable[[Peer], Awaitable[None]], folder: Path) -> None:
    async def started() -> None:
        await scenario(Peer(folder / "control.sock"))

    asyncio.run(started())


def test_a_server_that_is_away_gets_the_latest_of_each_symbol_when_it_is_back(tmp_path: Path) -> None:
    async def scenario(peer: Peer) -> None:
        async with sending(peer.path) as box:
            for price in range(1, 1_001):
                box.publish(f"S{price % 100}USDT", level(float(price)))
            await asyncio.sleep(0)
            assert len(box) == 100
            async with listening(peer):
                await peer.until(lambda: len(peer.prices) == 100)
                assert peer.prices == {f"S{n % 100}USDT": [float(n)] for n in range(901, 1_001)}
                assert peer.lines == -(-100 // MESSAGES_PER_LINE)

    run(scenario, tmp_path)


def test_while_one_answer_is_waited_for_levels_are_conflated(tmp_path: Path) -> None:
    async def scenario(peer: Peer) -> None:
        go_on = asyncio.Event()

        async def slowly(messages: list[dict[str, Any]]) -> bytes | None:
            await go_on.wait()
            return await taken(messages)

        peer.answer = slowly
        async with listening(peer), sending(peer.path) as box:
            box.publish("AUSDT", level(1.0))
            async with asyncio.timeout(SAFETY):
                while not peer.lines:
                    await asyncio.sleep(0.001)
            for price in range(2, 10_000):
                box.publish("AUSDT", level(float(price)))
            assert len(box) == 1
            go_on.set()
            await peer.until(lambda: len(peer.prices.get("AUSDT", [])) == 2)
            assert peer.prices == {"AUSDT": [1.0, 9_999.0]}

    run(scenario, tmp_path)


@pytest.mark.parametrize("wrong", [None, b"", b"{", b"[]\n", b"nonsense\n", b"\xff\xfe\n"])
def test_what_was_not_taken_is_sent_again_unless_something_younger_came(
    tmp_path: Path, wrong: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ANSWER_TIMEOUT", 0.2 if wrong in (b"", b"{") else SAFETY)

    async def scenario(peer: Peer) -> None:
        async with listening(peer), sending(peer.path) as box:

            async def badly(messages: list[dict[str, Any]]) -> bytes | None:
                if peer.lines < 3:
                    box.publish("BUSDT", level(20.0))
                    return wrong
                return await taken(messages)

            peer.answer = badly
            box.publish("AUSDT", level(1.0))
            box.publish("BUSDT", level(2.0))
            await peer.until(lambda: len(peer.prices) == 2)
            assert peer.prices == {"AUSDT": [1.0], "BUSDT": [20.0]}

    run(scenario, tmp_path)


def test_what_is_refused_is_dropped(tmp_path: Path) -> None:
    async def scenario(peer: Peer) -> None:
        async def refuse(messages: list[dict[str, Any]]) -> bytes | None:
            peer.answer = taken
            return b'{"type":"error","message":"no"}\n'

        peer.answer = refuse
        async with listening(peer), sending(peer.path) as box:
            box.publish("AUSDT", level(1.0))
            await peer.until(lambda: peer.lines == 1)
            box.publish("AUSDT", level(2.0))
            await peer.until(lambda: bool(peer.prices))
            assert peer.prices == {"AUSDT": [2.0]}

    run(scenario, tmp_path)


def test_the_end_waits_for_a_server_that_hangs_no_longer_than_a_second(tmp_path: Path) -> None:
    async def scenario(peer: Peer) -> None:
        never = asyncio.Event()

        async def hang(messages: list[dict[str, Any]]) -> bytes | None:
            await never.wait()
            return None

        peer.answer = hang
        client = ControlClient(peer.path)
        box = Outbox(client, Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS))
        async with listening(peer):
            box.publish("AUSDT", level(1.0))
            async with asyncio.timeout(SAFETY):
                await box.flush()
            assert len(box) == 1
            peer.answer = taken
            async with asyncio.timeout(SAFETY):
                while len(box):
                    await box.flush()  # which waits no longer than a second for a busy machine either
        client.close()

    run(scenario, tmp_path)
