"""Outbox: what the server is to publish to its clients, on its way through the control socket."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import structlog

from tradeback._fast.stats import Stats
from tradeback.control import ControlClient
from tradeback.errors import ControlError, ControlRefusedError
from tradeback.model import EnigmaLevel
from tradeback.recorder.indicators import enigma_message

log = structlog.get_logger(__name__)

# A line of so many takes the server's loop less than a millisecond.
MESSAGES_PER_LINE = 32
RETRY_MIN = 0.1
RETRY_MAX = 5.0
FLUSH_SECONDS = 1.0
ANSWER_TIMEOUT = 5.0


class Outbox:
    """Takes levels from any thread, and sends them from the loop's. Of each symbol only the latest waits, so that a
    server that is away or slow costs no more than one level a symbol; it gets the latest when it is back."""

    def __init__(self, server: ControlClient, stats: Stats) -> None:
        self._server = server
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._some = asyncio.Event()
        self._lock = threading.Lock()
        self._waiting: dict[str, EnigmaLevel] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def publish(self, symbol: str, level: EnigmaLevel) -> None:
        """Have a level sent. Returns at once."""
        with self._lock:
            wake = not self._waiting
            self._waiting[symbol] = level
        if wake:
            self._loop.call_soon_threadsafe(self._some.set)

    async def run(self) -> None:
        """Send what comes, for ever."""
        pause = RETRY_MIN
        while True:
            await self._some.wait()
            try:
                await self._send()
            except ControlError as error:
                if pause == RETRY_MIN:
                    log.info("levels wait for the server", reason=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX)
            else:
                pause = RETRY_MIN

    async def flush(self) -> None:
        """Send what is left at the end, where the server takes it within FLUSH_SECONDS."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                while self._waiting:
                    await self._send()
        except (ControlError, TimeoutError) as error:
            log.info("the server did not take the last levels", reason=str(error) or type(error).__name__)

    async def _send(self) -> None:
        """Send one line. Raises ControlError where the server cannot be reached; it is sent again then."""
        batch = self._take()
        messages: list[dict[str, Any]] = [
            {"symbol": symbol, "message": enigma_message(symbol, level)} for symbol, level in batch.items()
        ]
        try:
            await self._server.ask({"type": "publish", "messages": messages}, ANSWER_TIMEOUT)
        except ControlRefusedError as error:
            log.error("the server refused levels, they are dropped", symbols=list(batch), reason=str(error))
            return
        except BaseException:
            self._put_back(batch)
            raise
        self._stats.increase("levels_sent", len(batch))

    def _take(self) -> dict[str, EnigmaLevel]:
        with self._lock:
            names = list(self._waiting)[:MESSAGES_PER_LINE]
            batch = {name: self._waiting.pop(name) for name in names}
            if not self._waiting:
                self._some.clear()
            return batch

    def _put_back(self, batch: dict[str, EnigmaLevel]) -> None:
        with self._lock:
            # What came meanwhile is younger.
            self._waiting = batch | self._waiting
            self._some.set()
