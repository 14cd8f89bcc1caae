"""The current prices where no table is: on a machine without a server, whose recorder writes them into the cache."""

from __future__ import annotations

from collections.abc import Sequence

from tradeback.errors import CacheError
from tradeback.model import Price, Symbol
from tradeback.store.base import Cache


class CachePrices:
    """The `Prices` of a cache, which is closed with them.

    A cache keeps of a price's times that of the trade alone: its quotes count as heard of then. Each call is a round
    trip. Errors: CacheError, also where no price is there since nobody writes them.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def price(self, symbol: Symbol, now_ns: int) -> Price | None:
        price = self._cache.price(symbol.name)
        if price is None:
            self._check_written()
            return None
        return price.at(now_ns)

    def prices(self, symbols: Sequence[Symbol], now_ns: int) -> list[Price]:
        found = self._cache.prices([symbol.name for symbol in symbols])
        if symbols and not found:
            self._check_written()
        return [price.at(now_ns) for price in found.values()]

    def _check_written(self) -> None:
        if not self._cache.prices_vouched():
            raise CacheError(
                "Nobody writes prices to the cache: see that the recorder runs and has the same REDIS_ADDR; after a "
                "start, or where the cache was emptied, it takes a moment"
            )

    def close(self) -> None:
        self._cache.close()
