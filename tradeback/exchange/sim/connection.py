"""One WebSocket connection of a consumer: what it asks, what the exchange answers, and its pings."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

import orjson
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

if TYPE_CHECKING:
    from tradeback.exchange.sim.streams import StreamHub

METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class Connection(WSListener):
    """One WebSocket connection of a consumer."""

    def __init__(self, hub: StreamHub, streams: list[str], combined: bool, microseconds: bool) -> None:
        self.hub = hub
        self.combined = combined
        self.microseconds = microseconds
        self.streams: dict[str, None] = dict.fromkeys(streams)
        self.queue: list[bytes] = []
        self.sent = 0
        self.writable = asyncio.Event()
        self.writable.set()
        self.opened = self.pinged = time.monotonic()
        self.unanswered_since: float | None = None
        self.closing = False
        self._ping_payload = b""
        self._pong_counts = True
        self._arrivals: deque[float] = deque()
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.hub.connected(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.writable.set()
        self.hub.disconnected(self)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        answers = frame.msg_type is WSMsgType.PONG and frame.get_payload_as_bytes() == self._ping_payload
        if answers:
            self.unanswered_since = None
            if not self._pong_counts:
                return
        now = time.monotonic()
        arrivals = self._arrivals
        arrivals.append(now)
        while arrivals[0] < now - 1.0:
            arrivals.popleft()
        if len(arrivals) > self.hub.limits.messages_per_second:
            self.hub.rate_cuts += 1
            self.close(WSCloseCode.POLICY_VIOLATION, b"Too many requests")
            return
        if frame.msg_type is WSMsgType.PING:
            if not self.hub.muted(self):
                transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            answer = self.answer(frame.get_payload_as_bytes())
            if answer is not None:
                self.hub.push(self, answer)
                self.hub.flush()

    def answer(self, data: bytes) -> bytes | None:
        """What the exchange answers to a control message, None where a fault keeps it silent; subscriptions
        change with it."""
        try:
            request = orjson.loads(data)
        except orjson.JSONDecodeError:
            return _error(3, "Invalid JSON: expected value at line 1 column 1")
        if not isinstance(request, dict):
            return _error(2, "Invalid request: expected an object")
        known = request.keys() - {"method", "params", "id"}
        if known:
            return _error(
                2, f"Invalid request: unknown field `{min(known)}`, expected one of method, params, id"
            )
        request_id = request.get("id")
        if "method" not in request:
            return _error(2, "Invalid request: missing field `method`")
        method = request["method"]
        if method not in METHODS:
            expected = ", ".join(f"`{name}`" for name in METHODS)
            return _error(2, f"Invalid request: unknown variant `{method}`, expected one of {expected}")
        valid_id = (
            request_id is None or isinstance(request_id, str) or (type(request_id) is int and request_id >= 0)
        )
        if not valid_id:
            return _error(2, "Invalid request: request ID must be an unsigned integer")
        params = request.get("params", [])
        if not isinstance(params, list):
            return _error(2, "Invalid request: params must be an array", request_id)
        if method == "LIST_SUBSCRIPTIONS":
            return orjson.dumps({"result": list(self.streams), "id": request_id})
        if method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._property(method, params, request_id)
        return self._subscribe(method, params, request_id)

    def _property(self, method: str, params: list[object], request_id: object) -> bytes:
        if not params or not isinstance(params[0], str):
            return _error(2, "Invalid request: property name must be a string", request_id)
        if params[0] != "combined":
            return _error(0, "Unknown property", request_id)
        if method == "GET_PROPERTY":
            return orjson.dumps({"result": self.combined, "id": request_id})
        if len(params) != 2:
            return _error(2, "Invalid request: too many parameters", request_id)
        if not isinstance(params[1], bool):
            return _error(1, "Invalid value type: expected Boolean", request_id)
        self.hub.change_combined(self, params[1])
        return orjson.dumps({"result": None, "id": request_id})

    def _subscribe(self, method: str, params: list[object], request_id: object) -> bytes | None:
        names = [name for name in params if isinstance(name, str) and name]
        if len(names) != len(params) or not names:
            return _error(2, "Invalid request: params must be an array of stream names", request_id)
        if method == "SUBSCRIBE":
            if len(self.streams.keys() | set(names)) > self.hub.limits.streams:
                limit = self.hub.limits.streams
                return _error(2, f"Invalid request: a connection carries at most {limit} streams", request_id)
            fault = self.hub.faults.on_subscribe(names)
            if fault is not None:
                kind, name = fault
                return (
                    _error(2, f"Invalid request: {name} is refused", request_id) if kind == "refuse" else None
                )
            self.hub.subscribe(self, names)
        else:
            self.hub.unsubscribe(self, names)
        return orjson.dumps({"result": None, "id": request_id})

    def ping(self, now: float, *, counts: bool = True) -> None:
        """`counts`: the answer is one of the messages that a consumer may send a second."""
        if self.transport is None or self.hub.muted(self):
            return
        self.pinged = now
        if self.unanswered_since is None:
            self.unanswered_since = now
        self._pong_counts = counts
        self._ping_payload = str(time.time_ns() // 1_000_000).encode()
        self.transport.send_ping(self._ping_payload)

    def close(self, code: WSCloseCode, reason: bytes) -> None:
        """Close as the exchange does: say why, then end the TCP connection."""
        if self.transport is not None and not self.closing:
            self.closing = True
            self.transport.send_close(code, reason)
            self.transport.disconnect()

    def abort(self) -> None:
        self.closing = True
        if self.transport is not None:
            self.transport.disconnect(graceful=False)

    def unsent(self) -> int:
        """Bytes that wait on this side of the kernel."""
        waiting = sum(map(len, self.queue))
        if self.transport is not None and not self.transport.is_disconnected:
            waiting += self.transport.underlying_transport.get_write_buffer_size()
        return waiting


def _error(code: int, message: str, request_id: object = None) -> bytes:
    body: dict[str, object] = {"code": code, "msg": message}
    if request_id is not None:
        body["id"] = request_id
    return orjson.dumps(body)
