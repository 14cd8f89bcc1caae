"""A consumer of the exchange's streams, for tests: keeps what came, and can wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import orjson
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

# No test waits so long unless it fails.
SAFETY_SECONDS = 60.0


class Consumer(WSListener):
    """One connection. `texts` are the text payloads as received, `binaries` and `pings` the others."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.binaries: list[bytes] = []
        self.pings: list[bytes] = []
        self.close_code: int | None = None
        self.gone = asyncio.Event()
        self._changed = asyncio.Event()
        self.transport: WSTransport | None = None

    @classmethod
    async def open(cls, url: str, *, answer_pings: bool = True) -> Self:
        def make() -> Self:
            return cls()

        _, consumer = await ws_connect(make, url, enable_auto_pong=answer_pings)
        assert isinstance(consumer, cls)
        return consumer

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if frame.msg_type is WSMsgType.TEXT:
            self.texts.append(payload)
        elif frame.msg_type is WSMsgType.BINARY:
            self.binaries.append(payload)
        elif frame.msg_type is WSMsgType.PING:
            self.pings.append(payload)
        elif frame.msg_type is WSMsgType.CLOSE:
            self.close_code = int(frame.get_close_code())
            transport.disconnect()
        self._changed.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.gone.set()
        self._changed.set()

    def send(self, message: dict[str, Any] | str) -> None:
        assert self.transport is not None
        text = message if isinstance(message, str) else orjson.dumps(message).decode()
        self.transport.send(WSMsgType.TEXT, text)

    async def ask(self, message: dict[str, Any] | str) -> Any:
        """Send a control message; the next message that is no market event is its answer."""
        before = len(self.texts)
        self.send(message)

        def answers() -> list[bytes]:
            return [text for text in self.texts[before:] if b'"result"' in text or b'"code"' in text]

        await self.until(lambda: bool(answers()))
        return orjson.loads(answers()[0])

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(SAFETY_SECONDS):
            while not reached():
                self._changed.clear()
                await self._changed.wait()

    async def closed(self) -> None:
        async with asyncio.timeout(SAFETY_SECONDS):
            await self.gone.wait()

    async def close(self) -> None:
        assert self.transport is not None
        self.transport.disconnect()
        await self.closed()

    def events(self, stream: str | None = None) -> list[dict[str, Any]]:
        """Market events in their order, out of their envelopes; with `stream`, those of a combined stream."""
        found = []
        for text in self.texts:
            message = orjson.loads(text)
            if "stream" in message:
                if stream in (None, message["stream"]):
                    found.append(message["data"])
            elif stream is None and ("e" in message or "u" in message):
                found.append(message)
        return found
