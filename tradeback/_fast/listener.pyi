from asyncio.trsock import TransportSocket
from collections.abc import Callable
from typing import Any, Protocol

from picows import WSListener

from tradeback._fast.epoll import IterationHook
from tradeback._fast.fanout import FanOut, FrameSink
from tradeback._fast.ingest import Ingest
from tradeback.config import WebSocketConfig

def check_picows(running: str) -> None: ...

class ClientHandler(Protocol):
    def on_open(self, listener: ClientListener) -> None: ...
    def on_text(self, data: bytes) -> None: ...
    def on_binary(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_leave(self, slots: list[int]) -> None: ...
    def on_lost(self) -> None: ...

class ClientLimits:
    messages_per_second: float
    message_burst: float
    max_message_bytes: int
    high_water: int
    ping_interval_ns: int
    ping_timeout_ns: int
    blocked_limit_ns: int
    close_limit_ns: int
    def __init__(self, config: WebSocketConfig) -> None: ...

class ClientSink(FrameSink): ...

def text_frame(payload: bytes) -> bytes: ...

class TextSink(ClientSink):
    def __init__(self, names: dict[int, str], encode: Callable[[Any], bytes]) -> None: ...

class ClientListener(WSListener):
    fanout: FanOut
    limits: ClientLimits
    handle: int
    is_closing: bool
    socket: TransportSocket | None
    def __init__(
        self, fanout: FanOut, limits: ClientLimits, sink: ClientSink, client: ClientHandler
    ) -> None: ...
    def send_text(self, data: bytes) -> None: ...
    def send_frames(self, frames: bytes) -> None: ...
    def close(self, code: int, reason: str = "") -> None: ...
    def abort(self) -> None: ...
    def check(self, now_ns: int) -> bool: ...

class FlushHook(IterationHook):
    def __init__(self, fanout: FanOut, budget_ns: int, on_failed: Callable[[], None]) -> None: ...

class FeedListener(WSListener):
    abandoned: bool
    last_frame_ns: int
    last_market_ns: int
    waiting: int
    def __init__(
        self,
        ingest: Ingest,
        *,
        on_other: Callable[[bytes], None],
        on_unusual: Callable[[bytes], bytes | None],
        on_malformed: Callable[[bytes], None],
        after_reads: Callable[[], None] | None,
        on_waiting: Callable[[], None],
    ) -> None: ...
    def work_off(self) -> bool: ...
    def drop_waiting(self) -> None: ...
