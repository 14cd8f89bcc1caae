"""The symbols, and the current price of each."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import orjson
import structlog
from falcon import Request

from tradeback.api import params
from tradeback.api.answers import Answer, Refused, entity_tag, write_json, write_tagged
from tradeback.api.stores import Stores, Unavailable
from tradeback.errors import StaleRowError
from tradeback.model import Price, Symbol

log = structlog.get_logger(__name__)

CACHE = "public, max-age=5"
LOOK_AGAIN_S = 0.5
READ_AGAIN_S = 5.0
MAX_QUERY = 50
MAX_LISTED = 65_535


@dataclass(frozen=True, slots=True)
class Listing:
    """The catalog as it was read: all symbols by name, and the list of the active ones as bytes with their tag.

    `searched` has each active one with its name, its pair such as BTC/USDT and its base currency in upper case.
    """

    by_name: dict[str, Symbol]
    active: tuple[Symbol, ...]
    searched: tuple[tuple[Symbol, str, str, str], ...]
    body: bytes
    tag: str


class SymbolBook:
    """The catalog's symbols, read again when its file changed; looked after at most every LOOK_AGAIN_S.

    Where the catalog is on another machine they are read every READ_AGAIN_S. While that one is away, or slow, those
    that were read last serve, for all that they are needed for.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._remote = stores.catalog.path is None
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._seen: tuple[int, int, int] | None = None
        self._look_at = 0.0

    def listing(self) -> Listing:
        """What the catalog holds. `Unavailable` where it cannot be read."""
        now = time.monotonic()
        listing = self._listing
        if listing is not None and now < self._look_at:
            return listing
        if not self._lock.acquire(blocking=listing is None or not self._remote):
            return self._listing or self.listing()  # another thread reads them
        try:
            return self._read(now)
        finally:
            self._lock.release()

    def _read(self, now: float) -> Listing:
        listing = self._listing
        try:
            with self._stores.catalog.use() as catalog:
                seen = self._seen_file()
                if listing is None or seen is None or seen != self._seen:
                    listing = _listing(catalog.symbols())
                    self._seen = seen
        except Unavailable as error:
            if listing is None or not self._remote:
                raise
            log.warning("symbols are served as they were read last", reason=str(error))
        self._look_at = now + (READ_AGAIN_S if self._remote else LOOK_AGAIN_S)
        self._listing = listing
        return listing

    def _seen_file(self) -> tuple[int, int, int] | None:
        """What changes when the catalog's file does; None where it has none."""
        path = self._stores.catalog.path
        if path is None:
            return None
        status = path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def symbol(self, name: str) -> Symbol:
        """The symbol of this name, active or not; refused with 404 where there is none."""
        symbol = self.listing().by_name.get(name)
        if symbol is None:
            raise Refused(
                404, "unknown_symbol", f"{name[:MAX_QUERY]} is no symbol; /api/v1/symbols lists them."
            )
        return symbol

    def search(self, text: str, base: str | None = None, quote: str | None = None) -> list[Symbol]:
        """The active symbols whose name, such as BTCUSDT or BTC/USDT, holds this text, in any case; the nearest first.

        That is the one of this name, then those of this base currency, then those whose names begin so; by name among
        equals. `base` and `quote` are the currencies that it must have.
        """
        wanted = text.upper()
        found = []
        for symbol, name, pair, its_base in self.listing().searched:
            if wanted not in name and wanted not in pair:
                continue
            info = symbol.info
            if base not in (None, info.base_currency) or quote not in (None, info.quote_currency):
                continue
            nearest = (
                wanted not in (name, pair),
                its_base != wanted,
                not (name.startswith(wanted) or pair.startswith(wanted)),
            )
            found.append((nearest, name, symbol))
        return [symbol for _, _, symbol in sorted(found, key=lambda one: one[:2])]


def _listing(symbols: list[Symbol]) -> Listing:
    active = tuple(symbol for symbol in symbols if symbol.info.is_active)
    body = orjson.dumps([symbol.told() for symbol in active])
    searched = []
    for symbol in active:
        base, quote = symbol.info.base_currency.upper(), symbol.info.quote_currency.upper()
        searched.append((symbol, symbol.name.upper(), f"{base}/{quote}", base))
    by_name = {symbol.name: symbol for symbol in symbols}
    return Listing(by_name, active, tuple(searched), body, entity_tag(body))


def current_price(stores: Stores, symbol: Symbol, now_ns: int) -> Price | None:
    """The price of a symbol, or None where it has none yet. `Unavailable` where prices cannot be read."""
    with stores.prices.use() as prices:
        try:
            return prices.price(symbol, now_ns)
        except StaleRowError:
            # Its row is rebuilt when the server starts again.
            return None


class SymbolsResource:
    """`GET /symbols`."""

    def __init__(self, book: SymbolBook) -> None:
        self._book = book

    def on_get(self, request: Request, response: Answer) -> None:
        given = params.query(request, ("q", "base", "quote", "limit"))
        for name in ("q", "base", "quote"):
            if len(given.get(name, "")) > MAX_QUERY:
                raise params.bad(name, f"give at most {MAX_QUERY} characters")
        for name in ("base", "quote"):
            if given.get(name) == "":
                raise params.bad(name, "give a currency such as USDT")
        limit = params.integer(given, "limit", 1, MAX_LISTED)
        listing = self._book.listing()
        if given.keys() <= {"q"} and not given.get("q"):
            response.set_header("X-Total-Count", str(len(listing.active)))
            write_tagged(request, response, listing.body, cache=CACHE, tag=listing.tag)
            return
        found = self._book.search(given.get("q", ""), given.get("base"), given.get("quote"))
        response.set_header("X-Total-Count", str(len(found)))
        write_tagged(
            request, response, orjson.dumps([symbol.told() for symbol in found[:limit]]), cache=CACHE
        )


class SymbolResource:
    """`GET /symbols/{symbol}`."""

    def __init__(self, book: SymbolBook) -> None:
        self._book = book

    def on_get(self, request: Request, response: Answer, symbol: str) -> None:
        params.query(request, ())
        write_tagged(request, response, orjson.dumps(self._book.symbol(symbol).told()), cache=CACHE)


class PriceResource:
    """`GET /symbols/{symbol}/price`."""

    def __init__(self, book: SymbolBook, stores: Stores) -> None:
        self._book = book
        self._stores = stores

    def on_get(self, request: Request, response: Answer, symbol: str) -> None:
        params.query(request, ())
        known = self._book.symbol(symbol)
        now_ns = time.time_ns()
        price = current_price(self._stores, known, now_ns)
        if price is None:
            raise Refused(404, "no_price", f"No trade of {symbol} has arrived yet; subscribe to it, or wait.")
        write_json(response, price.told(symbol, now_ns))
