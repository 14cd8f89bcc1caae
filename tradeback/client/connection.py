"""One connection to the event server: frames and messages in, commands out, and why it ended.

Everything runs in the client's loop. What the server sends is judged before it is believed: names and ids are bounded,
and whatever cannot be understood ends the connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
from picows.url import WSParsedURL

from tradeback._fast.batch import decode_frame
from tradeback.client.events import AutoSubscribed, AutoUnsubscribed, Level, Refused, Update
from tradeback.client.login import readable
from tradeback.errors import ProtocolError

if TYPE_CHECKING:
    from tradeback.client.client import Client

PING_INTERVAL_S = 2.0
PONG_PATIENCE_S = 20.0  # without an answer for so long, the connection is dead
CONNECT_PATIENCE_S = 15.0
CLOSE_PATIENCE_S = 1.0
MESSAGE_BYTES_MAX = 1 << 20  # of the server, over all fragments; its longest has some 50 KB
SYMBOL_CHARACTERS_MAX = 50
COMMAND_BYTES = 8_000  # of a command, where the server takes 16 KiB
FIRST_COMMANDS = 6  # until a first answer: a server that looks for our session keeps 64 KiB
COMMAND_BURST = 20  # commands at once, and COMMANDS_PER_S after that: well below what the server allows
COMMANDS_PER_S = 8.0
RETRY_S = 10.0  # until a symbol is asked for again that the server could not carry

# What picows would log is in `last_failure` and the notices; a program's terminal is its own.
_SILENT = logging.getLogger("tradeback.client.picows")
_SILENT.setLevel(logging.CRITICAL + 1)


class HandshakeFailedError(Exception):
    """No connection came about. `status` is the server's answer, 0 where there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


async def open_connection(client: Client, token: str | None) -> Connection:
    """Connect, with the session's token where there is one. HandshakeFailedError otherwise.

    picows goes on with a handshake whose caller was cancelled, for up to 5 seconds: here the socket is ours, and its
    end is the handshake's.
    """
    sockets: list[socket.socket] = []

    async def connected(url: WSParsedURL) -> socket.socket:
        sock = await _connect(url.host, url.port)
        sockets.append(sock)
        return sock

    headers = {"Authorization": f"Bearer {token}"} if token is not None else None
    opening = asyncio.ensure_future(
        ws_connect(
            lambda: Connection(client),
            client.url,
            extra_headers=headers,
            logger_name=_SILENT,
            max_redirects=0,  # they would carry the token elsewhere
            max_frame_size=MESSAGE_BYTES_MAX,
            socket_factory=connected,
        )
    )
    try:
        async with asyncio.timeout(CONNECT_PATIENCE_S):
            transport, connection = await asyncio.shield(opening)
    except WSHandshakeError as error:
        status = 0 if error.response is None else int(error.response.status)
        raise HandshakeFailedError(
            f"{client.url} answered {status}" if status else f"{client.url} is no WebSocket server", status
        ) from error
    except (OSError, WSError, TimeoutError, UnicodeError) as error:
        await _given_up(opening, sockets)
        why = readable(error) or type(error).__name__
        raise HandshakeFailedError(f"{client.url} cannot be reached ({why})") from error
    except asyncio.CancelledError:
        await _given_up(opening, sockets)
        raise
    if not isinstance(connection, Connection):
        await _ended(transport)
        raise HandshakeFailedError(f"{client.url} hung up before it answered")
    return connection


async def _given_up(
    opening: asyncio.Future[tuple[WSTransport, WSListener]], sockets: list[socket.socket]
) -> None:
    """Nobody waits for the handshake any more: have it end, and its socket be closed."""
    if not sockets:
        opening.cancel()
    for sock in sockets:
        with suppress(OSError):  # it is closed already
            sock.shutdown(socket.SHUT_RDWR)
    await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        await _ended(opening.result()[0])


async def _connect(host: str, port: int) -> socket.socket:
    """A socket connected to the first of the host's addresses that takes it. OSError of the last one."""
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


async def _ended(transport: WSTransport) -> None:
    """Cut the connection, and wait until its socket is closed."""
    transport.disconnect(graceful=False)
    with suppress(WSError, TimeoutError):
        async with asyncio.timeout(CLOSE_PATIENCE_S):
            await transport.wait_disconnected()


def _in_parts(symbols: list[str]) -> Iterator[list[str]]:
    """In their order, each part as long as a command may be."""
    part: list[str] = []
    size = 0
    for symbol in symbols:
        size += len(symbol.encode()) + 3  # quotes and a comma
        if part and size > COMMAND_BYTES:
            yield part
            part, size = [], len(symbol.encode()) + 3
        part.append(symbol)
    if part:
        yield part


class Connection(WSListener):
    """Its callbacks run in the loop, and hand over to the client what they get."""

    transport: WSTransport

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.close_code: int | None = None
        self.close_reason = ""
        self.failure: str | None = None
        self.answered = False  # the server has answered a ping: it knows us and is well
        self._client = client
        self._names: dict[int, str] = {}  # by stream id, as the server told on this connection
        self._ids: dict[str, int] = {}
        self._asked: dict[str, None] = {}  # what the server was told to send
        self._telling: asyncio.TimerHandle | None = None
        self._told = 0
        self._tokens = float(COMMAND_BURST)
        self._tokens_at = time.monotonic()
        self._fragments: bytearray | None = None
        self._fragments_type = WSMsgType.TEXT
        self._pinged_at = 0.0
        self._ponged_at = time.monotonic()

    async def serve(self) -> None:
        """Ping until the connection ends, or end it where no answer comes. Afterwards its socket is closed."""
        transport = self.transport
        self.tell()
        try:
            while True:
                transport.send(WSMsgType.TEXT, b'{"type":"ping"}')
                self._pinged_at = time.monotonic()
                try:
                    # No asyncio.wait_for: before Python 3.12 it can swallow a cancellation.
                    async with asyncio.timeout(PING_INTERVAL_S):
                        await transport.wait_disconnected()
                except TimeoutError:
                    if time.monotonic() - self._ponged_at > PONG_PATIENCE_S:
                        self.failure = f"{self._client.url} does not answer"
                        return
                except WSError as error:
                    self.failure = f"{self._client.url} sent what is no WebSocket: {readable(error)}"
                    return
                else:
                    return
        finally:
            if self._telling is not None:
                self._telling.cancel()
            await _ended(transport)

    # ---- commands ----

    def tell(self) -> None:
        """Have the server told what is wanted now and was not asked for yet, or the other way round; soon, so that
        many calls become one message, and no faster than the server lets clients speak."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(0, self._tell)

    def drop(self, symbols: Iterable[str]) -> None:
        """Have the server stop sending these, also where it began by itself."""
        self._asked.update((symbol, None) for symbol in symbols if symbol in self._ids)
        self.tell()

    def _tell(self) -> None:
        self._telling = None
        wanted = self._client.wanted
        for kind, symbols in (
            ("unsubscribe", [symbol for symbol in self._asked if symbol not in wanted]),
            ("subscribe", [symbol for symbol in wanted if symbol not in self._asked]),
        ):
            for some in _in_parts(symbols):
                if not self.answered and self._told >= FIRST_COMMANDS:
                    return  # the first answer goes on with it
                wait_s = self._take_token()
                if wait_s:
                    self._telling = asyncio.get_running_loop().call_later(wait_s, self._tell)
                    return
                for symbol in some:
                    if kind == "subscribe":
                        self._asked[symbol] = None
                    else:
                        del self._asked[symbol]
                self._told += 1
                self.transport.send(WSMsgType.TEXT, orjson.dumps({"type": kind, "symbols": some}))

    def _take_token(self) -> float:
        """Seconds to wait until a command may be sent; 0.0: now, and it counts."""
        now = time.monotonic()
        self._tokens = min(COMMAND_BURST, self._tokens + (now - self._tokens_at) * COMMANDS_PER_S)
        self._tokens_at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / COMMANDS_PER_S
        self._tokens -= 1.0
        return 0.0

    # ---- what comes in ----

    def on_ws_connected(self, transport: WSTransport) -> None:
        # Before anything that came in the same read as the server's answer.
        self.transport = transport
        self._client.opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.failure is not None or self.close_code is not None:
            return  # of the same read, after the end
        try:
            if frame.msg_type == WSMsgType.CLOSE:
                self._closed(frame.get_payload_as_bytes())
                transport.send_close(WSCloseCode.OK)
                transport.disconnect()
            elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
                self._take(frame)
        except (ProtocolError, ValueError, KeyError, TypeError, AttributeError) as error:
            # What comes from a faulty server or a torn line is not shown; a new connection starts afresh.
            self.failure = f"{self._client.url} sent what cannot be understood ({readable(repr(error))})"
            transport.disconnect(graceful=False)

    def _closed(self, payload: bytes) -> None:
        # By hand: picows' own enum has no member for codes from 4000 on.
        self.close_code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
        self.close_reason = readable(payload[2:].decode("utf-8", "replace"))

    def _take(self, frame: WSFrame) -> None:
        """A message, whole or in fragments, which proxies may make."""
        if (frame.msg_type == WSMsgType.CONTINUATION) != (self._fragments is not None):
            raise ProtocolError("bad_fragment", "a fragment without a beginning, or a message within another")
        if self._fragments is None and frame.fin:
            self._take_message(frame.msg_type, frame.get_payload_as_bytes())
            return
        if self._fragments is None:
            self._fragments, self._fragments_type = bytearray(), frame.msg_type
        self._fragments += frame.get_payload_as_bytes()
        if len(self._fragments) > MESSAGE_BYTES_MAX:
            raise ProtocolError("too_long", f"a message in fragments of more than {MESSAGE_BYTES_MAX} bytes")
        if frame.fin:
            whole, self._fragments = bytes(self._fragments), None
            self._take_message(self._fragments_type, whole)

    def _take_message(self, kind: WSMsgType, payload: bytes) -> None:
        if kind == WSMsgType.BINARY:
            names = self._names
            updates = [Update(names[sid], price, volume) for sid, price, volume in decode_frame(payload)]
            self._client.updated(updates)
        else:
            self._take_text(orjson.loads(payload))

    def _take_text(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "subscribed":
                for row in message["symbols"]:
                    self._learn(row)
            case "auto_subscribe":
                self._client.received(AutoSubscribed(self._learn(message["data"])))
            case "auto_unsubscribe":
                self._client.received(AutoUnsubscribed(self._learn(message["data"])))
            case "prices":  # the server's FEATURE_BINARY_WEBSOCKET is false
                rows = message["data"]
                self._client.updated(
                    [
                        Update(self._known(row["symbol"]), float(row["price"]), float(row["volume"]))
                        for row in rows
                    ]
                )
            case "enigma":
                self._client.received(self._level(message["data"]))
            case "pong":
                self._ponged_at = time.monotonic()
                if not self.answered:
                    self.answered = True
                    self.tell()
                self._client.answered(self._ponged_at - self._pinged_at)
            case "error":
                symbols = tuple(map(readable, message.get("symbols", ())))
                if message["code"] == "not_now":
                    self._ask_again(symbols)
                self._client.received(
                    Refused(readable(message["code"]), readable(message["message"]), symbols)
                )

    def _ask_again(self, symbols: Iterable[str]) -> None:
        """The server could not carry these for the moment, as on a full disk."""
        for symbol in symbols:
            self._asked.pop(symbol, None)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(RETRY_S, self._tell)

    def _learn(self, row: dict[str, Any]) -> str:
        """A symbol and its stream id, as the server names them."""
        symbol, stream_id = row["symbol"], row["id"]
        if not isinstance(stream_id, int) or not 0 <= stream_id <= 0xFFFF:
            raise ProtocolError("bad_id", "a stream id that is none")
        if not isinstance(symbol, str) or len(symbol) > SYMBOL_CHARACTERS_MAX or not symbol.isprintable():
            raise ProtocolError("bad_symbol", "a symbol that is none")
        before = self._names.get(stream_id)
        if before is not None and before != symbol:
            raise ProtocolError("bad_id", f"stream id {stream_id} of {before} for {symbol} too")
        self._names[stream_id] = symbol
        self._ids[symbol] = stream_id
        return symbol

    def _known(self, symbol: str) -> str:
        if symbol not in self._ids:
            raise ProtocolError("unknown_symbol", "the price of a symbol that was not announced")
        return symbol

    def _level(self, data: dict[str, Any]) -> Level:
        level = data["level"]
        return Level(
            symbol=self._known(data["symbol"]),
            level=None if level is None else float(level),
            ath=float(data["ath"]),
            atl=float(data["atl"]),
            current_price=float(data["current_price"]),
            fib_levels={readable(name): float(price) for name, price in data["fib_levels"].items()},
            timestamp=int(data["timestamp"]),
        )
