"""The current prices of this machine: the event server's table, a mapped file that costs a memory read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tradeback._fast.tablefile import TableReader
from tradeback.config import Config
from tradeback.errors import ConfigError, StaleRowError
from tradeback.model import Price, Symbol

TABLE_FILE = "table"


class LocalPrices:
    """The `Prices` of the mapped table. `open_prices` makes it.

    It reads the file that it was opened with: whoever finds another at its place opens it again.
    """

    def __init__(self, path: Path) -> None:
        self._reader = TableReader.open(str(path))
        self._lock = threading.Lock()

    def price(self, symbol: Symbol, now_ns: int) -> Price | None:
        with self._lock:
            row = self._reader.read(symbol.stream_id)
        return Price.of_row(row, now_ns) if row is not None and row.last_id is not None else None

    def prices(self, symbols: Sequence[Symbol], now_ns: int) -> list[Price]:
        found = []
        for symbol in symbols:
            with suppress(StaleRowError):
                found.append(self.price(symbol, now_ns))
        return [price for price in found if price is not None]

    def close(self) -> None:
        with self._lock:
            self._reader.close()


def open_prices(config: Config) -> LocalPrices:
    """The prices of the configured exchange, which must be decided (`Config.with_exchange`).

    DataFolderError where no server made a table yet, or it is foreign or of another version.
    """
    if config.exchange.name == "auto":
        raise ConfigError("exchange.name is auto: a table is that of one exchange, name binance or sim")
    return LocalPrices(config.data.of(config.exchange.name) / TABLE_FILE)
