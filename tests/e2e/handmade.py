"""An exchange made by hand, frame by frame, and feeds on it: for what the simulated one is too polite to do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tradeback._fast.fanout import FanOut
from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import JournalWriter
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable
from tradeback.config import Config
from tradeback.server.feed import Feeds

Behave = Callable[["ServerConnection"], Awaitable[None]]


@asynccontextmanager
async def feeds_on(folder: Path, url: str, **exchange: Any) -> AsyncIterator[tuple[Feeds, Ingest]]:
    """Feeds of BTCUSDT on whatever listens at the URL."""
    journal = JournalWriter.open(folder / "journal", "sim", segment_bytes=1 << 20, retention_bytes=1 << 24)
    stats = Stats.in_memory()
    table = SymbolTable.open(str(folder / "table"), "sim")
    table.add("BTCUSDT", 1, 8)
    ingest = Ingest(table, journal, FanOut(table, stats), stats)
    config = Config.model_validate(
        {"exchange": {"name": "sim", "ws_endpoint": url, "reconnect_interval": "50ms", **exchange}}
    )
    feeds = Feeds(ingest, config.exchange, lambda: None)
    feeds.want("BTCUSDT")
    feeds.start()
    try:
        yield feeds, ingest
    finally:
        await feeds.stop()
        journal.close()
        table.close()
        stats.close()


class ServerConnection:
    """The exchange's end of one WebSocket, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.transport = writer

    async def shake_hands(self) -> None:
        request = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        key = next(
            line.split(": ")[1]
            for line in request.split("\r\n")
            if line.lower().startswith("sec-websocket-key")
        )
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )

    async def recv(self) -> bytes:
        """The next text message."""
        while True:
            head, size = await self.reader.readexactly(2)
            size &= 127
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            mask = await self.reader.readexactly(4)
            payload = await self.reader.readexactly(size)
            if head & 15 == 1:
                return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))

    async def send(self, message: str | bytes | list[str]) -> None:
        """A text message, a binary one, or a text in several frames."""
        if isinstance(message, list):
            for i, part in enumerate(message):
                last = 128 if i == len(message) - 1 else 0
                self.frame(last | (0 if i else 1), part.encode())
        elif isinstance(message, str):
            self.frame(129, message.encode())
        else:
            self.frame(130, message)
        await self.transport.drain()

    def frame(self, first: int, payload: bytes) -> None:
        size = len(payload)
        length = (
            bytes([size])
            if size < 126
            else struct.pack(">BH", 126, size)
            if size < 65536
            else struct.pack(">BQ", 127, size)
        )
        self.transport.write(bytes([first]) + length + payload)

    async def wait_closed(self) -> None:
        while await self.reader.read(65536):
            pass


@asynccontextmanager
async def exchange(behave: Behave) -> AsyncIterator[str]:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ServerConnection(reader, writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await connection.shake_hands()
            await behave(connection)
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def plain(answer: bytes) -> AsyncIterator[str]:
    """A server that answers every request with these bytes and hangs up."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def trade(number: int, price: str = "100.5", quantity: str = "0.25", symbol: str = "BTCUSDT") -> bytes:
    return (
        f'{{"stream":"{symbol.lower()}@trade","data":{{"e":"trade","E":1700000000000,"s":"{symbol}",'
        f'"t":{number},"p":"{price}","q":"{quantity}","T":1700000000000,"m":true,"M":true}}}}'
    ).encode()
