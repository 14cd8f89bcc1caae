"""BusSink: every trade of both journals onto the bus, at least once and in the journal's order, and the latest price of
each symbol once a batch. It is also where Enigma levels go to the bus."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from tradeback._fast.journal import JournalTrade, Record
from tradeback._fast.record import FLAGS
from tradeback._fast.stats import Stats
from tradeback.model import EnigmaLevel
from tradeback.recorder.sinks import Sink
from tradeback.recorder.symbols import SymbolBook
from tradeback.store.base import Bus
from tradeback.store.bus_layout import BusLevel, BusPrice, BusTrade

NO_PRICE = FLAGS["late"] | FLAGS["repair"]  # they add volume, the price stays


class BusSink(Sink):
    """The places are saved once the bus has acknowledged the batch: what was not, is published again."""

    def __init__(self, folder: Path, stats: Stats, window: float, bus: Bus, symbols: SymbolBook) -> None:
        super().__init__("bus", folder, stats, window)
        self._bus = bus
        self._symbols = symbols
        self._trades: dict[int, list[BusTrade]] = {}
        self._prices: dict[int, BusPrice] = {}
        self._levels: dict[str, EnigmaLevel] = {}
        self._levels_lock = threading.Lock()

    def publish(self, symbol: str, level: EnigmaLevel) -> None:
        """Take a level over from the Enigma sink's thread; the latest of a symbol is published."""
        with self._levels_lock:
            self._levels[symbol] = level

    def open(self) -> None:
        self._trades.clear()
        self._prices.clear()

    def take(self, journal: str, records: list[Record]) -> None:
        trades = self._trades
        for record in records:
            if type(record) is not JournalTrade:
                continue
            stream_id = record.stream_id
            trade = BusTrade(
                record.price,
                record.qty,
                record.bid,
                record.ask,
                record.trade_id,
                record.ts_event,
                record.recv_offset_us,
                record.trade_count,
                record.flags,
            )
            if stream_id in trades:
                trades[stream_id].append(trade)
            else:
                trades[stream_id] = [trade]
            if not record.flags & NO_PRICE:
                self._prices[stream_id] = BusPrice(
                    record.price, record.bid, record.ask, record.trade_id, record.ts_event
                )

    def commit(self, places: Mapping[str, int]) -> None:
        published = 0
        for stream_id, trades in self._trades.items():
            symbol = self._symbols.symbol(stream_id)
            if symbol is None:  # the history sink tells of ids that the catalog does not know
                continue
            self._bus.publish_trades(symbol.name, stream_id, trades)
            published += len(trades)
            price = self._prices.get(stream_id)
            if price is not None:
                self._bus.publish_price(symbol.name, stream_id, price)
        if published:
            self._bus.flush()
        self._trades.clear()
        self._prices.clear()
        self._stats.increase("bus_published", published)

    def at_end(self) -> bool:
        self._publish_levels()
        return False

    def finish(self) -> None:
        self._publish_levels()

    def _publish_levels(self) -> None:
        with self._levels_lock:
            levels = dict(self._levels)
        if not levels:
            return
        for name, level in levels.items():
            self._bus.publish_enigma(
                name,
                level.stream_id,
                BusLevel.of(level.level, level.ath, level.atl, level.price, level.ts_event),
            )
        self._bus.flush()
        with self._levels_lock:
            for name, level in levels.items():
                if self._levels[name] is level:
                    del self._levels[name]
