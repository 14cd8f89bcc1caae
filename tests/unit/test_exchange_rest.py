"""The REST client against the simulated exchange: answers, refusals, faults, budget; strict rows."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest

from tests.consumer import SAFETY_SECONDS
from tests.stalls import hasty_until_stalled
from tests.unit.test_sim_streams import config, run_messages
from tradeback.errors import ExchangeError
from tradeback.exchange.rest import ExchangeRest, RefusedError, RestPolicy, WeightBudget
from tradeback.exchange.rows import agg_trade_row, kline_row, parse_rows, symbol_row, trade_row
from tradeback.exchange.sim import Sim

QUICK = RestPolicy(first_backoff=0.01, timeout=SAFETY_SECONDS)
Scenario = Callable[[Sim, ExchangeRest], Awaitable[None]]


def noon() -> float:
    return 1_700_000_000.0


def with_client(
    scenario: Scenario, policy: RestPolicy = QUICK, clock: Callable[[], float] = time.time, **options: Any
) -> None:
    async def run() -> None:
        async with Sim(config(**options)) as sim, ExchangeRest(sim.rest_url, policy, clock) as client:
            await run_messages(sim, 2_000)
            await scenario(sim, client)

    asyncio.run(run())


def test_answers_agree_with_the_ledger() -> None:
    async def scenario(sim: Sim, client: ExchangeRest) -> None:
        infos = {info.symbol: info for info in await client.exchange_info()}
        assert list(infos) == sim.symbols
        bitcoin = infos["BTCUSDT"]
        assert (bitcoin.base_currency, bitcoin.quote_currency, bitcoin.is_active) == ("BTC", "USDT", True)
        assert (bitcoin.price_precision, bitcoin.quantity_precision) == (2, 5)
        assert (bitcoin.step_size, bitcoin.min_notional) == (Decimal("0.00001"), Decimal(5))
        assert client.budget.limit == 6_000
        before = time.time_ns()
        told = await client.server_time()
        assert before // 10**6 * 10**6 <= told <= time.time_ns()
        for symbol in sim.symbols:
            of = sim.ledger.of(symbol)
            trades = await client.historical_trades(symbol, from_id=100)
            following = trades
            while len(following) == 1_000:
                following = await client.historical_trades(symbol, from_id=trades[-1].trade_id + 1)
                trades = trades + following
            assert [trade.trade_id for trade in trades] == list(range(100, of.last_trade + 1))
            total = sum(trade.quantity for trade in trades)
            assert total == Decimal(of.sum_text())
            assert (await client.trades(symbol, limit=3)) == trades[-3:]
            aggs = await client.agg_trades(symbol, from_id=0)
            assert sum(agg.last_id - agg.first_id + 1 for agg in aggs) == len(trades)
            assert sum(agg.quantity for agg in aggs) == total
            middle = aggs[len(aggs) // 2]
            assert (
                await client.agg_trades(symbol, from_id=middle.agg_id, limit=2) == aggs[len(aggs) // 2 :][:2]
            )
            later = await client.agg_trades(symbol, start_ms=middle.ts_event // 10**6)
            assert later == [agg for agg in aggs if agg.ts_event >= middle.ts_event]
            between = await client.agg_trades(symbol, start_ms=0, end_ms=middle.ts_event // 10**6)
            assert between == [agg for agg in aggs if agg.ts_event <= middle.ts_event]
            for interval in ("1m", "5m", "1d"):
                bars = await client.klines(symbol, interval)
                assert sum(bar.volume for bar in bars) == total
                assert sum(bar.trades for bar in bars) == len(trades)
                assert (bars[0].open, bars[-1].close) == (trades[0].price, trades[-1].price)
                assert max(bar.high for bar in bars) == max(trade.price for trade in trades)
                assert min(bar.low for bar in bars) == min(trade.price for trade in trades)
            assert (await client.prices())[symbol] == trades[-1].price

    with_client(scenario, history=False)


def test_what_the_exchange_no_longer_has_is_left_out_and_memory_is_bounded() -> None:
    async def scenario(sim: Sim, client: ExchangeRest) -> None:
        await run_messages(sim, 60_000)
        of = sim.ledger.of("BTCUSDT")
        oldest = (await client.historical_trades("BTCUSDT", from_id=100))[0].trade_id
        assert oldest > 100
        held = sum(len(each.trades) + len(each.aggs) for each in sim.ledger.symbols.values())
        assert held < 10_000 + 512 * 2 * len(sim.symbols) + 512
        assert of.trade_count == of.last_trade - 99
        bars = await client.klines("BTCUSDT", "1m")
        assert sum(bar.trades for bar in bars) == of.trade_count

    with_client(scenario, history_rows=10_000, history=False)


@pytest.mark.parametrize("kind", ["rest5xx", "html", "truncate", "rest429", "rest418"])
def test_a_failing_exchange_is_asked_again(kind: str) -> None:
    async def scenario(sim: Sim, client: ExchangeRest) -> None:
        sim.fault(kind, count=2)
        start = time.monotonic()
        assert len(await client.trades("BTCUSDT")) > 10
        assert client.retries == 2
        if kind in ("rest429", "rest418"):
            assert time.monotonic() - start >= 2.0

    with_client(scenario)


def test_an_exchange_that_keeps_failing_is_given_up_with_a_sentence() -> None:
    async def scenario(sim: Sim, client: ExchangeRest) -> None:
        sim.fault("rest5xx", seconds=SAFETY_SECONDS)
        with pytest.raises(ExchangeError, match=r"trades: given up after 3 attempts.*503.*-1000"):
            await client.trades("BTCUSDT")

    with_client(scenario, RestPolicy(first_backoff=0.01, timeout=SAFETY_SECONDS, attempts=3))


def test_a_stalled_exchange_and_none_at_all() -> None:
    async def scenario(sim: Sim, client: ExchangeRest) -> None:
        sim.fault("stall", count=1)
        asking = asyncio.create_task(client.trades("BTCUSDT"))
        await hasty_until_stalled(sim, client, 1)
        assert len(await asking) > 10
        assert client.retries >= 1
        await sim.stop()
        with pytest.raises(ExchangeError, match=r"cannot be reached"):
            await client.trades("BTCUSDT")

    with_client(scenario, RestPolicy(first_backoff=0.01, timeout=SAFETY_SECONDS))


def test_a_long_ban_is_an_error_at_once() -> None:
    async def scenario(sim: Sim, client: ExchangeRest) -> None:
        sim.fault("rest418", seconds=3_600.0)
        with pytest.raises(ExchangeError, match=r"refuses this address for \d+ s more"):
            await client.trades("BTCUSDT")
        requests = sim.rest.requests
        with pytest.raises(ExchangeError, match="ask less often"):
            await client.klines("BTCUSDT", "1m")
        assert sim.rest.requests == requests

    with_client(scenario)


def test_wrong_columns_and_the_exchanges_own_refusals_are_not_tried_again() -> None:
    async def scenario(sim: Sim, client: ExchangeRest) -> None:
        for ask in (
            lambda: client.trades("BTCUSDT"),
            lambda: client.agg_trades("BTCUSDT"),
            lambda: client.klines("BTCUSDT", "1m"),
        ):
            sim.fault("badcolumns")
            with pytest.raises(ExchangeError, match="row 0 of the answer"):
                await ask()
        with pytest.raises(RefusedError, match=r"code -1121: Invalid symbol\.") as refused:
            await client.trades("NOSUCH")
        assert (refused.value.status, refused.value.code) == (400, -1121)
        with pytest.raises(RefusedError, match="-1120"):
            await client.klines("BTCUSDT", "7m")
        assert client.retries == 0

    with_client(scenario)


def test_the_budget_is_spent_by_the_minute() -> None:
    budget = WeightBudget(100, 0.5)
    assert [budget.wait(25, 120.0), budget.wait(25, 121.0)] == [0.0, 0.0]
    assert 20.0 < budget.wait(1, 159.0) < 22.0
    assert budget.wait(25, 180.0) == 0.0
    budget.told(50, 25, 180.5, 181.0)
    assert budget.wait(1, 182.0) > 50.0
    budget.told(3, 25, 182.0, 183.0)
    assert budget.used == 50
    assert budget.left(183.0) == 0
    assert budget.wait(90, 240.0) == 0.0


def test_what_was_counted_in_the_last_minute_does_not_lock_the_next() -> None:
    budget = WeightBudget(100, 1.0)
    assert budget.wait(25, 119.9) == 0.0
    budget.told(100, 25, 119.9, 120.1)
    assert (budget.used, budget.left(120.2)) == (25, 75)


def test_the_exchange_counts_the_weight_and_bans_who_goes_on() -> None:
    async def scenario(sim: Sim, client: ExchangeRest) -> None:
        sim.rest.clock = noon
        await client.exchange_info()
        assert client.budget.used == 20
        for _ in range(3):
            await client.trades("BTCUSDT")
        assert client.budget.used == 95
        client.budget.limit = 10_000
        with pytest.raises(ExchangeError, match="429"):
            await client.trades("BTCUSDT")
        async with httpx.AsyncClient(base_url=sim.rest_url) as http:
            answers = [await http.get("/api/v3/trades?symbol=BTCUSDT") for _ in range(25)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[0] == 429
        assert statuses[-1] == 418

    with_client(scenario, RestPolicy(attempts=1, weight_share=1.0, longest_wait=1.0), noon, weight_limit=100)


GOOD: dict[str, Any] = {
    "trade": {"id": 5, "price": "1.50", "qty": "2", "time": 1_700_000_000_000, "isBuyerMaker": True},
    "agg": {"a": 1, "p": "1.5", "q": "2", "f": 5, "l": 6, "T": 1_700_000_000_000_000, "m": False},
    "kline": [60_000, "2", "3", "1", "2.5", "10", 119_999, "20", 4, "1", "2", "0"],
    "symbol": {"symbol": "AB", "baseAsset": "A", "quoteAsset": "B", "status": "TRADING"},
}


def test_rows_are_read_as_documented() -> None:
    trade = trade_row(GOOD["trade"])
    assert (trade.trade_id, trade.price, trade.ts_event) == (5, Decimal("1.5"), 1_700_000_000 * 10**9)
    agg = agg_trade_row(GOOD["agg"])
    assert (agg.agg_id, agg.first_id, agg.last_id, agg.ts_event) == (1, 5, 6, 1_700_000_000 * 10**9)
    kline = kline_row(GOOD["kline"])
    assert (kline.open_time, kline.high, kline.low, kline.trades) == (60 * 10**9, Decimal(3), Decimal(1), 4)
    bare = symbol_row(GOOD["symbol"])
    assert (bare.price_precision, bare.quantity_precision, bare.step_size, bare.min_notional) == (
        8,
        8,
        None,
        None,
    )
    old = {
        **GOOD["symbol"],
        "status": "BREAK",
        "filters": [
            {"filterType": "MIN_NOTIONAL", "minNotional": "10.0"},
            {"filterType": "LOT_SIZE", "minQty": "1", "maxQty": "0.0", "stepSize": "1.00000000"},
            {"filterType": "PRICE_FILTER", "tickSize": "0.00000000"},
        ],
    }
    info = symbol_row(old)
    assert (info.is_active, info.min_notional, info.quantity_precision) == (False, Decimal(10), 0)
    assert (info.max_quantity, info.price_precision) == (None, 8)


def test_the_recorded_exchange_info_is_read(recordings: Any) -> None:
    body = orjson.loads(gzip.decompress((recordings / "exchangeInfo_binance_20210417.json.gz").read_bytes()))
    infos = {info.symbol: info for info in parse_rows(body["symbols"], symbol_row, "exchangeInfo")}
    assert len(infos) == 1_405
    bitcoin = infos["BTCUSDT"]
    assert (bitcoin.price_precision, bitcoin.quantity_precision, bitcoin.min_notional) == (2, 6, Decimal(10))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *[("trade", {"id": wrong}) for wrong in ("5", -1, True, 2**63)],
        *[("trade", {"price": wrong}) for wrong in (1.5, "0", "-1", "NaN", "1e5", "", ".", "1_0")],
        *[("trade", {"time": wrong}) for wrong in (0, -1, 10**19, 1.5)],
        *[("trade", {"qty": "0.000"}), ("trade", {"isBuyerMaker": 1})],
        *[("agg", {"f": 7}), ("agg", {"p": None}), ("agg", {"m": "true"})],
        *[("symbol", {"symbol": ""}), ("symbol", {"status": 1}), ("symbol", {"quotePrecision": "8"})],
        *[("symbol", {"filters": [{}]}), ("symbol", {"filters": 3})],
        *[
            ("kline", {1: "4"}),
            ("kline", {2: "0.5"}),
            ("kline", {6: 60_000}),
            ("kline", {8: "4"}),
            ("kline", {5: 10}),
        ],
    ],
)
def test_a_wrong_row_is_named(kind: str, changes: dict[Any, Any]) -> None:
    parse = {"trade": trade_row, "agg": agg_trade_row, "kline": kline_row, "symbol": symbol_row}[kind]
    wrong = dict(enumerate(GOOD[kind])) if kind == "kline" else dict(GOOD[kind])
    wrong |= changes
    row = list(wrong.values()) if kind == "kline" else wrong
    with pytest.raises(ExchangeError, match="row 1 of the answer"):
        parse_rows([GOOD[kind], row], parse, kind)
    for missing in GOOD[kind] if kind != "kline" else ():
        cut = {name: value for name, value in GOOD[kind].items() if name != missing}
        with pytest.raises(ExchangeError, match="row 0 of the answer"):
            parse_rows([cut], parse, kind)


@pytest.mark.parametrize("body", [None, {}, "x", 3])
def test_no_rows_at_all_are_named(body: object) -> None:
    with pytest.raises(ExchangeError, match="where rows were expected"):
        parse_rows(body, trade_row, "trades")
