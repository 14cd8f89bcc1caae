"""The walk of REST answers over missing ids: which rows fill which ids, and which ids an answer leaves out.

Pure: no clock, no I/O. Single trades are rows of one id each (`as_rows`), so that both kinds of answers are walked
alike. Ranges of ids are (first, last), both inclusive, rising and apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tradeback._fast.record import FLAGS
from tradeback.errors import ExchangeError
from tradeback.exchange.rows import AggTradeRow, TradeRow
from tradeback.model import SymbolInfo, Tick

Range = tuple[int, int]

# A trade may lie so far beyond the times of its neighbours, and cost so many times more or less than they did:
# an answer that says more is not believed. Wide, for clocks and prices do jump; garbage jumps further.
TIME_SLACK_NS = 60 * 10**9
PRICE_FACTOR = 100.0


@dataclass(frozen=True, slots=True)
class Fill:
    """A record for the journal of repairs: `trade_count` trades up to `trade_id`. `flags` are the journal's."""

    trade_id: int
    trade_count: int
    price: float
    quantity: float
    ts_event: int
    flags: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a believable trade can be: times in unix ns, prices in the quote currency."""

    earliest: int
    latest: int
    lowest: float
    highest: float

    @classmethod
    def between(cls, before: Tick | None, after: Tick | None, now_ns: int) -> Bounds:
        """Around the stored neighbours of a gap, where there are any."""
        prices = [tick.price for tick in (before, after) if tick is not None]
        return cls(
            before.ts_event - TIME_SLACK_NS if before is not None else 0,
            (after.ts_event if after is not None else now_ns) + TIME_SLACK_NS,
            min(prices) / PRICE_FACTOR if prices else 0.0,
            max(prices) * PRICE_FACTOR if prices else float("inf"),
        )


@dataclass(frozen=True, slots=True)
class Walk:
    """What an answer tells of the missing ids. `whole` rows lie in missing ids with all of theirs, `partial` ones
    with some, each with those. `absent` are missing ids that the answer passes over. It reaches to `through`.
    """

    whole: list[AggTradeRow]
    partial: list[tuple[AggTradeRow, list[Range]]]
    absent: list[Range]
    through: int


def as_rows(trades: Iterable[TradeRow]) -> list[AggTradeRow]:
    """Single trades as rows of one id each; the aggregate id is theirs too."""
    return [
        AggTradeRow(t.trade_id, t.trade_id, t.trade_id, t.price, t.quantity, t.ts_event, t.buyer_is_maker)
        for t in trades
    ]


def common(ranges: Sequence[Range], first: int, last: int) -> list[Range]:
    """The parts of `ranges` that lie in first..last."""
    return [(max(low, first), min(high, last)) for low, high in ranges if low <= last and high >= first]


def count(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def without(ranges: Iterable[Range], taken: Sequence[Range]) -> Iterator[Range]:
    """The parts of `ranges` that are in none of `taken`."""
    for first, last in ranges:
        for low, high in common(taken, first, last):
            if low > first:
                yield first, low - 1
            first = high + 1
        if first <= last:
            yield first, last


def walk(rows: Sequence[AggTradeRow], missing: Sequence[Range], first: int) -> Walk:
    """Lay an answer over `missing`. It was asked for the trades from `first` on, so it passes over every id from
    there to its last one that has no row. ExchangeError where rows overlap."""
    whole: list[AggTradeRow] = []
    partial: list[tuple[AggTradeRow, list[Range]]] = []
    brought: list[Range] = []
    through = first - 1
    for row in rows:
        if brought and row.first_id <= brought[-1][1]:
            raise ExchangeError(
                f"the exchange gave the trades {row.first_id} to {row.last_id} after those up to {brought[-1][1]}"
            )
        brought.append((row.first_id, row.last_id))
        through = row.last_id
        hit = common(missing, row.first_id, row.last_id)
        if not hit:
            continue
        if hit == [(row.first_id, row.last_id)]:
            whole.append(row)
        else:
            partial.append((row, hit))
    absent = list(without(common(missing, first, through), brought)) if rows else []
    return Walk(whole, partial, absent, through)


def check(row: AggTradeRow, info: SymbolInfo, bounds: Bounds) -> None:
    """ExchangeError where a row cannot be true: finer than the symbol's quantities, or far from its neighbours."""
    what = f"{info.symbol}: trade {row.last_id}"
    if not bounds.earliest <= row.ts_event <= bounds.latest:
        raise ExchangeError(
            f"{what} has the time {row.ts_event} ns, which is not among its neighbours', {bounds.earliest} to "
            f"{bounds.latest}"
        )
    if not bounds.lowest <= float(row.price) <= bounds.highest:
        raise ExchangeError(
            f"{what} has the price {row.price}, which is not believed beside its neighbours: expected "
            f"{bounds.lowest:g} to {bounds.highest:g}"
        )
    units = row.quantity.scaleb(info.quantity_precision)
    if units != units.to_integral_value():
        raise ExchangeError(
            f"{what} has the quantity {row.quantity}, finer than the {info.quantity_precision} decimals of the "
            "symbol: see whether the exchange changed them (`tradeback symbols sync`)"
        )


def fill(row: AggTradeRow) -> Fill:
    """The record for a whole row."""
    number = row.last_id - row.first_id + 1
    return Fill(row.last_id, number, float(row.price), float(row.quantity), row.ts_event, _flags(row, number))


def fill_partly(
    row: AggTradeRow, hit: Sequence[Range], stored: Iterable[Tick], quantity_precision: int
) -> Fill | None:
    """The record for the ids `hit` of a row whose other ids are `stored`: its quantity less theirs.

    None where that cannot be told: the stored ticks of the row's ids are not all its other ids, or have its whole
    quantity.
    """
    inside = [tick for tick in stored if row.first_id <= tick.trade_id <= row.last_id]
    number = count(hit)
    if any(
        not tick.flags & FLAGS["sparse"] and tick.trade_id - tick.trade_count + 1 < row.first_id
        for tick in inside
    ):
        return None
    if sum(tick.trade_count for tick in inside) != row.last_id - row.first_id + 1 - number:
        return None
    left = int(row.quantity.scaleb(quantity_precision))
    left -= sum(round(tick.volume * 10**quantity_precision) for tick in inside)
    if left < number:  # each trade has one unit at least
        return None
    last = hit[-1][1]
    sparse = 0 if hit == [(last - number + 1, last)] else FLAGS["sparse"]
    quantity = float(Decimal(left).scaleb(-quantity_precision))
    return Fill(last, number, float(row.price), quantity, row.ts_event, _flags(row, number) | sparse)


def _flags(row: AggTradeRow, number: int) -> int:
    return (
        FLAGS["repair"]
        | (FLAGS["aggregate"] if number > 1 else 0)
        | (FLAGS["buyer_maker"] if row.buyer_is_maker else 0)
    )
