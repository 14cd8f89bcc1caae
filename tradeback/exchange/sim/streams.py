"""The WebSocket side: the exchange's own stream protocol, its limits, and who gets which stream.

A message's bytes are framed once a stream and handed to every connection that carries it; what a connection
got in one turn leaves in one write. One thread, one asyncio loop.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from picows import (
    WSCloseCode,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from tradeback.exchange.sim.connection import Connection
from tradeback.exchange.sim.faults import Fault, Faults, StreamFaults, matches

SHUTDOWN_STREAM = "!serverShutdown"
ANSWER_POLL = 0.01


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """The exchange's own limits; a test may shorten them."""

    ping_interval: float = 20.0
    pong_timeout: float = 60.0
    max_age: float = 86_400.0
    messages_per_second: int = 5
    streams: int = 1_024
    unsent_bytes: int = 8 * 1024 * 1024
    # Connection attempts, and in how many seconds.
    attempts: int = 300
    attempts_seconds: float = 300.0


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """One unmasked WebSocket frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return struct.pack(">BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, size) + payload


class Stream:
    """One stream and the connections that carry it, by how they want it: raw or combined, ms or µs."""

    __slots__ = (
        "combined_ms",
        "combined_us",
        "envelope",
        "faults",
        "lasting",
        "name",
        "raw_ms",
        "raw_us",
        "us",
        "wanted",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.envelope = b'{"stream":"' + name.encode() + b'","data":'
        self.raw_ms: list[Connection] = []
        self.combined_ms: list[Connection] = []
        self.raw_us: list[Connection] = []
        self.combined_us: list[Connection] = []
        # The market holds on to its streams; others are forgotten when nobody carries them any more.
        self.lasting = False
        self.faults: StreamFaults | None = None
        # Whether anybody carries it at all, and whether anybody wants microseconds: so that bytes nobody gets
        # are never built.
        self.wanted = False
        self.us = False

    def change(self, connection: Connection, add: bool) -> None:
        for combined, micro, group in (
            (False, False, self.raw_ms),
            (True, False, self.combined_ms),
            (False, True, self.raw_us),
            (True, True, self.combined_us),
        ):
            if (combined, micro) == (connection.combined, connection.microseconds):
                if add:
                    group.append(connection)
                else:
                    group.remove(connection)
        self.us = bool(self.raw_us or self.combined_us)
        self.wanted = bool(self.raw_ms or self.combined_ms) or self.us


class StreamHub:
    """All connections and streams."""

    def __init__(self, limits: StreamLimits, faults: Faults) -> None:
        self.limits = limits
        self.faults = faults
        self.streams: dict[str, Stream] = {}
        self.connections: dict[Connection, None] = {}
        self.connects = 0
        self.refused = 0
        self._attempts: deque[float] = deque()
        self.sent = 0
        self.rate_cuts = 0
        self.slow_cuts = 0
        self.changes = 0
        self._dirty: list[Connection] = []
        self._mutes: list[Fault] = []
        self._cuts: list[Fault] = []
        self._shutdowns: list[tuple[float, list[Connection]]] = []
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port."""
        self._server = await ws_create_server(
            self._route,
            host,
            port,
            max_frame_size=64 * 1024,
            read_buffer_init_size=2_048,
            logger_name="sim",
        )
        self._sweeper = asyncio.create_task(self._sweep(), name="sim sweep")
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        gone = [connection.transport for connection in self.connections if connection.transport is not None]
        for connection in list(self.connections):
            connection.abort()
        for transport in gone:
            await transport.wait_disconnected()
        if self._server is not None:
            await self._server.wait_closed()

    def _too_many(self) -> bool:
        """Whether one more attempt is one too many; if not, it counts. Addresses are not told apart."""
        now, limits = time.monotonic(), self.limits
        while self._attempts and self._attempts[0] <= now - limits.attempts_seconds:
            self._attempts.popleft()
        if len(self._attempts) >= limits.attempts:
            self.refused += 1
            return True
        self._attempts.append(now)
        return False

    def _route(self, request: WSUpgradeRequest) -> Connection | WSUpgradeResponseWithListener | None:
        if self._too_many():
            body = f"more than {self.limits.attempts} connection attempts".encode()
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(429, body), None)
        url = urlsplit(request.path.decode("latin-1"))
        query = parse_qs(url.query)
        microseconds = query.get("timeUnit", [""])[-1].upper() == "MICROSECOND"
        path = unquote(url.path)
        if path in ("/ws", "/ws/"):
            names, combined = [], False
        elif path.startswith("/ws/"):
            names, combined = [name for name in path[4:].split("/") if name], False
        elif path in ("/stream", "/stream/"):
            names, combined = [name for name in query.get("streams", [""])[-1].split("/") if name], True
        else:
            return None
        if len(set(names)) > self.limits.streams:
            body = f"a connection carries at most {self.limits.streams} streams, not {len(names)}".encode()
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(400, body), None)
        return Connection(self, names, combined, microseconds)

    def connected(self, connection: Connection) -> None:
        self.connects += 1
        self.connections[connection] = None
        for name in connection.streams:
            self.stream(name).change(connection, True)
        self._apply_cuts(connection)
        self.changes += 1

    def disconnected(self, connection: Connection) -> None:
        if self.connections.pop(connection, connection) is None:
            for name in connection.streams:
                self._leave(connection, name)
            connection.queue.clear()
        self.changes += 1

    def subscribe(self, connection: Connection, names: list[str]) -> None:
        for name in names:
            if name not in connection.streams:
                connection.streams[name] = None
                self.stream(name).change(connection, True)
        self._apply_cuts(connection)
        self.changes += 1

    def unsubscribe(self, connection: Connection, names: list[str]) -> None:
        for name in names:
            if name in connection.streams:
                del connection.streams[name]
                self._leave(connection, name)
        self.changes += 1

    def _leave(self, connection: Connection, name: str) -> None:
        stream = self.streams[name]
        stream.change(connection, False)
        if not stream.wanted and not stream.lasting:
            del self.streams[name]

    def change_combined(self, connection: Connection, combined: bool) -> None:
        for name in connection.streams:
            self.stream(name).change(connection, False)
        connection.combined = combined
        for name in connection.streams:
            self.stream(name).change(connection, True)

    def stream(self, name: str) -> Stream:
        found = self.streams.get(name)
        if found is None:
            found = self.streams[name] = Stream(name)
            if self.faults.on_stream(name):
                found.faults = StreamFaults(self.faults, name)
        return found

    def carried(self) -> bool:
        """Whether any stream is carried by anybody."""
        return any(stream.wanted for stream in self.streams.values())

    # Messages out.

    def send(self, stream: Stream, ms: bytes, us: bytes) -> None:
        """One message to everybody who carries the stream; it leaves with the next `flush`."""
        if stream.faults is None:
            self._deliver(stream, 1, ms, us)
            return
        for opcode, ms_out, us_out in stream.faults.apply(ms, us):
            self._deliver(stream, opcode, ms_out, us_out)
        if not stream.faults.holding and not self.faults.on_stream(stream.name):
            stream.faults = None

    def _deliver(self, stream: Stream, opcode: int, ms: bytes, us: bytes) -> None:
        if stream.combined_ms:
            self._queue(frame(stream.envelope + ms + b"}", opcode), stream.combined_ms)
        if stream.raw_ms:
            self._queue(frame(ms, opcode), stream.raw_ms)
        if stream.us:
            if stream.combined_us:
                self._queue(frame(stream.envelope + us + b"}", opcode), stream.combined_us)
            if stream.raw_us:
                self._queue(frame(us, opcode), stream.raw_us)

    def _queue(self, data: bytes, connections: list[Connection]) -> None:
        for connection in connections:
            if not connection.queue:
                self._dirty.append(connection)
            connection.queue.append(data)

    def push(self, connection: Connection, payload: bytes) -> None:
        self._queue(frame(payload), [connection])

    def flush(self) -> None:
        """Write what every connection got since the last time, each in one piece."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            queue = connection.queue
            transport = connection.transport
            if not queue:
                continue
            if transport is None or connection.closing or transport.is_disconnected or self.muted(connection):
                queue.clear()
                continue
            out = transport.underlying_transport
            out.write(b"".join(queue))
            connection.sent += len(queue)
            self.sent += len(queue)
            queue.clear()
            if out.get_write_buffer_size() > self.limits.unsent_bytes:
                self.slow_cuts += 1
                connection.abort()

    async def writable(self) -> None:
        """Wait until no connection holds back what it was sent."""
        for connection in list(self.connections):
            await connection.writable.wait()

    def drained(self) -> bool:
        """Whether nothing waits on this side: queues are empty and no reordered message is held."""
        held = any(stream.faults is not None and stream.faults.holding for stream in self.streams.values())
        return not held and not any(connection.unsent() for connection in self.connections)

    async def read_by_all(self) -> None:
        """Wait until every consumer has read what it was sent: it answers a ping behind all of that."""
        asked = list(self.connections)
        for connection in asked:
            connection.ping(time.monotonic(), counts=False)
        while any(
            connection.unanswered_since is not None for connection in asked if connection in self.connections
        ):
            await asyncio.sleep(ANSWER_POLL)

    # Faults of connections.

    def carrying(self, wanted: str | None) -> list[Connection]:
        return [connection for connection in self.connections if _carries(connection, wanted)]

    def muted(self, connection: Connection) -> bool:
        return bool(self._mutes) and any(
            not fault.over() and _carries(connection, fault.stream) for fault in self._mutes
        )

    def apply_fault(self, fault: Fault) -> None:
        """Let a fault that was just added begin."""
        now = time.monotonic()
        if fault.kind == "cut":
            self._cuts = self.faults.on_connection("cut")
            for connection in self.carrying(fault.stream):
                self._apply_cuts(connection)
            if fault.until is None:
                fault.left = 0
        elif fault.kind == "mute":
            self._mutes = self.faults.on_connection("mute")
            self.faults.done["mute"] += 1
        elif fault.kind == "shutdown":
            # Who connects again after the notice reaches another machine, which goes on.
            told = list(self.carrying(fault.stream))
            self._shutdowns.append((now if fault.until is None else fault.until, told))
            self.faults.done["shutdown"] += 1
            for connection in told:
                event = b'{"e":"serverShutdown","E":%d}' % (time.time_ns() // 1_000_000)
                wrapped = b'{"stream":"' + SHUTDOWN_STREAM.encode() + b'","data":' + event + b"}"
                self.push(connection, wrapped if connection.combined else event)
            self.flush()
        else:
            for stream in self.streams.values():
                if stream.faults is None and self.faults.on_stream(stream.name):
                    stream.faults = StreamFaults(self.faults, stream.name)

    def clear_faults(self) -> None:
        """End the faults of connections; a shutdown that was announced does not happen."""
        self.faults.clear()
        self._mutes, self._cuts, self._shutdowns = [], [], []

    def _apply_cuts(self, connection: Connection) -> None:
        for fault in self._cuts:
            if not connection.closing and _carries(connection, fault.stream) and fault.take():
                self.faults.done["cut"] += 1
                connection.abort()

    # Time.

    async def _sweep(self) -> None:
        """Pings, dead and old connections, and faults whose time is up."""
        limits = self.limits
        pause = max(min(0.2, limits.ping_interval / 4, limits.pong_timeout / 4), 0.01)
        while True:
            await asyncio.sleep(pause)
            now = time.monotonic()
            self.faults.prune()
            self._mutes = self.faults.on_connection("mute")
            self._cuts = self.faults.on_connection("cut")
            for connection in list(self.connections):
                if (
                    connection.unanswered_since is not None
                    and now - connection.unanswered_since > limits.pong_timeout
                ):
                    connection.abort()
                elif now - connection.opened > limits.max_age:
                    connection.close(WSCloseCode.GOING_AWAY, b"connection reached its maximum age")
                elif now - connection.pinged >= limits.ping_interval:
                    connection.ping(now)
            for shutdown in [entry for entry in self._shutdowns if entry[0] <= now]:
                self._shutdowns.remove(shutdown)
                for connection in shutdown[1]:
                    connection.close(WSCloseCode.SERVICE_RESTART, b"server shutdown")
            for stream in self.streams.values():
                if stream.faults is not None:
                    for opcode, ms, us in stream.faults.release():
                        self._deliver(stream, opcode, ms, us)
            self.flush()


def _carries(connection: Connection, wanted: str | None) -> bool:
    return wanted is None or any(matches(wanted, name) for name in connection.streams)
