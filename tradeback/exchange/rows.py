"""What the exchange's REST answers say, strictly read: symbols, trades, aggTrades, klines, prices.

Anything that is not exactly as documented is an ExchangeError that names the row: a wrong number must never
become a bar. Times are int64 ns, prices and quantities exact decimals. Formats: Binance spot REST, `/api/v3`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from tradeback.errors import ExchangeError
from tradeback.exchange.binance import time_to_ns
from tradeback.model import SymbolInfo

MAX_DECIMALS = 18
KLINE_COLUMNS = 12

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class TradeRow:
    """One trade. `ts_event` in ns; `buyer_is_maker`: the taker sold."""

    trade_id: int
    price: Decimal
    quantity: Decimal
    ts_event: int
    buyer_is_maker: bool


@dataclass(frozen=True, slots=True)
class AggTradeRow:
    """Trades `first_id`..`last_id` of one taker order at one price. `ts_event` in ns."""

    agg_id: int
    first_id: int
    last_id: int
    price: Decimal
    quantity: Decimal
    ts_event: int
    buyer_is_maker: bool


@dataclass(frozen=True, slots=True)
class KlineRow:
    """One bar of the exchange. `open_time` and `close_time` in ns; the newest bar may be unfinished."""

    open_time: int
    close_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int


def parse_rows(body: object, parse: Callable[[Any], Row], what: str) -> list[Row]:
    """Every row of an answer. ExchangeError names the first that is wrong."""
    if not isinstance(body, list):
        raise ExchangeError(f"{what}: the exchange answered {_short(body)} where rows were expected")
    rows = []
    for number, row in enumerate(body):
        try:
            rows.append(parse(row))
        except (KeyError, TypeError, ValueError, IndexError, InvalidOperation) as error:
            raise ExchangeError(f"{what}: row {number} of the answer is {_short(row)}: {error!r}") from error
    return rows


def trade_row(row: Any) -> TradeRow:
    """A row of `trades` and `historicalTrades`."""
    return TradeRow(
        _id(row["id"]),
        _positive(row["price"]),
        _positive(row["qty"]),
        _ns(row["time"]),
        _flag(row["isBuyerMaker"]),
    )


def agg_trade_row(row: Any) -> AggTradeRow:
    """A row of `aggTrades`."""
    first, last = _id(row["f"]), _id(row["l"])
    if last < first:
        raise ValueError(f"the last trade id {last} is below the first, {first}")
    return AggTradeRow(
        _id(row["a"]), first, last, _positive(row["p"]), _positive(row["q"]), _ns(row["T"]), _flag(row["m"])
    )


def kline_row(row: Any) -> KlineRow:
    """A row of `klines`: twelve columns, the last of which is ignored."""
    if not isinstance(row, list) or len(row) != KLINE_COLUMNS:
        raise ValueError(f"a kline has {KLINE_COLUMNS} columns")
    opened, closed = _ns(row[0]), _ns(row[6])
    first, high, low, last = (_positive(value) for value in row[1:5])
    if not low <= min(first, last) <= max(first, last) <= high or closed <= opened:
        raise ValueError("its prices or times contradict each other")
    return KlineRow(opened, closed, first, high, low, last, _decimal(row[5]), _decimal(row[7]), _id(row[8]))


def price_row(row: Any) -> tuple[str, Decimal]:
    """A row of `ticker/price`: symbol and last price."""
    return _text(row["symbol"]), _decimal(row["price"])


def symbol_row(row: Any) -> SymbolInfo:
    """A row of `exchangeInfo`. Filters are optional; precision comes from tick and step where given."""
    filters = {entry["filterType"]: entry for entry in row.get("filters", [])}
    price, lot = filters.get("PRICE_FILTER", {}), filters.get("LOT_SIZE", {})
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    tick, step = _optional(price, "tickSize"), _optional(lot, "stepSize")
    return SymbolInfo(
        symbol=_text(row["symbol"]),
        base_currency=_text(row["baseAsset"]),
        quote_currency=_text(row["quoteAsset"]),
        is_active=_text(row["status"]) == "TRADING",
        price_precision=_precision(tick, row.get("quotePrecision", 8)),
        quantity_precision=_precision(step, row.get("baseAssetPrecision", 8)),
        min_quantity=_optional(lot, "minQty"),
        max_quantity=_optional(lot, "maxQty"),
        step_size=step,
        min_notional=_optional(notional, "minNotional"),
    )


def _id(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no id")
    return value


def _ns(value: object) -> int:
    if type(value) is not int or value == 0:
        raise ValueError(f"{value!r} is no time")
    return time_to_ns(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no name")
    return value


def _decimal(value: object) -> Decimal:
    if not isinstance(value, str) or not value.isascii() or not value.replace(".", "", 1).isdigit():
        raise ValueError(f"{value!r} is no decimal number")
    return Decimal(value)


def _positive(value: object) -> Decimal:
    number = _decimal(value)
    if number <= 0:
        raise ValueError(f"{value!r} is not above zero")
    return number


def _optional(entry: Any, name: str) -> Decimal | None:
    """A filter's value; zero means that the filter is off."""
    value = entry.get(name)
    return (_decimal(value) or None) if value is not None else None


def _precision(step: Decimal | None, otherwise: object) -> int:
    if step is None:
        if type(otherwise) is not int or not 0 <= otherwise <= MAX_DECIMALS:
            raise ValueError(f"{otherwise!r} is no number of decimals")
        return otherwise
    exponent = step.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
