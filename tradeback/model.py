"""The types of the cold path: what stores, commands and answers speak in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol, Self

MINUTE_NS = 60_000_000_000
DAY_NS = 1_440 * MINUTE_NS
MS_NS = 1_000_000

# A bar's resolution and its length in ns. Bars are aligned to UTC: every length divides a day.
RESOLUTIONS: dict[str, int] = {
    "1m": MINUTE_NS,
    "5m": 5 * MINUTE_NS,
    "15m": 15 * MINUTE_NS,
    "1h": 60 * MINUTE_NS,
    "4h": 240 * MINUTE_NS,
    "1d": DAY_NS,
}


@dataclass(frozen=True, slots=True)
class SymbolInfo:
    """A symbol as the exchange describes it. A filter that it does not give is None."""

    symbol: str
    base_currency: str
    quote_currency: str
    is_active: bool
    price_precision: int
    quantity_precision: int
    min_quantity: Decimal | None = None
    max_quantity: Decimal | None = None
    step_size: Decimal | None = None
    min_notional: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol of the catalog. `stream_id` is its u16 on the wire: 1 to 65535, stable for ever."""

    info: SymbolInfo
    stream_id: int

    @property
    def name(self) -> str:
        return self.info.symbol

    def told(self) -> dict[str, Any]:
        """As answers have it, in REST and on the bus; `id` is its id in the WebSocket's frames."""
        info = self.info
        return {
            "id": self.stream_id,
            "symbol": info.symbol,
            "name": f"{info.base_currency}/{info.quote_currency}",
            "base_currency": info.base_currency,
            "quote_currency": info.quote_currency,
            "is_active": info.is_active,
            "price_precision": info.price_precision,
            "quantity_precision": info.quantity_precision,
        }

    @classmethod
    def from_row(cls, row: Any) -> Symbol:
        """A symbol of a catalog row as JSON has it: the fields of SymbolInfo and `stream_id`.

        Raises ValueError where the row is no such object.
        """
        if not isinstance(row, dict):
            raise ValueError(f"a symbol is an object with its catalog's fields, not {row!r}")
        names = {field.name for field in fields(SymbolInfo)}
        stream_id = row.get("stream_id")
        missing = sorted({"symbol", "base_currency", "quote_currency", "is_active"} - row.keys())
        if missing or type(stream_id) is not int or not 1 <= stream_id <= 65535:
            raise ValueError(f"the symbol {row!r} lacks {', '.join(missing) or 'a stream_id of 1 to 65535'}")
        if not isinstance(row["symbol"], str) or not 1 <= len(row["symbol"].encode()) <= 50:
            raise ValueError(f"{row['symbol']!r} is no name of a symbol: give 1 to 50 bytes of text")
        precisions = [row.get(name) for name in ("price_precision", "quantity_precision")]
        if not all(type(value) is int and 0 <= value <= 18 for value in precisions):
            raise ValueError(f"the symbol {row['symbol']!r} has no precisions of 0 to 18")
        amounts = {
            name: Decimal(str(row[name]))
            for name in ("min_quantity", "max_quantity", "step_size", "min_notional")
            if row.get(name) is not None
        }
        known = {name: value for name, value in row.items() if name in names}
        return cls(SymbolInfo(**{**known, **amounts}), stream_id)

    def to_row(self) -> dict[str, Any]:
        """What `from_row` takes: amounts as text, for a JSON number would lose digits."""
        row = asdict(self.info)
        for name in ("min_quantity", "max_quantity", "step_size", "min_notional"):
            row[name] = None if row[name] is None else f"{row[name]:f}"
        return row | {"stream_id": self.stream_id}


class Tick(NamedTuple):
    """One record of trades as it is stored. `trade_id` is the last id that it stands for, and its `sequence`
    outside; `volume` is their quantity; bid and ask are 0.0 where none was known. `ts_event` in unix ns.

    `flags` are those of the journal's records.
    """

    stream_id: int
    trade_id: int
    trade_count: int
    price: float
    volume: float
    bid: float
    ask: float
    ts_event: int
    flags: int


class PriceRow(Protocol):
    """What a row of the server's table says of a symbol's price. Prices are 0 where none is known, times are unix ns;
    `day` is the UTC day of `day_volume`, in days since 1970."""

    @property
    def price(self) -> float: ...
    @property
    def bid(self) -> float: ...
    @property
    def ask(self) -> float: ...
    @property
    def day(self) -> int: ...
    @property
    def day_volume(self) -> float: ...
    @property
    def ts_event(self) -> int: ...
    @property
    def ts_recv(self) -> int: ...
    @property
    def quote_ts_recv(self) -> int: ...


class Price(NamedTuple):
    """The current price of a symbol, as every reader is told it. `price` is the last trade's; bid and ask are None
    where none is known.

    `volume` is the base volume of the UTC day in which it was read, 0 where the last trade was on a day before.
    `ts_event` is the last trade's time, `ts_recv` when a trade or a quote last arrived, both unix ns.
    """

    price: float
    bid: float | None
    ask: float | None
    volume: float
    ts_event: int
    ts_recv: int

    @classmethod
    def of_row(cls, row: PriceRow, now_ns: int) -> Self:
        """Out of a row that has a price. `now_ns` decides which day it is, unless trades came of a later one."""
        return cls(
            row.price,
            row.bid or None,
            row.ask or None,
            row.day_volume if row.day >= now_ns // DAY_NS else 0.0,
            row.ts_event,
            row.ts_recv if row.ts_recv > row.quote_ts_recv else row.quote_ts_recv,
        )

    def at(self, now_ns: int) -> Self:
        """The same, read at another time."""
        return self if self.ts_event // DAY_NS >= now_ns // DAY_NS else self._replace(volume=0.0)

    def told(self, symbol: str, now_ns: int) -> dict[str, Any]:
        """As answers have it, in REST and on the bus."""
        return {
            "symbol": symbol,
            "price": self.price,
            "bid": self.bid,
            "ask": self.ask,
            "volume": self.volume,
            "timestamp": self.ts_event // MS_NS,
            "stale_ms": (now_ns - self.ts_recv) // MS_NS if now_ns > self.ts_recv else 0,
        }


class Bar(NamedTuple):
    """Open, high, low, close, volume and number of trades of an interval that opens at `open_time`, unix ns.

    The double nearest to the decimal number, so that `repr` gives it back: prices as traded, `volume` the exact
    sum in the symbol's quantity precision.
    """

    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trade_count: int


class Gap(NamedTuple):
    """Trade ids `first_id`..`last_id`, both inclusive, that no line brought. `ts_event`: when it was given up.

    `reason` is that of the journal's gap record. `unfillable` tells why the exchange cannot give them either,
    and is empty while they may still be fetched.
    """

    stream_id: int
    first_id: int
    last_id: int
    ts_event: int
    reason: int
    unfillable: str = ""


# What `Gap.unfillable` says for each value of `Unfillable` (`_fast/record.pxd`), which is the `flags` of a gap record
# whose reason is `unfillable`.
UNFILLABLE_TEXTS: dict[int, str] = {
    1: "the exchange has later trades and not these",
    2: "older than RECORDER_BACKFILL_AGE",
    3: "part of an aggTrade whose other quantities are not known",
    4: "before the symbol began, not asked for",
}

Range = tuple[int, int]  # of ids, both inclusive


def without(ranges: Iterable[Range], taken: Sequence[Range]) -> Iterator[Range]:
    """The ids that are in `ranges` and not in `taken`; both rise, and neither overlaps itself."""
    place = 0
    for first, last in ranges:
        while place < len(taken) and taken[place][1] < first:
            place += 1
        at = place
        while at < len(taken) and taken[at][0] <= last:
            if taken[at][0] > first:
                yield first, taken[at][0] - 1
            first = taken[at][1] + 1
            at += 1
        if first <= last:
            yield first, last


FIBONACCI = ("0", "23.6", "38.2", "50", "61.8", "78.6", "100")


class EnigmaLevel(NamedTuple):
    """Where the price stands between the lowest (`atl`) and the highest (`ath`) of the whole stored history.

    `level` is 100 (price - atl) / (ath - atl), from 0 to 100; None where both are equal. `ts_event` in unix ns.
    """

    stream_id: int
    ts_event: int
    price: float
    level: float | None
    ath: float
    atl: float

    @property
    def fib_levels(self) -> dict[str, float]:
        """The price at each Fibonacci level, in percent of the way from `atl` (0) to `ath` (100).

        Reckoned in decimals, so that 100 is `ath` and each prints with the digits that it has.
        """
        low = Decimal(repr(self.atl))
        way = Decimal(repr(self.ath)) - low
        return {share: float(low + way * Decimal(share) / 100) for share in FIBONACCI}


EVERY_SYMBOL = ("*",)


@dataclass(frozen=True, slots=True)
class User:
    """Someone who can log in. `symbol_patterns`: the symbols that they may watch. `created_at` in unix seconds."""

    id: int
    username: str
    is_active: bool
    symbol_patterns: tuple[str, ...]
    created_at: int


@dataclass(frozen=True, slots=True)
class Session:
    """A login. `token_hash` is the SHA-256 of its token, 32 bytes; times are unix seconds.

    `expires_at` moves with `Accounts.renew`; the token has an end of its own that does not.
    """

    token_hash: bytes
    user_id: int
    ip_address: str
    user_agent: str
    created_at: int
    expires_at: int
    last_activity: int


@dataclass(frozen=True, slots=True)
class Account:
    """What the logins of a user may do: which symbols, and what is on the watchlist, in its order.

    `sessions` are those that have neither ended nor expired: `token_hash` and `expires_at` of each. A user who is
    disabled has none, and nothing on the watchlist.
    """

    user_id: int
    symbol_patterns: tuple[str, ...]
    watchlist: tuple[str, ...]
    sessions: dict[bytes, int]


def symbol_allowed(patterns: Iterable[str], symbol: str) -> bool:
    """Whether one of the patterns fits the symbol: `*` stands for any text, `?` for one character.

    REST and WebSocket ask this alike. No pattern allows nothing; users have `*` unless told otherwise.
    """
    return any(fnmatchcase(symbol, pattern) for pattern in patterns)
