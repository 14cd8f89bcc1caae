"""A running hub with a market behind it, and raw clients, for the tests of the server over real sockets."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import orjson
import uvloop

from tests.reference.batch import BINARY, CLOSE, PING, PONG, TEXT, decode_payload
from tests.reference.market import Market
from tests.waiting import until
from tradeback._fast import epoll
from tradeback._fast.fanout import FanOut
from tradeback._fast.stats import Stats
from tradeback.config import CorsConfig, WebSocketConfig
from tradeback.errors import DataFolderError
from tradeback.server.counters import SERVER_VALUES
from tradeback.server.hub import Hub

PATIENCE = 90.0  # seconds; a safety net, no test waits for it to pass

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "epoll": epoll.new_event_loop,
}


def run(scenario: Coroutine[Any, Any, None], loop: str = "asyncio") -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(scenario, 5 * PATIENCE))


@dataclass(frozen=True)
class Carried:
    slot: int
    stream_id: int
    symbol: str


class MarketSymbols:
    """Carries the market's symbols, and keeps who is held."""

    def __init__(self, market: Market) -> None:
        self._carried = {
            name: Carried(slot, market.stream_id(index), name)
            for index, (name, slot) in enumerate(zip(market.symbols, market.slots, strict=True))
        }
        self.held: dict[int, int] = defaultdict(int)
        self.without_room: set[str] = set()  # as on a full disk

    def knows(self, symbol: str) -> bool:
        return symbol in self._carried

    def acquire(self, symbol: str) -> Carried | None:
        if symbol in self.without_room:
            raise DataFolderError(f"no room for {symbol}")
        carried = self._carried.get(symbol)
        if carried is not None:
            self.held[carried.slot] += 1
        return carried

    def release(self, slot: int) -> None:
        self.held[slot] -= 1
        if not self.held[slot]:
            del self.held[slot]


@dataclass
class Served:
    hub: Hub
    market: Market
    symbols: MarketSymbols

    @property
    def port(self) -> int:
        return self.hub.address[1]

    def trade(self, index: int, units: int, price: float | None = None) -> None:
        self.hub.fanout.mark(self.market.trade(index, units, price))
        self.hub.schedule_flush()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until the condition holds."""
        await until(condition)

    async def client(self, **options: Any) -> RawClient:
        return await RawClient.connect(self.port, **options)


@asynccontextmanager
async def served(
    symbols: int = 5,
    json: bool = False,
    secret: bytes | None = None,
    cors: CorsConfig | None = None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """A hub on a free port of the loopback interface. Lets anonymous clients in, unless `settings` say no."""
    with tempfile.TemporaryDirectory() as folder:
        market = Market(Path(folder), symbols)
        carried = MarketSymbols(market)
        config = WebSocketConfig(**({"anonymous": True, "accepts_per_second": 100_000} | settings))
        fanout = FanOut(market.table, Stats.in_memory(SERVER_VALUES))
        hub = Hub(config, fanout, carried, cors=cors, secret=secret, binary=not json)
        await hub.start("127.0.0.1", 0)
        try:
            yield Served(hub, market, carried)
        finally:
            await hub.stop()
            left = (fanout.client_count, dict(carried.held), len(hub.interest))
            del hub, fanout
            market.close()
        if left != (0, {}, 0):
            raise AssertionError(f"clients, symbols held, symbols watched after the stop: {left}")


class Closed(Exception):
    """The server closed; `code` is of its CLOSE frame, None where the connection just ended."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


def mask_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A frame as a client sends it, or as one should not."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        header = struct.pack("!BB", first, bit | len(payload))
    elif len(payload) < 65536:
        header = struct.pack("!BBH", first, bit | 126, len(payload))
    else:
        header = struct.pack("!BBQ", first, bit | 127, len(payload))
    if not masked:
        return header + payload
    key = os.urandom(4)
    repeated = key * (len(payload) // 4 + 1)
    body = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[: len(payload)], "big")
    return header + key + body.to_bytes(len(payload), "big")


def request(
    path: str = "/api/v1/ws", headers: dict[str, str] | None = None, *, upgrade: bool = True
) -> bytes:
    fields = {"Host": "localhost"}
    if upgrade:
        fields |= {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        }
    fields |= headers or {}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


class RawClient:
    """A client that is as polite as the test wants. Sums of volumes are exact, in units."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, precision: int = 3
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.precision = precision
        self.ids: dict[str, int] = {}
        self.sums: dict[int, Fraction] = defaultdict(Fraction)
        self.last: dict[int, float] = {}
        self.frames = 0

    @classmethod
    async def connect(cls, port: int, *, limit: int = 1 << 16, receive: int = 0, **options: Any) -> RawClient:
        import socket

        sock = socket.socket()
        if receive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
        client = cls(reader, writer)
        try:
            writer.write(request(**options))
            head = await client.head()
            if not head.startswith(b"HTTP/1.1 101"):
                raise AssertionError(head)
        except BaseException:
            await client.leave()
            raise
        return client

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)

    def send(self, message: Any) -> None:
        self.writer.write(mask_frame(TEXT, orjson.dumps(message)))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame that is no ping. Raises Closed."""
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    first, length = await self.reader.readexactly(2)
                    if length == 126:
                        length = int.from_bytes(await self.reader.readexactly(2), "big")
                    elif length == 127:
                        length = int.from_bytes(await self.reader.readexactly(8), "big")
                    payload = await self.reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                raise Closed(None) from None
            opcode = first & 15
            if opcode == CLOSE:
                raise Closed(int.from_bytes(payload[:2], "big"))
            if opcode == PING:
                self.writer.write(mask_frame(PONG, payload))
                continue
            self.frames += 1
            if opcode == BINARY:
                for stream_id, price, volume in decode_payload(payload):
                    if stream_id not in self.ids.values():
                        raise AssertionError(f"stream id {stream_id} before it was announced")
                    self.last[stream_id] = price
                    self.sums[stream_id] += Fraction(repr(volume)) * 10**self.precision
            elif opcode == TEXT:
                message = orjson.loads(payload)
                if message["type"] == "subscribed":
                    self.ids |= {entry["symbol"]: entry["id"] for entry in message["symbols"]}
                elif message["type"] == "auto_subscribe":
                    self.ids[message["data"]["symbol"]] = message["data"]["id"]
                elif message["type"] == "auto_unsubscribe" and not message["data"].get("subscribed"):
                    self.ids.pop(message["data"]["symbol"], None)  # no frame after it has this id
            return opcode, payload

    async def text(self) -> Any:
        """The next text message; binary frames before it are counted in."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                return orjson.loads(payload)

    async def subscribe(self, *symbols: str) -> Any:
        self.send({"type": "subscribe", "symbols": list(symbols)})
        return await self.text()

    async def until_sum(self, stream_id: int, units: int) -> None:
        while self.sums[stream_id] < units:
            await self.frame()
        if self.sums[stream_id] != units:
            raise AssertionError(f"{self.sums[stream_id]} units of stream id {stream_id}, not {units}")

    async def closed(self) -> int | None:
        """Read on until the server closes; the code."""
        while True:
            try:
                await self.frame()
            except Closed as closed:
                return closed.code

    async def ended(self) -> None:
        """Wait until the connection has ended."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(1 << 16):
                    pass
        except ConnectionResetError:
            return

    async def leave(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionResetError, BrokenPipeError):
            return
