"""The ledger: what was really traded, in bounded memory, and the one-minute bars made of it.

Rows are kept in chunks of 64-bit integers, about 40 bytes a trade. When more rows are held than allowed, the
chunk that filled first, of whatever symbol, goes. Totals and bars are not touched by that.
Times are microseconds, prices and quantities units of 1e-8.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tradeback.exchange.sim.market import UNIT

CHUNK_ROWS = 512
MAX_BARS = 1_500
MINUTE_MS = 60_000


class Rows:
    """Rows of `width` integers, appended with a rising first column (the id)."""

    __slots__ = ("_chunks", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self._chunks: list[array[int]] = [array("q")]

    def append(self, row: tuple[int, ...]) -> bool:
        """True when a chunk was filled by it."""
        chunk = self._chunks[-1]
        chunk.extend(row)
        if len(chunk) < CHUNK_ROWS * self.width:
            return False
        self._chunks.append(array("q"))
        return True

    def drop_oldest(self) -> int:
        """Forget the oldest chunk; gives its number of rows. The one being filled stays."""
        return len(self._chunks.pop(0)) // self.width if len(self._chunks) > 1 else 0

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self._chunks) // self.width

    def from_value(self, value: int, column: int = 0) -> Iterator[tuple[int, ...]]:
        """Rows from the first whose `column` is at least `value` on; the column must never fall."""
        width = self.width
        for chunk in list(self._chunks):
            if not chunk or chunk[len(chunk) - width + column] < value:
                continue
            low, high = 0, len(chunk) // width
            while low < high:
                middle = (low + high) // 2
                if chunk[middle * width + column] < value:
                    low = middle + 1
                else:
                    high = middle
            for place in range(low * width, len(chunk), width):
                yield tuple(chunk[place : place + width])

    def latest(self, count: int) -> list[tuple[int, ...]]:
        """The newest `count` rows, oldest first."""
        width = self.width
        found: list[tuple[int, ...]] = []
        for chunk in reversed(self._chunks):
            for place in range(len(chunk) - width, -1, -width):
                if len(found) == count:
                    return found[::-1]
                found.append(tuple(chunk[place : place + width]))
        return found[::-1]


@dataclass(slots=True)
class MinuteBar:
    """One minute of one symbol. Prices and volumes in 1e-8, quote volumes in 1e-16."""

    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote_volume: int = 0
    trades: int = 0
    taker_volume: int = 0
    taker_quote: int = 0
    first_id: int = 0
    last_id: int = 0

    def absorb(self, later: MinuteBar) -> None:
        """Become the bar of this time and of a later one together."""
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.volume += later.volume
        self.quote_volume += later.quote_volume
        self.trades += later.trades
        self.taker_volume += later.taker_volume
        self.taker_quote += later.taker_quote
        self.last_id = later.last_id


class SymbolLedger:
    """One symbol. `trades` rows: id, time, price, quantity, maker; `aggs` rows: a, and so on, then f, l."""

    __slots__ = (
        "agg_count", "aggs", "bars", "last_agg", "last_quote", "last_single", "last_trade", "symbol", "total",
        "trade_count", "trades",
    )  # fmt: skip

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.trades = Rows(5)
        self.aggs = Rows(7)
        self.trade_count = 0
        self.agg_count = 0
        self.total = 0
        self.last_trade = 0
        self.last_single = 0
        self.last_agg = 0
        self.last_quote: tuple[int, int, int, int, int] | None = None
        self.bars: dict[int, MinuteBar] = {}

    def count(
        self, first_id: int, last_id: int, time_us: int, price: int, quantity: int, maker: bool
    ) -> None:
        """Add trades `first_id`..`last_id` of one price to the totals and to the bar of their minute."""
        self.trade_count += last_id - first_id + 1
        self.total += quantity
        if last_id > self.last_trade:
            self.last_trade = last_id
        minute = time_us // 60_000_000 * MINUTE_MS
        bar = self.bars.get(minute)
        if bar is None:
            bar = self.bars[minute] = MinuteBar(price, price, price, price, first_id=first_id)
            if len(self.bars) > MAX_BARS:
                del self.bars[next(iter(self.bars))]
        if price > bar.high:
            bar.high = price
        elif price < bar.low:
            bar.low = price
        bar.close = price
        bar.volume += quantity
        bar.quote_volume += price * quantity
        bar.trades += last_id - first_id + 1
        bar.last_id = last_id
        if not maker:
            bar.taker_volume += quantity
            bar.taker_quote += price * quantity

    def sum_text(self) -> str:
        """The exact quantity of all trades ever counted."""
        return f"{self.total // UNIT}.{self.total % UNIT:08d}"


class Ledger:
    """All symbols. `limit` bounds the rows held, trades and aggTrades together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.symbols: dict[str, SymbolLedger] = {}
        self._held = 0
        self._filled: deque[Rows] = deque()

    def of(self, symbol: str) -> SymbolLedger:
        ledger = self.symbols.get(symbol)
        if ledger is None:
            ledger = self.symbols[symbol] = SymbolLedger(symbol)
        return ledger

    def add_trade(
        self, to: SymbolLedger, trade_id: int, time_us: int, price: int, quantity: int, maker: bool
    ) -> None:
        self.keep_trade(to, trade_id, time_us, price, quantity, maker)
        to.count(trade_id, trade_id, time_us, price, quantity, maker)

    def keep_trade(
        self, to: SymbolLedger, trade_id: int, time_us: int, price: int, quantity: int, maker: bool
    ) -> None:
        """Keep a trade's row without counting it: for trades that are counted by their aggTrade."""
        to.last_single = trade_id
        if to.trades.append((trade_id, time_us, price, quantity, maker)):
            self._make_room(to.trades)

    def add_agg_trade(
        self,
        to: SymbolLedger,
        agg_id: int,
        time_us: int,
        price: int,
        quantity: int,
        maker: bool,
        first: int,
        last: int,
    ) -> None:
        """Keep an aggTrade. It counts nowhere by itself: its trades do."""
        to.agg_count += 1
        to.last_agg = agg_id
        if to.aggs.append((agg_id, time_us, price, quantity, maker, first, last)):
            self._make_room(to.aggs)

    def _make_room(self, rows: Rows) -> None:
        self._filled.append(rows)
        self._held += CHUNK_ROWS
        while self._held > self.limit and self._filled:
            self._held -= self._filled.popleft().drop_oldest()
