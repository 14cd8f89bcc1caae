"""Recording live streams: connections to the exchange whose every message is written down as it comes.

One connection carries as many streams as the exchange allows; each reconnects by itself, with backoff. What
is lost while it does is lost to the recording, and counted in `connects`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

import orjson
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tradeback.errors import ExchangeError
from tradeback.exchange.recording import RecordingWriter

STREAMS_PER_CONNECTION = 1_024
STREAMS_PER_REQUEST = 200
REQUEST_INTERVAL_SECONDS = 0.25
IDLE_SECONDS = 30.0
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
ENVELOPE = b'{"stream":'

log = logging.getLogger(__name__)


class Capture:
    """Records `streams` of the exchange at `url` into `writer` until `limit` messages, or until cancelled."""

    def __init__(
        self, url: str, streams: list[str], writer: RecordingWriter, limit: int | None = None
    ) -> None:
        self.url = url.rstrip("/") + "/stream"
        self.streams = streams
        self.writer = writer
        self.limit = limit
        self.connects = 0
        self._over: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Record. ExchangeError where the exchange refuses the streams or the file cannot be written."""
        self._over = asyncio.get_running_loop().create_future()
        tasks = [
            asyncio.create_task(self._carry(self.streams[first : first + STREAMS_PER_CONNECTION]))
            for first in range(0, len(self.streams), STREAMS_PER_CONNECTION)
        ]
        try:
            done, _ = await asyncio.wait([self._over, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def record(self, received: float, payload: bytes) -> None:
        if self._over is None or self._over.done():
            return
        self.writer.write(received, payload)
        if self.limit is not None and self.writer.messages >= self.limit:
            self._over.set_result(None)

    def refuse(self, payload: bytes) -> None:
        """The exchange answered a request with an error: it would do so for ever."""
        if self._over is not None and not self._over.done():
            text = payload[:200].decode("utf-8", "replace")
            self._over.set_exception(ExchangeError(f"{self.url} refused the streams: {text}"))

    async def _carry(self, streams: list[str]) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            line = _Line(self.record, self.refuse)
            try:
                transport, _ = await ws_connect(
                    lambda line=line: line,
                    self.url,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=IDLE_SECONDS,
                )
            except (OSError, WSError, TimeoutError) as error:
                log.warning("%s cannot be reached: %s", self.url, error)
            else:
                self.connects += 1
                try:
                    await self._subscribe(transport, streams)
                    await transport.wait_disconnected()
                except WSError as error:
                    log.warning("%s broke off: %s", self.url, error)
                finally:
                    transport.disconnect(graceful=False)
                if line.messages:
                    backoff = FIRST_BACKOFF_SECONDS
            await asyncio.sleep(random.uniform(backoff / 2.0, backoff))
            backoff = min(backoff * 2.0, LONGEST_BACKOFF_SECONDS)

    async def _subscribe(self, transport: WSTransport, streams: list[str]) -> None:
        for number, first in enumerate(range(0, len(streams), STREAMS_PER_REQUEST), 1):
            names = streams[first : first + STREAMS_PER_REQUEST]
            request = {"method": "SUBSCRIBE", "params": names, "id": number}
            transport.send(WSMsgType.TEXT, orjson.dumps(request))
            await asyncio.sleep(REQUEST_INTERVAL_SECONDS)


class _Line(WSListener):
    """One connection's messages: market data are recorded, answers are looked at."""

    def __init__(self, record: Callable[[float, bytes], None], refuse: Callable[[bytes], None]) -> None:
        self._record = record
        self._refuse = refuse
        self.messages = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type is WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            if payload.startswith(ENVELOPE):
                self.messages += 1
                self._record(time.time(), payload)
            elif b'"code"' in payload:
                self._refuse(payload)
