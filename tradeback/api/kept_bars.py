"""Bars out of the history, settled ones out of the cache where they are kept there (recorder/kept_bars.py: why none of
them can be stale). Whatever is the matter with the cache, the history is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from tradeback.api.stores import Stores, Unavailable
from tradeback.model import RESOLUTIONS, Bar, Symbol
from tradeback.store.base import Cache, CachedBars, KeptBars

# A closed bar still changes: its last trades are on their way to the history, and one that was missed is fetched within
# minutes as a rule.
SETTLED_NS = 300 * 10**9
NOTHING = KeptBars(None, None)

Told = TypeVar("Told")

log = structlog.get_logger(__name__)


class BarsReader:
    """Reads bars for any thread."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._failed = False  # the cache, when it was used last

    def newest(
        self, symbol: Symbol, resolution: str, start: int, end: int, count: int, now_ns: int
    ) -> list[Bar]:
        """The newest `count` bars that open from `start` to before `end`, unix ns, by rising time. Unavailable where
        the history cannot be read."""
        kept = self._use(lambda cache: cache.bars(symbol.name, resolution)) or NOTHING
        if kept.bars is not None and (
            found := self._with_newer(symbol, resolution, start, end, count, kept.bars)
        ):
            return found
        with self._stores.history.use() as history:
            bars = history.bars(symbol.stream_id, resolution, start, end, count)
        version = kept.version
        length = RESOLUTIONS[resolution]
        last = min(end, now_ns - SETTLED_NS) // length * length
        settled = [bar for bar in bars if bar.open_time < last]
        if version is not None and settled:
            # Where there were more, the oldest that came is the first that is known.
            first = start if len(bars) < count else bars[0].open_time
            keep = CachedBars(first, last, settled)
            self._use(lambda cache: cache.write_bars(symbol.name, resolution, keep, version))
        return bars

    def _with_newer(
        self, symbol: Symbol, resolution: str, start: int, end: int, count: int, kept: CachedBars
    ) -> list[Bar] | None:
        """The kept bars with those of the history that follow them. None where older or later ones are asked for."""
        upto = min(kept.end, end)
        if upto <= max(start, kept.start):
            return None
        newer: list[Bar] = []
        if end > kept.end:
            with self._stores.history.use() as history:
                newer = history.bars(symbol.stream_id, resolution, max(start, kept.end), end, count)
        older = [bar for bar in kept.bars if start <= bar.open_time < upto]
        if start < kept.start and len(older) + len(newer) < count:
            return None
        return [*older, *newer][-count:]

    def _use(self, ask: Callable[[Cache], Told]) -> Told | None:
        """What the cache tells; None where there is none, or it cannot be used, which is said once."""
        if self._stores.cache is None:
            return None
        try:
            with self._stores.cache.use() as cache:
                told = ask(cache)
        except Unavailable as error:
            if not self._failed:
                log.warning("bars come out of the history alone, as Redis cannot be used", reason=str(error))
            self._failed = True
            return None
        self._failed = False
        return told
