"""A client of the event server: connects, subscribes, decodes v1 frames, and connects again when it must.

    async with Client("ws://127.0.0.1:8081/api/v1/ws", ["BTCUSDT"]) as client:
        async for update in client:
            print(update.symbol, update.price, update.volume)

One asyncio task does the work; everything here belongs to the loop that entered the `async with`.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from tradeback._fast.record import WIRE_FORMAT
from tradeback.errors import CLOSE_REASONS, CloseCode, ProtocolError, ServerRefusedError, UnknownSymbolError

PING_INTERVAL_S = 2.0
PONG_PATIENCE_S = 20.0  # without an answer for so long, the connection is dead
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
QUEUE_LIMIT = 10_000  # updates that wait for the reader; beyond that they are conflated a symbol
SYMBOLS_PER_MESSAGE = 500  # some 6 KB; the server takes 16 KiB
_PERMANENT_STATUSES = range(400, 429)  # 429 and 5xx: the server is busy, or not yet there

_HEADER = struct.Struct("<IH")  # CRC-32 of all that follows it, number of records
_RECORD = struct.Struct(WIRE_FORMAT)


class Update(NamedTuple):
    """One record of a frame. `volume` is the base quantity of the trades it stands for; 0 in a snapshot."""

    symbol: str
    price: float
    volume: float


def decode_frame(frame: bytes) -> list[tuple[int, float, float]]:
    """The records of a v1 frame: stream id, price, volume. ProtocolError where length or CRC are wrong."""
    if len(frame) < _HEADER.size:
        raise ProtocolError("short_frame", f"A frame of {len(frame)} bytes is shorter than its header")
    crc, count = _HEADER.unpack_from(frame)
    records = memoryview(frame)[_HEADER.size :]
    if len(records) != count * _RECORD.size:
        raise ProtocolError("bad_length", f"A frame of {len(frame)} bytes cannot hold {count} records")
    if zlib.crc32(memoryview(frame)[4:]) != crc:
        raise ProtocolError("bad_crc", f"A frame of {count} records came with a wrong CRC")
    return list(_RECORD.iter_unpack(records))


class Client:
    """Updates of some symbols from one server, over as many connections as it takes.

    Iterate over it for `Update`s. It ends with ServerRefusedError where connecting again would be of no use,
    and with UnknownSymbolError where the server refused every symbol. `on_notice` gets sentences for people.
    """

    def __init__(
        self, url: str, symbols: Iterable[str], *, on_notice: Callable[[str], None] | None = None
    ) -> None:
        self.url = url
        self.symbols = list(dict.fromkeys(symbol.upper() for symbol in symbols))
        self.connected = False
        self.connections = 0
        self.conflated = 0
        self.round_trip_s: float | None = None
        self.last_failure: str | None = None
        self._on_notice = on_notice or (lambda _: None)
        self._updates: deque[Update] = deque()
        self._news = asyncio.Event()
        self._unknown: set[str] = set()
        self._end: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"client of {self.url}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def __aiter__(self) -> AsyncIterator[Update]:
        while True:
            while self._updates:
                yield self._updates.popleft()
            if self._end is not None:
                raise self._end
            self._news.clear()
            await self._news.wait()

    # ---- called by the connection ----

    def _received(self, updates: Iterable[Update]) -> None:
        self._updates.extend(updates)
        if len(self._updates) > QUEUE_LIMIT:
            latest: dict[str, Update] = {}
            for update in self._updates:
                before = latest.pop(update.symbol, None)
                volume = update.volume + (before.volume if before else 0.0)
                latest[update.symbol] = update._replace(volume=volume)
            self.conflated += len(self._updates) - len(latest)
            self._updates = deque(latest.values())
        self._news.set()

    def _refused(self, sentence: str, message: dict[str, Any]) -> None:
        self._on_notice(sentence)
        self._unknown.update(message.get("symbols", ()))
        if self._unknown.issuperset(self.symbols):
            self._finish(UnknownSymbolError(sentence))

    def _finish(self, error: Exception) -> None:
        self._end = error
        self._news.set()

    # ---- connecting, and connecting again ----

    async def _run(self) -> None:
        try:
            backoff_s = FIRST_BACKOFF_S
            while self._end is None:
                connections = self.connections
                wait_s = await self._one_connection()
                if self.connections > connections:
                    backoff_s = FIRST_BACKOFF_S
                if wait_s is None:
                    wait_s = backoff_s * random.uniform(0.5, 1)
                    backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
                if self._end is None:
                    self._on_notice(f"{self.last_failure}: connecting again in {wait_s:.1f} s")
                    await asyncio.sleep(wait_s)
        except Exception as error:  # noqa: BLE001  a fault of ours must reach whoever iterates
            self._finish(error)

    async def _one_connection(self) -> float | None:
        """Serve one connection to its end. How long to wait before the next; None: by the back-off."""
        try:
            transport, connection = await ws_connect(lambda: _Connection(self), self.url)
        except WSHandshakeError as error:
            status = 0 if error.response is None else int(error.response.status)
            self.last_failure = (
                f"{self.url} answered {status}" if status else f"{self.url} is no WebSocket server"
            )
            if status in _PERMANENT_STATUSES:
                self._finish(
                    ServerRefusedError(f"{self.last_failure}: see that this is the event server's address")
                )
            return None
        except (OSError, WSError, TimeoutError) as error:
            self.last_failure = f"{self.url} cannot be reached ({error or type(error).__name__})"
            return None
        if not isinstance(connection, _Connection):
            raise TypeError(f"picows gave back {connection!r}")
        try:
            await connection.serve(transport)
        finally:
            self.connected = False
            self.round_trip_s = None
            transport.disconnect(graceful=False)
        return self._judge(connection)

    def _judge(self, connection: _Connection) -> float | None:
        """What the end of a connection means: how long to wait, None for the back-off, or the end of all."""
        if connection.close_code is None:
            self.last_failure = connection.failure or f"{self.url} broke off"
            return None
        told = f" ({connection.close_reason})" if connection.close_reason else ""
        self.last_failure = f"{self.url} closed with {connection.close_code}{told}"
        known = connection.close_code in CloseCode.__members__.values()
        reason = CLOSE_REASONS.get(CloseCode(connection.close_code)) if known else None
        if reason is None:
            return None
        if reason.wait_s is None:
            self._finish(
                ServerRefusedError(f"{self.last_failure}: {reason.when}; connect again: {reason.reconnect}")
            )
            return None
        return random.uniform(*reason.wait_s)


class _Connection(WSListener):
    """One connection. Its callbacks run in the loop, and hand over to the client what they get."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.close_code: int | None = None
        self.close_reason = ""
        self.failure: str | None = None
        self._client = client
        self._symbols: dict[int, str] = {}  # by stream id, as the server told on this connection
        self._pinged_at = 0.0
        self._ponged_at = time.monotonic()

    async def serve(self, transport: WSTransport) -> None:
        """Ping until the connection ends, or end it where no answer comes."""
        while True:
            transport.send(WSMsgType.TEXT, b'{"type":"ping"}')
            self._pinged_at = time.monotonic()
            try:
                await asyncio.wait_for(transport.wait_disconnected(), PING_INTERVAL_S)
            except TimeoutError:
                if time.monotonic() - self._ponged_at > PONG_PATIENCE_S:
                    self.failure = f"{self._client.url} does not answer"
                    return
            except WSError as error:
                self.failure = f"{self._client.url} sent what is no WebSocket: {error}"
                return
            else:
                return

    def on_ws_connected(self, transport: WSTransport) -> None:
        client = self._client
        client.connected = True
        client.connections += 1
        for first in range(0, len(client.symbols), SYMBOLS_PER_MESSAGE):
            some = client.symbols[first : first + SYMBOLS_PER_MESSAGE]
            transport.send(WSMsgType.TEXT, orjson.dumps({"type": "subscribe", "symbols": some}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        try:
            if frame.msg_type == WSMsgType.BINARY:
                self._client._received(
                    Update(self._symbols[stream_id], price, volume)
                    for stream_id, price, volume in decode_frame(payload)
                )
            elif frame.msg_type == WSMsgType.TEXT:
                self._on_message(orjson.loads(payload))
            elif frame.msg_type == WSMsgType.CLOSE:
                # By hand: picows' own enum has no member for codes from 4000 on.
                self.close_code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
                self.close_reason = payload[2:].decode("utf-8", "replace")
                transport.send_close(WSCloseCode.OK)
                transport.disconnect()
        except (ProtocolError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            # What comes from a faulty server or a torn line is not shown; a new connection starts afresh.
            self.failure = f"{self._client.url} sent what cannot be understood ({error!r})"
            transport.disconnect(graceful=False)

    def _on_message(self, message: dict[str, Any]) -> None:
        client = self._client
        match message["type"]:
            case "subscribed":
                self._symbols.update({row["id"]: row["symbol"] for row in message["symbols"]})
            case "auto_subscribe":
                self._symbols[message["data"]["id"]] = message["data"]["symbol"]
            case "prices":  # the server's FEATURE_BINARY_WEBSOCKET is false
                client._received(
                    Update(row["symbol"], row["price"], row["volume"]) for row in message["data"]
                )
            case "pong":
                self._ponged_at = time.monotonic()
                client.round_trip_s = self._ponged_at - self._pinged_at
            case "error":
                client._refused(f"The server says {message['code']}: {message['message']}", message)
