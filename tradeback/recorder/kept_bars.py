"""VouchedBars: no closed bar that changed is ever served out of the cache.

The API keeps answers to questions for bars in the cache, under a version, which is made of two things there: the epoch,
for which the recorder vouches two seconds at a time, and a mark of the symbol. Before the recorder changes stored bars,
the mark says so, and nothing of the symbol is kept or served; afterwards the mark is another one. Where the cache
cannot be told, the recorder waits, once, until nothing is vouched for any more, and then goes on without it. A new
epoch begins when no change is under way, and makes all that was kept void.

Bars of the last minutes change all the time. They are neither marked here nor kept by the API (`SETTLED_NS` there).
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import structlog

from tradeback.errors import CacheError
from tradeback.model import Symbol
from tradeback.store.base import Cache

log = structlog.get_logger(__name__)

VOUCHED = 2.0  # seconds
VOUCH_EVERY = 0.5
# What the API takes for settled is 300 s old; in between there is room for a slow write and for clocks that differ.
SETTLED_NS = 120 * 10**9


class VouchedBars:
    """`changing` is for the threads that write bars, `run` is a service. `symbol_of` gives a stream id's symbol."""

    def __init__(self, cache: Cache, symbol_of: Callable[[int], Symbol | None]) -> None:
        self._cache = cache
        self._symbol_of = symbol_of
        self._lock = threading.Lock()
        self._epoch = ""  # empty: nothing is vouched for, but what was before, until then
        self._vouched_until = 0.0  # monotonic
        self._changes: Counter[str] = Counter()  # that are under way, by symbol
        self._marking = (
            threading.Lock()
        )  # held while marks are set: who ends and who begins agree on the order
        self._error = ""

    @contextmanager
    def changing(self, bars: Iterable[tuple[int, int]]) -> Iterator[None]:
        """Bars of these stream ids and opening times (unix ns) change within the block."""
        before = time.time_ns() - SETTLED_NS
        ids = {stream_id for stream_id, open_time in bars if open_time < before}
        names = [symbol.name for symbol in map(self._symbol_of, ids) if symbol is not None]
        if not names:
            yield
            return
        with self._marking:
            with self._lock:
                self._changes.update(names)
                epoch = self._epoch
            told = bool(epoch) and self._told(epoch, lambda: self._cache.bars_change(names, epoch))
        done = False
        try:
            if not told:
                self._wait_until_void()
            yield
            done = True
        finally:
            with self._marking:
                with self._lock:
                    self._changes.subtract(names)
                    self._changes = +self._changes
                    ended = [name for name in names if name not in self._changes]
                # After an error the store may still do what it was asked to: the mark stays until the next change.
                if told and done and ended:
                    self._told(epoch, lambda: self._cache.bars_changed(ended, epoch))

    async def run(self) -> None:
        """Vouch for ever."""
        while True:
            try:
                await asyncio.to_thread(self.vouch)
            except CacheError as error:
                if not self._error:
                    log.warning("nobody vouches for bars in the cache at the moment", reason=str(error))
                self._error = str(error)
            else:
                self._error = ""
            await asyncio.sleep(VOUCH_EVERY)

    def vouch(self) -> None:
        """Vouch for VOUCHED seconds from now, where that can be. CacheError."""
        now_ms = self._cache.clock_ms()
        with self._lock:
            began = not self._epoch
            if began:
                if self._changes or time.monotonic() < self._vouched_until:
                    return
                self._epoch = secrets.token_hex(16)
            epoch = self._epoch
            # By the cache's own clock: what reaches it late vouches for nothing.
            self._vouched_until = time.monotonic() + VOUCHED
        try:
            if self._cache.vouch_for_bars(epoch, now_ms + round(VOUCHED * 1000), begin=began):
                return
        except CacheError:
            self._end(epoch)
            raise
        self._end(epoch)  # it was lost there, and marks may have been with it

    def _told(self, epoch: str, tell: Callable[[], None]) -> bool:
        try:
            tell()
        except CacheError as error:
            log.warning(
                "the cache is not told of changed bars; what it keeps of them is void", reason=str(error)
            )
            self._end(epoch)
            return False
        return True

    def _end(self, epoch: str) -> None:
        with self._lock:
            if self._epoch == epoch:
                self._epoch = ""

    def _wait_until_void(self) -> None:
        with self._lock:
            left = self._vouched_until - time.monotonic()
        if left > 0:
            time.sleep(left)
