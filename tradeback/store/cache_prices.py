"""The current prices where no table is: on a machine without a server, whose recorder writes them into the cache."""

from __future__ import annotations

from collections.abc import Sequence

from tradeback.model import Price, Symbol
from tradeback.store.base import Cache


class CachePrices:
    """The `Prices` of a cache, which is closed with them.

    A cache keeps of a price's times that of the trade alone: its quotes count as heard of then. Each call is a round
    trip. Errors: CacheError.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def price(self, symbol: Symbol, now_ns: int) -> Price | None:
        price = self._cache.price(symbol.name)
        return None if price is None else price.at(now_ns)

    def prices(self, symbols: Sequence[Symbol], now_ns: int) -> list[Price]:
        found = self._cache.prices([symbol.name for symbol in symbols])
        return [price.at(now_ns) for price in found.values()]

    def close(self) -> None:
        self._cache.close()
