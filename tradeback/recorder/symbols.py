"""SymbolBook: the catalog's symbols by stream id and by name, for every thread of the recorder."""

from __future__ import annotations

import threading
import time

import structlog

from tradeback.model import Symbol
from tradeback.store.base import Catalog

log = structlog.get_logger(__name__)

READ_AGAIN_AFTER = 1.0
PRECISION_UNKNOWN = 8  # the finest that the exchange has


class SymbolBook:
    """Reads the catalog when it is asked for a stream id that it does not know, at most once a second."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._by_id: dict[int, Symbol] = {}
        self._by_name: dict[str, Symbol] = {}
        self._read_at = float("-inf")
        self._unknown: set[int] = set()

    def read(self) -> list[Symbol]:
        """All symbols as the catalog has them now."""
        with self._lock:
            symbols = self._catalog.symbols()
            self._read_at = time.monotonic()
            self._by_id = {symbol.stream_id: symbol for symbol in symbols}
            self._by_name = {symbol.name: symbol for symbol in symbols}
            return symbols

    def symbol(self, stream_id: int) -> Symbol | None:
        """The symbol of a stream id; None where the catalog has none."""
        found = self._by_id.get(stream_id)
        if found is None and time.monotonic() - self._read_at > READ_AGAIN_AFTER:
            self.read()
            found = self._by_id.get(stream_id)
        return found

    def named(self, name: str) -> Symbol | None:
        """The symbol of a name; None where the catalog has none."""
        found = self._by_name.get(name)
        if found is None and time.monotonic() - self._read_at > READ_AGAIN_AFTER:
            self.read()
            found = self._by_name.get(name)
        return found

    def quantity_precision(self, stream_id: int) -> int:
        """Decimals of a symbol's quantities."""
        symbol = self.symbol(stream_id)
        if symbol is not None:
            return symbol.info.quantity_precision
        if stream_id not in self._unknown:
            self._unknown.add(stream_id)
            log.error(
                "the journal has trades of a stream id that the catalog does not know: restore the catalog",
                stream_id=stream_id,
                taken_for_its_precision=PRECISION_UNKNOWN,
            )
        return PRECISION_UNKNOWN
