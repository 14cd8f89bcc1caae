"""What the server does by the clock: aggTrades and open ids whose time is over, and room in the journal ahead of need.

One timer of the loop, on its thread. It wakes the loop as seldom as it may: an idle server must not be kept from
sleeping, and a busy one not from its messages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import PrepareReport
from tradeback.errors import DataFolderError

log = structlog.get_logger(__name__)

SOONEST = 0.025  # seconds: what is due waits at most so long more
LATEST = 0.25  # what comes to wait is not due before: arbitrate.pxd's WAIT_NS
PREPARE_RETRY = 1.0
# A segment must not fill up between two looks at whether the next one is wanted: so many records a second do not
# fill a tenth of one.
RECORDS_A_SECOND = 40_000
RECORD_BYTES = 64


class Upkeep:
    """Started with the feeds and stopped after them, before the journal is closed. `after` follows each tick."""

    def __init__(self, ingest: Ingest, segment_bytes: int, after: Callable[[], None]) -> None:
        self._ingest = ingest
        self._after = after
        self._latest = min(max(segment_bytes / RECORD_BYTES / RECORDS_A_SECOND / 10, SOONEST), LATEST)
        self._timer: asyncio.TimerHandle | None = None
        self._preparing: asyncio.Future[PrepareReport] | None = None
        self._failed = False
        self._retry_at = 0.0  # of the loop's clock

    def start(self) -> None:
        """Tick from now on."""
        self._loop = asyncio.get_running_loop()
        self._tick()

    def stop(self) -> None:
        """No tick any more. The journal's `close` waits for what an executor thread still prepares."""
        if self._timer is not None:
            self._timer.cancel()
        if self._preparing is not None:
            self._preparing.remove_done_callback(self._prepared)
            self._preparing.cancel()

    def _tick(self) -> None:
        try:
            self._ingest.tick()
            self._after()
            if (
                self._ingest.journal.needs_prepare
                and self._preparing is None
                and self._loop.time() >= self._retry_at
            ):
                # Off this thread: it may wait for the disk.
                self._preparing = self._loop.run_in_executor(None, self._ingest.journal.prepare)
                self._preparing.add_done_callback(self._prepared)
        finally:
            # Whatever happened: one bad tick must not be the last.
            self._timer = self._loop.call_later(self._pause(), self._tick)

    def _pause(self) -> float:
        """Seconds to the next tick: to what is due next, in these bounds."""
        if self._ingest.unwritten_symbols:
            return SOONEST
        deadline_ns = self._ingest.table.deadline_ns
        if deadline_ns == 0:
            return self._latest
        return min(max((deadline_ns - time.monotonic_ns()) / 1e9, SOONEST), self._latest)

    def _prepared(self, future: asyncio.Future[PrepareReport]) -> None:
        """Say once where there is no room for the journal's next segment, and try again later."""
        self._preparing = None
        try:
            report = future.result()
        except DataFolderError as error:
            if not self._failed:
                log.error("the journal has no room: trades are delivered, not kept", reason=str(error))
            self._failed = True
            self._retry_at = self._loop.time() + PREPARE_RETRY
            return
        if self._failed:
            log.info("the journal has room again: what was not kept is journaled as gaps")
        self._failed = False
        for lost in report.overrun:
            log.error("a reader of the journal lost its place", reason=lost)
