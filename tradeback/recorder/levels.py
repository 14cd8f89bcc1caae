"""The Enigma level: where a price stands between the lowest and the highest of the whole stored history.

Pure: no clock, no store, no thread. Times of publishing are monotonic ns that the caller gives.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from tradeback._fast.record import FLAGS
from tradeback.model import EnigmaLevel

# Trades that came after younger ones: they may be the highest or the lowest, seldom the latest.
LATE = FLAGS["late"] | FLAGS["repair"]
INTERVAL_NS = 1_000_000_000


def enigma_level(price: float, ath: float, atl: float) -> float | None:
    """100 (price - atl) / (ath - atl), from 0 to 100; None where both are equal.

    Reckoned in decimals, as prices are: the difference of two near doubles has few digits that are right.
    """
    if ath == atl:
        return None
    at, high, low = Decimal(repr(price)), Decimal(repr(ath)), Decimal(repr(atl))
    return float(min(max(100 * (at - low) / (high - low), Decimal(0)), Decimal(100)))


@dataclass(slots=True)
class Seed:
    """What the store knows of a symbol: its highest and lowest price, None where there is none, and the newest
    level, which is the last that was published."""

    extremes: tuple[float, float] | None
    level: EnigmaLevel | None


class _Symbol:
    __slots__ = ("ath", "atl", "free_ns", "price", "queued", "told", "ts_event")

    def __init__(self, seed: Seed) -> None:
        self.ath, self.atl = seed.extremes or (-math.inf, math.inf)
        self.price = seed.level.price if seed.level is not None else 0.0
        self.ts_event = seed.level.ts_event if seed.level is not None else 0
        level = seed.level
        self.told = None if level is None else (level.price, level.ath, level.atl)
        self.free_ns = 0  # from when on it may be published again
        self.queued = False
        if self.price:
            self.reach(self.price)

    def reach(self, price: float) -> None:
        if price > self.ath:
            self.ath = price
        if price < self.atl:
            self.atl = price

    @property
    def state(self) -> tuple[float, float, float]:
        return self.price, self.ath, self.atl


class Levels:
    """The level of every symbol as its trades move it, and which are to be published when: when something
    changed, at most once in `interval_ns` a symbol, the last change always.

    `seed` is asked once for each symbol, at its first trade. Symbols are bounded by the stream ids, 65,535.
    """

    def __init__(self, seed: Callable[[int], Seed], interval_ns: int = INTERVAL_NS) -> None:
        self._seed = seed
        self._interval_ns = interval_ns
        self._symbols: dict[int, _Symbol] = {}
        # Those that changed: (when it may be published, stream id), each there once; and those that were given
        # out to be published and are not told yet.
        self._due: list[tuple[int, int]] = []
        self._taken: set[int] = set()

    def __len__(self) -> int:
        return len(self._symbols)

    def __contains__(self, stream_id: int) -> bool:
        """Whether the symbol had a trade here."""
        return stream_id in self._symbols

    def trade(self, stream_id: int, price: float, ts_event: int, flags: int, now_ns: int) -> bool:
        """A trade at `ts_event`, unix ns, `flags` as in the journal. False where the price cannot be one: such
        a record changes nothing."""
        if not 0.0 < price < math.inf:
            return False
        symbol = self._symbols.get(stream_id)
        if symbol is None:
            symbol = self._symbols[stream_id] = _Symbol(self._seed(stream_id))
        symbol.reach(price)
        if not flags & LATE or symbol.price == 0.0 or ts_event > symbol.ts_event:
            symbol.price = price
            symbol.ts_event = ts_event
        self._queue_where_changed(stream_id, symbol, now_ns)
        return True

    def widen(self, stream_id: int, extremes: tuple[float, float] | None, now_ns: int) -> None:
        """The store has gained prices of the symbol. One that had no trade here takes them in at its first."""
        symbol = self._symbols.get(stream_id)
        if symbol is None or extremes is None:
            return
        for price in extremes:
            symbol.reach(price)
        self._queue_where_changed(stream_id, symbol, now_ns)

    def due(self, now_ns: int, *, everything: bool = False) -> list[EnigmaLevel]:
        """The levels to be published now; `everything`: those too that were published a moment ago.

        They stay due until they are `told`: what could not be published comes again, as it is then.
        """
        while self._due and (everything or self._due[0][0] <= now_ns):
            self._taken.add(heapq.heappop(self._due)[1])
        found = []
        for stream_id in list(self._taken):
            symbol = self._symbols[stream_id]
            if symbol.state != symbol.told:
                found.append(_level(stream_id, symbol))
            else:
                # It moved and came back.
                self._taken.discard(stream_id)
                symbol.queued = False
        return found

    def told(self, levels: Iterable[EnigmaLevel], now_ns: int) -> None:
        """These, which were due, were published."""
        for level in levels:
            symbol = self._symbols[level.stream_id]
            symbol.told = (level.price, level.ath, level.atl)
            symbol.free_ns = now_ns + self._interval_ns
            symbol.queued = False
            self._taken.discard(level.stream_id)
            self._queue_where_changed(level.stream_id, symbol, now_ns)

    def next_due(self) -> int | None:
        """When something is to be published; None where nothing has changed."""
        if self._taken:
            return 0
        return self._due[0][0] if self._due else None

    def changed(self) -> set[int]:
        """Stream ids of what is to be published, now or later."""
        return {*self._taken, *(stream_id for _, stream_id in self._due)}

    def _queue_where_changed(self, stream_id: int, symbol: _Symbol, now_ns: int) -> None:
        if not symbol.queued and symbol.state != symbol.told:
            symbol.queued = True
            heapq.heappush(self._due, (max(now_ns, symbol.free_ns), stream_id))


def _level(stream_id: int, symbol: _Symbol) -> EnigmaLevel:
    price, ath, atl = symbol.state
    return EnigmaLevel(stream_id, symbol.ts_event, price, enigma_level(price, ath, atl), ath, atl)
