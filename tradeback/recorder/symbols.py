"""SymbolBook: the catalog's symbols by stream id and by name, for every thread of the recorder."""

from __future__ import annotations

import threading
import time

import structlog

from tradeback.errors import StoreError
from tradeback.model import Symbol
from tradeback.store.base import Catalog

log = structlog.get_logger(__name__)

ASK_AGAIN_AFTER = 1.0
READ_AGAIN_AFTER = 60.0
READ_AFTER_FAILURE = 10.0
PRECISION_UNKNOWN = 8  # the finest that the exchange has


class SymbolBook:
    """Reads the catalog again when it is asked for a symbol that it does not know, for each at most once a second,
    and once a minute, since precisions may change: that in a thread of its own, so that nobody waits for a catalog that
    is slow or hangs. Where it cannot be read, what was read last serves; who asks for a symbol that is not in it gets a
    StoreError, as does `read`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._symbols: dict[int | str, Symbol] = {}  # by stream id, and by name
        self._asked: dict[int | str, float] = {}  # when it was last looked for in vain
        self._read_at = float("-inf")
        self._unknown: set[int] = set()
        self._refreshing = threading.Lock()  # held while a thread reads it beside the others

    def read(self) -> list[Symbol]:
        """All symbols as the catalog has them now."""
        with self._lock:
            symbols = self._catalog.symbols()
            self._read_at = time.monotonic()
            by_id: dict[int | str, Symbol] = {symbol.stream_id: symbol for symbol in symbols}
            by_name: dict[int | str, Symbol] = {symbol.name: symbol for symbol in symbols}
            # One that the catalog has no more, such as one that was restored from an older copy, is still that symbol.
            self._symbols = self._symbols | by_id | by_name
            return symbols

    def known(self) -> list[Symbol]:
        """All symbols as they were read last."""
        return [symbol for key, symbol in self._symbols.items() if isinstance(key, int)]

    def symbol(self, stream_id: int) -> Symbol | None:
        """The symbol of a stream id; None where the catalog has none."""
        return self._find(stream_id)

    def named(self, name: str) -> Symbol | None:
        """The symbol of a name; None where the catalog has none."""
        return self._find(name)

    def listed(self, name: str) -> Symbol | None:
        """As `named`, for names that anybody may send: however many are unknown, the catalog is read once a second, and
        one that is known is told though the catalog cannot be read."""
        found = self._symbols.get(name)
        age = time.monotonic() - self._read_at
        if age > (ASK_AGAIN_AFTER if found is None else READ_AGAIN_AFTER):
            try:
                self.read()
            except StoreError:
                if found is None:
                    raise
        return self._symbols.get(name)

    def _find(self, key: int | str) -> Symbol | None:
        found = self._symbols.get(key)
        now = time.monotonic()
        if found is None and now - self._asked.get(key, float("-inf")) > ASK_AGAIN_AFTER:
            self._asked[key] = now
            self.read()
            found = self._symbols.get(key)
        elif now - self._read_at >= READ_AGAIN_AFTER and self._refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh, name="symbols", daemon=True).start()
        return found

    def _refresh(self) -> None:
        """Read it again; where that fails, the precisions that are known serve on for a while."""
        try:
            self.read()
        except StoreError as error:
            log.debug("the symbols that were read last serve on", reason=str(error))
            self._read_at = time.monotonic() - READ_AGAIN_AFTER + READ_AFTER_FAILURE
        finally:
            self._refreshing.release()

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
