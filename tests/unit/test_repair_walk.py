"""The walk of REST answers over missing ids, and the search for the aggTrade of a trade."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_sim_streams import config, run_messages
from tradeback._fast.record import FLAGS
from tradeback.errors import ExchangeError
from tradeback.exchange.rest import ExchangeRest
from tradeback.exchange.rows import AggTradeRow
from tradeback.exchange.sim import Sim
from tradeback.model import SymbolInfo, Tick
from tradeback.recorder.aggregates import Place, find, place_after
from tradeback.recorder.walk import Bounds, Range, check, common, fill, fill_partly, walk, without

INFO = SymbolInfo("ABUSDT", "AB", "USDT", True, 2, 3)


def row(first: int, last: int, quantity: str = "1.5", price: str = "2.5", ts: int = 10**18) -> AggTradeRow:
    return AggTradeRow(first, first, last, Decimal(price), Decimal(quantity), ts, True)


def tick(trade_id: int, volume: float, trades: int = 1, flags: int = 0) -> Tick:
    return Tick(1, trade_id, trades, 2.5, volume, 0.0, 0.0, 10**18, flags)


def ids(ranges: list[Range]) -> set[int]:
    return {each for first, last in ranges for each in range(first, last + 1)}


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[AggTradeRow], list[Range], int]:
    """Rows that step by 1 to 4 ids, some left out, and missing ranges, from some id on."""
    at = draw(st.integers(0, 20))
    first = at + draw(st.integers(0, 3))
    rows = []
    for length, there in draw(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=15)):
        if there and at + length > first:
            rows.append(row(at, at + length - 1))
        at += length
    missing, low = [], 0
    for space, length in draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), max_size=10)):
        missing.append((low + space, low + space + length - 1))
        low += space + length
    return rows, missing, first


@given(answers())
def test_every_missing_id_is_in_a_row_or_absent_or_beyond(
    answer: tuple[list[AggTradeRow], list[Range], int],
) -> None:
    rows, missing, first = answer
    walked = walk(rows, missing, first)
    brought = ids([(each.first_id, each.last_id) for each in rows])
    assert walked.through == (rows[-1].last_id if rows else first - 1)
    whole = ids([(each.first_id, each.last_id) for each in walked.whole])
    partly = {each for _, hit in walked.partial for each in ids(hit)}
    assert not whole & partly
    assert whole | partly == ids(missing) & brought
    spoken_of = set(range(first, walked.through + 1)) if rows else set()
    assert ids(walked.absent) == (ids(missing) & spoken_of) - brought
    for each, hit in walked.partial:
        assert ids(hit) < set(range(each.first_id, each.last_id + 1))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6))), st.integers(0, 60), st.integers(0, 60))
def test_ranges(pairs: list[tuple[int, int]], first: int, last: int) -> None:
    ranges: list[Range] = []
    for low, length in sorted(pairs):
        if not ranges or low > ranges[-1][1] + 1:
            ranges.append((low, low + length))
    assert ids(common(ranges, first, last)) == ids(ranges) & set(range(first, last + 1))
    assert ids(list(without([(first, last)], ranges))) == set(range(first, last + 1)) - ids(ranges)


def test_rows_that_overlap_are_refused() -> None:
    with pytest.raises(ExchangeError, match="trades 6 to 8 after those up to 6"):
        walk([row(5, 6), row(6, 8)], [(5, 8)], 5)


def test_a_whole_row_is_one_record() -> None:
    whole = fill(row(5, 7))
    assert (whole.trade_id, whole.trade_count, whole.price, whole.quantity) == (7, 3, 2.5, 1.5)
    assert whole.flags == FLAGS["repair"] | FLAGS["aggregate"] | FLAGS["buyer_maker"]
    assert fill(row(5, 5)).flags == FLAGS["repair"] | FLAGS["buyer_maker"]


def test_a_row_that_straddles_counts_for_what_is_missing() -> None:
    both = fill_partly(row(5, 9), [(8, 9)], [tick(7, 0.2, 2), tick(5, 0.1)], 3)
    assert both is not None
    assert (both.trade_id, both.trade_count, both.quantity) == (9, 2, 1.2)
    assert not both.flags & FLAGS["sparse"]
    apart = fill_partly(row(5, 7), [(5, 5), (7, 7)], [tick(6, 1.4)], 3)
    assert apart is not None
    assert (apart.trade_id, apart.trade_count, apart.quantity) == (7, 2, 0.1)
    assert apart.flags & FLAGS["sparse"]


@pytest.mark.parametrize(
    "stored",
    [
        [tick(7, 0.2)],  # one of the others is not there
        [tick(7, 0.2, 3)],  # one that has ids of the row before, too
        [tick(6, 0.2), tick(7, 1.3)],  # nothing is left
        [tick(6, 0.2), tick(7, 1.5)],
    ],
)
def test_a_quantity_that_cannot_be_told_is_not_made_up(stored: list[Tick]) -> None:
    assert fill_partly(row(5, 7), [(5, 5)], stored, 3) is None


def test_what_cannot_be_true_is_refused() -> None:
    bounds = Bounds.between(tick(4, 1.0), None, 10**18 + 10**9)
    check(row(5, 5), INFO, bounds)
    for wrong, what in (
        (row(5, 5, ts=10**18 - 10**12), "the time"),
        (row(5, 5, ts=10**18 + 10**12), "the time"),
        (row(5, 5, price="0.0001"), "the price 0.0001"),
        (row(5, 5, price="1000"), "the price 1000"),
        (row(5, 5, quantity="1.0001"), "finer than the 3 decimals"),
    ):
        with pytest.raises(ExchangeError, match=what):
            check(wrong, INFO, bounds)
    check(row(5, 5, price="1000"), INFO, Bounds.between(None, None, 10**18))


def test_the_aggregate_trade_of_any_trade_is_found_from_any_guess() -> None:
    async def run() -> None:
        async with Sim(config(symbols=1, history=False)) as sim, ExchangeRest(sim.rest_url) as rest:
            await run_messages(sim, 12_000)
            of = sim.ledger.of("BTCUSDT")
            lowest = of.trades.latest(10**6)[0][0]
            aggs = of.aggs.latest(10**6)
            assert len(aggs) > 2_000
            rng = random.Random(5)
            for _ in range(40):
                first = rng.randint(lowest, of.last_trade)
                guess = rng.choice(aggs)[1] // 1_000 + rng.choice([-(10**7), 0, 0, 10**7])
                used, spent = rest.budget.used, sim.rest.requests
                rows = await find(rest, "BTCUSDT", first, guess)
                assert rows[0].first_id <= first <= rows[0].last_id
                assert sim.rest.requests - spent <= 6
                rest.budget.used = used  # many questions a minute are asked here
                after = place_after(rows)
                if after.first_id <= of.last_trade:
                    following = await find(rest, "BTCUSDT", after.first_id, 0, after)
                    assert (following[0].agg_id, following[0].first_id) == (after.agg_id, after.first_id)
            assert await find(rest, "BTCUSDT", of.last_trade + 1, 0) == []
            assert (await find(rest, "BTCUSDT", lowest - 10, 0))[0].first_id == lowest
            assert await find(rest, "BTCUSDT", 10, 0, Place(5, 10)) != []

    asyncio.run(run())


def test_what_the_exchange_dropped_is_passed_over() -> None:
    async def run() -> None:
        async with Sim(config(history_rows=4_000, history=False)) as sim, ExchangeRest(sim.rest_url) as rest:
            await run_messages(sim, 30_000)
            of = sim.ledger.of("BTCUSDT")
            oldest = of.aggs.latest(10**6)[0]
            rows = await find(rest, "BTCUSDT", oldest[5] - 50, oldest[1] // 1_000)
            assert (rows[0].agg_id, rows[0].first_id) == (oldest[0], oldest[5])

    asyncio.run(run())
