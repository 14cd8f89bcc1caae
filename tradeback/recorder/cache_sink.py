"""CacheSink: current prices and Enigma levels into the cache.

The journal says whose price changed, the mapped table what it is now: of each symbol only the newest state is
written. Quotes, which no journal has, are found by reading all rows now and then. So nothing waits in a queue: after
a failure, and at start, every row is written anew, and that is all there is to catch up with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog

from tradeback._fast.journal import JournalCursor, JournalTrade, Record, drop_cursor, durable_places
from tradeback._fast.stats import Stats
from tradeback.errors import DataFolderError
from tradeback.model import EnigmaLevel, Price, Symbol
from tradeback.recorder.indicators import enigma_message
from tradeback.recorder.sinks import JOURNALS, Sink
from tradeback.recorder.symbols import SymbolBook
from tradeback.recorder.table_rows import TableRows
from tradeback.store.base import Cache

log = structlog.get_logger(__name__)

WRITES_A_TTL = 3  # a price that does not change is written so often before it would expire


class CacheSink(Sink):
    """`window` is how long trades are gathered, `quote_window` how often all rows are read, `price_ttl` how long the
    cache keeps a price; in seconds.

    It is a LevelTarget too, that wants to hear of stored levels: so it asks no store, and waits for none.
    """

    def __init__(
        self,
        folder: Path,
        stats: Stats,
        window: float,
        cache: Cache,
        symbols: SymbolBook,
        *,
        quote_window: float,
        price_ttl: float,
    ) -> None:
        super().__init__("cache", folder, stats, window)
        self._cache = cache
        self._symbols = symbols
        self._quote_window = quote_window
        self._write_all_every = price_ttl / WRITES_A_TTL
        self._table = TableRows(folder)
        self._traded: set[int] = set()
        self._written: dict[int, Price] = {}
        self._quotes_due = 0.0
        self._all_due = 0.0
        self._lock = threading.Lock()
        self._levels: dict[str, EnigmaLevel] = {}  # the newest of each symbol, written or not
        self._unwritten: set[str] = set()

    def publish(self, symbol: str, level: EnigmaLevel) -> None:
        """Have a level written, by the sink's thread. Returns at once."""
        with self._lock:
            self._levels[symbol] = level
            self._unwritten.add(symbol)

    def open(self) -> Mapping[str, int]:
        self._traded.clear()
        self._written.clear()
        self._symbols.read()
        with self._lock:
            self._unwritten.update(self._levels)
        self._write_everything()
        return {}

    def _go_to_truth(self, journal: str, cursor: JournalCursor, saved: bool, stored: int | None) -> None:
        """All that was traded until now is written; what comes between is found with the quotes."""
        cursor.seek("newest")

    def take(self, journal: str, records: list[Record]) -> None:
        # What was fetched later is older than the price.
        if journal == "journal":
            self._traded.update(record.stream_id for record in records if type(record) is JournalTrade)

    def commit(self, places: Mapping[str, int]) -> None:
        found = (self._symbols.symbol(stream_id) for stream_id in self._traded)
        self._write_news(*self._rows(symbol for symbol in found if symbol is not None))
        self._traded.clear()
        self._write_levels()

    def at_end(self) -> bool:
        now = time.monotonic()
        if now >= self._all_due:
            self._write_everything()
        elif now >= self._quotes_due:
            self._quotes_due = now + self._quote_window
            self._write_news(*self._rows(self._symbols.known()))
        self._write_levels()
        return False

    def finish(self) -> None:
        """What was published last is written now."""
        self._write_levels()
        self._table.close()

    def _failed(self, error: Exception) -> None:
        """It goes on at the newest record, so no journal waits for it."""
        super()._failed(error)
        for journal in JOURNALS:
            try:
                if self.name in durable_places(self._folder / journal):
                    drop_cursor(self._folder / journal, self.name)
            except DataFolderError as refused:
                log.error("a journal waits for the cache", journal=journal, reason=str(refused))

    def _write_everything(self) -> None:
        """Write each price and level, so that none expires, and all are there again where the cache lost them."""
        now = time.monotonic()
        names, prices = self._rows(self._symbols.known())
        self._write_news(names, prices)
        same = {names[stream_id]: price for stream_id, price in prices.items()}
        self._cache.write_prices(same, announce=False)
        if self._table.open():  # without a table nobody knows what there is
            self._cache.vouch_for_prices()
        with self._lock:
            self._unwritten.update(self._levels)
        self._write_levels()
        self._all_due = now + self._write_all_every
        self._quotes_due = now + self._quote_window

    def _write_news(self, names: dict[int, str], prices: dict[int, Price]) -> None:
        written = self._written
        news = {stream_id: price for stream_id, price in prices.items() if written.get(stream_id) != price}
        if news:
            self._cache.write_prices({names[stream_id]: price for stream_id, price in news.items()})
            written.update(news)
            self._stats.increase("prices_cached", len(news))

    def _write_levels(self) -> None:
        with self._lock:
            levels = {symbol: self._levels[symbol] for symbol in self._unwritten}
            self._unwritten.clear()
        if levels:
            # Where this fails, all levels are written when the sink starts again.
            self._cache.write_enigma(
                {symbol: enigma_message(symbol, level)["data"] for symbol, level in levels.items()}
            )
            self._stats.increase("levels_cached", len(levels))

    def _rows(self, symbols: Iterable[Symbol]) -> tuple[dict[int, str], dict[int, Price]]:
        """Names and prices by stream id, of those symbols that have a price; none before there is a table."""
        names: dict[int, str] = {}
        prices: dict[int, Price] = {}
        now_ns = time.time_ns()
        if not self._table.open():
            return {}, {}
        for symbol in symbols:
            row = self._table.read(symbol.stream_id)
            if row is not None:
                names[symbol.stream_id] = symbol.name
                # When a quote last came is not told: by itself that is no news.
                prices[symbol.stream_id] = Price.of_row(row, now_ns)._replace(ts_recv=row.ts_event)
        return names, prices
