"""Stored ticks and bars held against the exchange's ledger of single trades, in plain Python and decimals.

A comparison answers with sentences, one a difference, at most `MOST` of a kind; none means equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tests.reference.bars import DecimalBar, as_decimals
from tradeback._fast.record import FLAGS
from tradeback.model import Tick

MOST = 10


class LedgerTrade(NamedTuple):
    """One trade as the exchange made it; the time in µs."""

    trade_id: int
    time_us: int
    price: Decimal
    quantity: Decimal
    maker: bool

    @property
    def ts_event(self) -> int:
        """Its time as the exchange tells it: milliseconds, in ns."""
        return self.time_us // 1_000 * 1_000_000


def ledger_rows(rows: Iterable[Sequence[Any]]) -> Iterator[LedgerTrade]:
    """Rows of `/sim/trades`."""
    for trade_id, time_us, price, quantity, maker in rows:
        yield LedgerTrade(trade_id, time_us, Decimal(price), Decimal(quantity), maker)


def read_ledger(ask: Callable[..., Any], symbol: str, from_id: int = 0) -> list[LedgerTrade]:
    """The whole ledger of a symbol from an id on; `ask` is a path and parameters to the answer."""
    found: list[LedgerTrade] = []
    while rows := ask("/sim/trades", symbol=symbol, **({"from_id": from_id} if from_id else {})):
        found += ledger_rows(rows)
        from_id = found[-1].trade_id + 1
    return found


def bars_of(trades: Iterable[LedgerTrade], length_ns: int) -> list[DecimalBar]:
    """Bars of `length_ns`, UTC-aligned, out of single trades; none where there was no trade."""
    groups: dict[int, list[LedgerTrade]] = {}
    for trade in sorted(trades):
        groups.setdefault(trade.ts_event // length_ns * length_ns, []).append(trade)
    return [
        DecimalBar(
            open_time,
            group[0].price,
            max(trade.price for trade in group),
            min(trade.price for trade in group),
            group[-1].price,
            sum((trade.quantity for trade in group), Decimal()),
            len(group),
        )
        for open_time, group in sorted(groups.items())
    ]


def tick_differences(ticks: Iterable[Tick], trades: Iterable[LedgerTrade]) -> list[str]:
    """Where ticks do not cover every trade exactly once, or do not tell of them what was traded.

    A tick stands for `trade_count` ids up to `trade_id`: for consecutive ones, or, with the flag `sparse`, for
    `trade_id` and the highest below it that no other tick stands for. They are trades of one price and one time,
    their quantity its volume.
    """
    left = {trade.trade_id: trade for trade in trades}
    known = frozenset(left)
    highest = max(known, default=0)
    twice: list[str] = []
    foreign: list[str] = []
    wrong: list[str] = []
    # What is consecutive is placed first: ticks in the store are in the order of time, not of arrival, and a sparse
    # one has what the others leave.
    for tick in sorted(ticks, key=lambda tick: (tick.flags & FLAGS["sparse"], tick.trade_id)):
        ids = _ids(tick, left)
        missing = [number for number in ids if number not in left]
        twice += [f"id {number} is stored more than once: {tick}" for number in missing if number in known]
        foreign += [
            f"id {number} was never traded (the last was {highest}): {tick}"
            for number in missing
            if number not in known
        ]
        if not missing:
            wrong += _told_wrong(tick, [left.pop(number) for number in ids])
    lost = [f"ids {first}..{last} are not stored" for first, last in _ranges(sorted(left))]
    return [*twice[:MOST], *foreign[:MOST], *wrong[:MOST], *lost[:MOST]]


def _ids(tick: Tick, left: dict[int, LedgerTrade]) -> list[int]:
    if not tick.flags & FLAGS["sparse"]:
        return list(range(tick.trade_id - tick.trade_count + 1, tick.trade_id + 1))
    ids = [tick.trade_id]
    at = tick.trade_id - 1
    # An aggTrade's ids are near each other: what is farther away is not of it.
    while len(ids) < tick.trade_count and at > tick.trade_id - 10_000:
        if at in left:
            ids.append(at)
        at -= 1
    return ids


def _told_wrong(tick: Tick, trades: list[LedgerTrade]) -> Iterator[str]:
    if len(trades) != tick.trade_count:
        yield f"{len(trades)} ids are left for {tick}"
    elif {(float(trade.price), trade.ts_event) for trade in trades} != {(tick.price, tick.ts_event)}:
        yield f"other prices or times were traded than {tick} tells: {trades[:3]}"
    elif float(sum(trade.quantity for trade in trades)) != tick.volume:
        yield f"another quantity was traded than {tick} tells: {trades[:3]}"


def _ranges(ids: list[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in ids:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last


def bar_differences(
    stored: Iterable[tuple[int, float, float, float, float, float, int]], expected: Iterable[DecimalBar]
) -> list[str]:
    """Where stored bars are others than expected, to the last digit."""
    have = {bar[0]: as_decimals(bar) for bar in stored}
    want = {bar.open_time: bar for bar in expected}
    differing = [
        f"stored: {have.get(time)}, expected: {want.get(time)}"
        for time in sorted(have.keys() | want.keys())
        if have.get(time) != want.get(time)
    ]
    return differing[:MOST]
