"""The oracle of stored ticks and bars: it equals the simulated exchange's klines, and finds whatever is wrong."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.bars import DecimalBar, decimal_fold
from tests.reference.ledger import LedgerTrade, bar_differences, bars_of, read_ledger, tick_differences
from tradeback._fast.record import FLAGS
from tradeback.exchange.sim.klines import INTERVALS_MS, kline_rows
from tradeback.exchange.sim.ledger import Ledger, SymbolLedger
from tradeback.exchange.sim.market import Market, make_symbols
from tradeback.exchange.sim.messages import text
from tradeback.model import MINUTE_NS, RESOLUTIONS, Tick

BEGAN_US = 1_700_000_000_123_456


def a_market(seed: int, seconds: float, orders: int) -> SymbolLedger:
    """Orders of one symbol, spread evenly over a time, in a ledger."""
    ledger = Ledger(1_000_000)
    (symbol,) = make_symbols(1, seed, 100)
    market = Market([symbol], 1.0, seed)
    of = ledger.of(symbol.name)
    for number in range(orders):
        _, order = market.next()
        time_us = BEGAN_US + int(number * seconds * 1e6 / orders)
        for place, (price, quantity) in enumerate(order.fills):
            ledger.add_trade(of, order.first_trade + place, time_us, price, quantity, order.maker)
        for agg in order.aggs:
            ledger.add_agg_trade(of, agg[0], time_us, agg[1], agg[2], order.maker, agg[3], agg[4])
    return of


def trades_of(of: SymbolLedger) -> list[LedgerTrade]:
    def ask(path: str, symbol: str, from_id: int = 0) -> list[list[object]]:
        rows = [row for row, _ in zip(of.trades.from_value(from_id), range(700), strict=False)]
        return [[row[0], row[1], text(row[2]), text(row[3]), bool(row[4])] for row in rows]

    return read_ledger(ask, of.symbol)


def of_klines(rows: list[list[str | int]]) -> list[DecimalBar]:
    return [
        DecimalBar(int(row[0]) * 1_000_000, *(Decimal(value) for value in row[1:6]), int(row[8]))
        for row in rows
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(10.0, 80_000.0), st.integers(1, 800))
def test_bars_of_trades_are_the_exchanges_klines_at_every_interval(
    seed: int, seconds: float, orders: int
) -> None:
    of = a_market(seed, seconds, orders)
    trades = trades_of(of)
    assert len(trades) == of.trade_count
    minutes = bars_of(trades, MINUTE_NS)
    for interval, length_ms in INTERVALS_MS.items():
        bars = bars_of(trades, length_ms * 1_000_000)
        rows = kline_rows(of, interval, 0, None, 10_000)
        assert bars == of_klines(rows)
        assert bars == decimal_fold(minutes, length_ms * 1_000_000)
    assert INTERVALS_MS.keys() >= RESOLUTIONS.keys()


def as_ticks(of: SymbolLedger, kinds: list[int]) -> list[Tick]:
    """What a recorder may store of a ledger: of each aggTrade its singles, it as one, or some singles and the rest."""
    singles = {row[0]: row for row in of.trades.from_value(0)}
    ticks: list[Tick] = []

    def add(ids: list[int], flags: int) -> None:
        price, time_us = singles[ids[-1]][2], singles[ids[-1]][1]
        units = sum(singles[number][3] for number in ids)
        time = time_us // 1_000 * 1_000_000
        ticks.append(Tick(1, ids[-1], len(ids), price / 10**8, units / 10**8, 0.0, 0.0, time, flags))

    for number, (*_, first, last) in enumerate(of.aggs.from_value(0)):
        kind = kinds[number % len(kinds)] if kinds else 0
        if kind == 0 or first == last:
            for single in range(first, last + 1):
                add([single], 0)
        elif kind == 1:
            add(list(range(first, last + 1)), FLAGS["aggregate"])
        else:
            alone = [single for single in range(first, last + 1) if single % 3 == kind % 3]
            for single in alone:
                add([single], 0)
            rest = [single for single in range(first, last + 1) if single not in alone]
            consecutive = rest == list(range(rest[0], rest[-1] + 1)) if rest else True
            if rest:
                add(rest, FLAGS["aggregate"] if consecutive else FLAGS["aggregate"] | FLAGS["sparse"])
    return ticks


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(3, 120),
    st.lists(st.integers(0, 4), max_size=7),
    st.randoms(use_true_random=False),
)
def test_whatever_stands_for_the_trades_is_accepted_and_nothing_else(
    seed: int, orders: int, kinds: list[int], random: object
) -> None:
    of = a_market(seed, 100.0, orders)
    trades = trades_of(of)
    ticks = as_ticks(of, kinds)
    if not ticks:
        return
    random.shuffle(ticks)  # type: ignore[attr-defined]
    assert tick_differences(ticks, trades) == []
    some = ticks[0]
    others = ticks[1:]
    assert tick_differences(others, trades)
    assert tick_differences([some, some, *others], trades)
    for changed in (
        some._replace(price=some.price + 0.01),
        some._replace(volume=some.volume + 0.00001),
        some._replace(ts_event=some.ts_event + 1_000_000),
        some._replace(trade_id=trades[-1].trade_id + 1),
        some._replace(trade_count=some.trade_count + 1),
    ):
        assert tick_differences([changed, *others], trades), changed
    if not any(tick.flags & FLAGS["sparse"] for tick in ticks):
        # A sparse tick would have the id that becomes free, which may be of a trade just like the other.
        assert tick_differences([some._replace(trade_id=some.trade_id + 7), *others], trades)
    assert tick_differences(ticks, trades[:-1])
    assert tick_differences(ticks, [*trades, trades[-1]._replace(trade_id=trades[-1].trade_id + 1)])


def test_differences_are_told_in_sentences() -> None:
    of = a_market(1, 100.0, 40)
    trades = trades_of(of)
    ticks = as_ticks(of, [0])
    assert tick_differences([*ticks[:3], *ticks[5:]], trades) == ["ids 103..104 are not stored"]
    assert tick_differences([*ticks, ticks[2]], trades) == [f"id 102 is stored more than once: {ticks[2]}"]


@pytest.mark.parametrize("resolution", list(RESOLUTIONS))
def test_bars_are_compared_to_the_last_digit(resolution: str) -> None:
    expected = bars_of(trades_of(a_market(5, 90_000.0, 500)), RESOLUTIONS[resolution])
    stored = [
        (
            bar.open_time,
            float(bar.open),
            float(bar.high),
            float(bar.low),
            float(bar.close),
            float(bar.volume),
            bar.trade_count,
        )
        for bar in expected
    ]
    assert bar_differences(stored, expected) == []
    assert len(bar_differences(stored[1:], expected)) == 1
    assert len(bar_differences(stored, expected[1:])) == 1
    time, *values, count = stored[0]
    for place in range(5):
        other = [value + (1e-5 if at == place else 0.0) for at, value in enumerate(values)]
        assert len(bar_differences([(time, *other, count), *stored[1:]], expected)) == 1
    assert len(bar_differences([(time, *values, count + 1), *stored[1:]], expected)) == 1
