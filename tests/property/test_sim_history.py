"""The history before the simulated exchange's start: every interval is the fold of its minutes, whatever is asked."""

from __future__ import annotations

from itertools import islice, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.exchange.sim.history import BAND, BEGIN_MS, DAY_MS, History
from tradeback.exchange.sim.klines import INTERVALS_MS, kline_rows
from tradeback.exchange.sim.ledger import MINUTE_MS, Ledger, MinuteBar
from tradeback.exchange.sim.market import make_symbols

SEED = 11
SYMBOLS = {symbol.name: symbol for symbol in make_symbols(600, SEED, 100)}
ENDS = [BEGIN_MS + 800 * DAY_MS + minutes * MINUTE_MS for minutes in (0, 1, 59, 60, 700, 1_439)]
HISTORIES = [History(SYMBOLS.values(), SEED, end) for end in ENDS]

names = st.sampled_from(["BTCUSDT", "PEPEUSDT", "SHIBUSDT", *list(SYMBOLS)[::37]])
histories = st.sampled_from(HISTORIES)
intervals = st.sampled_from(list(INTERVALS_MS))


def fold(minutes: list[tuple[int, MinuteBar]], length: int) -> list[tuple[int, list[int]]]:
    out: dict[int, list[MinuteBar]] = {}
    for opened, bar in minutes:
        out.setdefault(opened // length * length, []).append(bar)
    return [
        (
            opened,
            [
                bars[0].open,
                max(bar.high for bar in bars),
                min(bar.low for bar in bars),
                bars[-1].close,
                sum(bar.volume for bar in bars),
                sum(bar.quote_volume for bar in bars),
                sum(bar.trades for bar in bars),
                sum(bar.taker_volume for bar in bars),
                sum(bar.taker_quote for bar in bars),
            ],
        )
        for opened, bars in out.items()
    ]


def plain(bar: MinuteBar) -> list[int]:
    return [
        bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume,
        bar.trades, bar.taker_volume, bar.taker_quote,
    ]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(histories, names, intervals, st.integers(0, 800 * 24), st.integers(0, 40))
def test_every_interval_is_the_fold_of_its_minutes(
    history: History, name: str, interval: str, hour: int, back: int
) -> None:
    length = INTERVALS_MS[interval]
    # Somewhere in the past, or up to the end, the interval that the start cut in two included.
    start = BEGIN_MS + hour * 60 * MINUTE_MS if back < 20 else history.end_ms - back * 11 * MINUTE_MS
    start -= start % length
    end = min(start + max(3, 120 * MINUTE_MS // length) * length, history.end_ms)
    minutes = list(history.bars(name, MINUTE_MS, start, end - 1))
    coarse = [(opened, plain(bar)) for opened, bar in history.bars(name, length, start, end - 1)]
    joint = history.joint(name, length)
    opened = history.end_ms - history.end_ms % length
    if joint is not None and start <= opened < end:
        coarse.append((opened, plain(joint)))
    assert coarse == fold(minutes, length)
    if history.end_ms - start <= 3 * DAY_MS:
        since = history.since(name, start)
        whole = fold([(0, bar) for _, bar in history.bars(name, MINUTE_MS, start, history.end_ms)], DAY_MS)
        assert ([] if since is None else [(0, plain(since))]) == whole


@settings(max_examples=40, deadline=None)
@given(histories, names, st.integers(0, 800 * 24))
def test_minutes_are_what_trades_can_make(history: History, name: str, hour: int) -> None:
    symbol = SYMBOLS[name]
    start = BEGIN_MS + hour * 60 * MINUTE_MS
    anchor = symbol.anchor * symbol.tick
    rows = list(history.bars(name, MINUTE_MS, start, start + DAY_MS - 1))
    for opened, bar in rows:
        assert opened % MINUTE_MS == 0
        assert {bar.open % symbol.tick, bar.close % symbol.tick} == {0}
        assert {bar.high % symbol.tick, bar.low % symbol.tick, bar.volume % symbol.step} == {0}
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert bar.trades >= 1
        assert bar.volume >= bar.trades * symbol.step
        assert bar.low * bar.volume <= bar.quote_volume <= bar.high * bar.volume
        assert 0 <= bar.taker_volume <= bar.volume
        assert bar.low * bar.taker_volume <= bar.taker_quote <= bar.high * bar.taker_volume
        assert abs(bar.close - anchor) <= BAND * anchor
        assert bar.trades > 1 or bar.open == bar.close
        assert bar.trades > 2 or {bar.high, bar.low} == {bar.open, bar.close}
    for (_, bar), (_, later) in pairwise(rows):
        assert abs(later.open - bar.close) <= 0.04 * anchor + symbol.tick


@settings(max_examples=60, deadline=None)
@given(histories, names, intervals, st.integers(-5, 130), st.integers(0, 130), st.integers(1, 40), st.data())
def test_any_walk_of_pages_gives_the_rows_of_one_request(
    history: History, name: str, interval: str, first: int, count: int, limit: int, data: st.DataObject
) -> None:
    length = INTERVALS_MS[interval]
    ledger = Ledger(10_000).of(name)
    symbol = SYMBOLS[name]
    for trade in range(data.draw(st.integers(0, 60))):
        time_us = (history.end_ms + trade * trade * 7_777) * 1_000
        ledger.count(trade, trade, time_us, symbol.anchor * symbol.tick, symbol.step, False)
    start = history.end_ms + (first - 120) * length + data.draw(st.integers(0, length))
    end = start + count * length
    whole = kline_rows(ledger, interval, start, end, 1_000, history)
    times = [row[0] for row in whole]
    assert times == sorted(set(times))
    assert all(start <= time <= end and time % length == 0 for time in times)
    assert kline_rows(ledger, interval, None, end, 1_000, history)[-len(whole) :] == whole or not whole
    walked, place = [], start
    while page := kline_rows(ledger, interval, place, end, limit, history):
        assert len(page) <= limit
        walked += page
        place = page[-1][0] + 1
    assert walked == whole
    walked, place = [], end
    while (page := kline_rows(ledger, interval, None, place, limit, history)) and place >= start:
        assert len(page) <= limit
        walked = page + walked
        place = page[0][0] - 1
    assert [row for row in walked if row[0] >= start] == whole
    assert sum(row[8] for row in kline_rows(ledger, interval, history.end_ms, None, 1_000, history)) <= (
        ledger.trade_count
    )


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(HISTORIES[1:]), names, intervals)
def test_what_is_asked_backward_is_what_is_asked_forward(history: History, name: str, interval: str) -> None:
    length = INTERVALS_MS[interval]
    start, end = history.end_ms - 50 * length, history.end_ms
    forward = list(history.bars(name, length, start, end))
    backward = list(history.bars(name, length, start, end, newest_first=True))
    assert backward == forward[::-1]
    assert list(islice(history.bars(name, length, start, end), 7)) == forward[:7]


@settings(max_examples=60, deadline=None)
@given(names, st.integers(0, 798))
def test_a_day_begins_where_the_day_before_ended(name: str, day: int) -> None:
    history, anchor = HISTORIES[-1], SYMBOLS[name].anchor * SYMBOLS[name].tick
    midnight = BEGIN_MS + (day + 1) * DAY_MS
    (_, before), *_ = history.bars(name, DAY_MS, midnight - DAY_MS, midnight - 1)
    (_, after), *_ = history.bars(name, DAY_MS, midnight, midnight + DAY_MS - 1)
    # One trade's move: what is within a minute is in ticks, and a tick may be much of a small price.
    assert abs(after.open - before.close) <= max(anchor * 0.004, 2 * SYMBOLS[name].tick)
