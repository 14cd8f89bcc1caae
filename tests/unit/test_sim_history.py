"""Klines of the time before the simulated exchange was started, as its REST interface gives them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.unit.test_sim_streams import config, run_messages
from tradeback.exchange.sim import Sim
from tradeback.exchange.sim.history import BEGIN_MS, DAY_MS, History
from tradeback.exchange.sim.klines import INTERVALS_MS
from tradeback.exchange.sim.ledger import MINUTE_MS
from tradeback.exchange.sim.market import make_symbols

Rows = list[list[Any]]
Ask = Callable[..., Awaitable[Any]]
Scenario = Callable[[Sim, Ask], Awaitable[None]]


def with_klines(scenario: Scenario, **options: Any) -> None:
    async def run() -> None:
        options.setdefault("weight_limit", 1_000_000)
        async with Sim(config(**options)) as sim, httpx.AsyncClient(base_url=sim.rest_url) as http:

            async def ask(path: str = "klines", symbol: str = "BTCUSDT", **query: Any) -> Any:
                answer = await http.get(f"/api/v3/{path}", params={"symbol": symbol, **query})
                assert answer.status_code == 200, answer.text
                return orjson.loads(answer.content)

            await scenario(sim, ask)

    asyncio.run(run())


async def walk(ask: Ask, interval: str, start: int, end: int, limit: int) -> Rows:
    rows: Rows = []
    while page := await ask(interval=interval, startTime=start, endTime=end, limit=limit):
        rows += page
        start = page[-1][0] + 1
    return rows


@pytest.mark.parametrize("interval", list(INTERVALS_MS))
def test_pages_forward_and_backward_give_the_same_rows(interval: str) -> None:
    async def scenario(sim: Sim, ask: Ask) -> None:
        await run_messages(sim, 500)
        length = INTERVALS_MS[interval]
        now = time.time_ns() // 1_000_000
        start = now - 900 * length
        whole = await ask(interval=interval, startTime=start, endTime=now, limit=1_000)
        assert len(whole) > 850
        assert await walk(ask, interval, start, now, 123) == whole
        backward: Rows = []
        end = now
        while page := await ask(interval=interval, endTime=end, limit=170):
            backward = page + backward
            end = page[0][0] - 1
            if end < start:
                break
        assert [row for row in backward if row[0] >= start] == whole
        assert (await ask(interval=interval, limit=1_000))[-len(whole) :] == whole

    with_klines(scenario, rate=1e9)


def test_start_and_end_are_inclusive_and_nothing_was_before_2020() -> None:
    async def scenario(sim: Sim, ask: Ask) -> None:
        rows = await ask(interval="1h", startTime=BEGIN_MS + DAY_MS, limit=4)
        assert [row[0] for row in rows] == [BEGIN_MS + DAY_MS + hour * 60 * MINUTE_MS for hour in range(4)]
        assert await ask(interval="1h", startTime=rows[1][0], endTime=rows[2][0]) == rows[1:3]
        assert await ask(interval="1h", startTime=rows[1][0] + 1, endTime=rows[3][0] - 1) == rows[2:3]
        assert await ask(interval="1h", endTime=rows[3][0], limit=4) == rows
        assert await ask(interval="1d", startTime=0, endTime=BEGIN_MS - 1) == []
        assert (await ask(interval="1d", startTime=0, limit=1))[0][0] == BEGIN_MS
        # Whole days that are over: in its first minute the day of now has no bar yet.
        today = time.time_ns() // 10**6 // DAY_MS * DAY_MS
        days = await ask(interval="1d", startTime=today - 730 * DAY_MS, endTime=today - 1, limit=1_000)
        assert len(days) == 730

    with_klines(scenario)


def test_the_ledger_goes_on_where_the_history_ends() -> None:
    async def scenario(sim: Sim, ask: Ask) -> None:
        assert sim.history is not None
        start = sim.history.end_ms
        before = await ask(interval="1m", startTime=start - 60 * MINUTE_MS)
        assert before[-1][0] < start
        alone = {interval: (await ask(interval=interval))[-1] for interval in ("5m", "1h", "1d")}
        await run_messages(sim, 2_000)
        of = sim.ledger.of("BTCUSDT")
        rows = await ask(interval="1m", startTime=start - 60 * MINUTE_MS)
        assert rows[: len(before)] == before
        made = rows[len(before) :]
        # The price goes on, too: the first trade is within a few ticks of the last of before.
        assert float(made[0][1]) == pytest.approx(float(before[-1][4]), rel=0.0005)
        assert [row[0] for row in made] == list(of.bars)
        assert [row[8] for row in made] == [bar.trades for bar in of.bars.values()]
        for interval, length in INTERVALS_MS.items():
            newest = (await ask(interval=interval))[-1]
            minutes = await ask(
                interval="1m", startTime=newest[0], endTime=newest[0] + length - 1, limit=1_000
            )
            if length <= 1_000 * MINUTE_MS:
                assert newest[8] == sum(row[8] for row in minutes)
                assert (newest[1], newest[4]) == (minutes[0][1], minutes[-1][4])
        # With a new interval since then the first is closed, and tells as much as it did.
        for interval, row in alone.items():
            again = (await ask(interval=interval, startTime=row[0], limit=1))[0]
            assert again[0] == row[0]
            assert again[8] >= row[8]

    with_klines(scenario)


def test_tickers_tell_of_the_day_before_the_start() -> None:
    async def scenario(sim: Sim, ask: Ask) -> None:
        minute = (await ask(interval="1m", limit=1))[0]
        assert (await ask("ticker/price"))["price"] == minute[4]
        day = await ask("ticker/24hr")
        assert (day["lastPrice"], day["firstId"], day["lastId"]) == (minute[4], -1, -1)
        hours = await ask(interval="1h", endTime=day["closeTime"] - 60 * MINUTE_MS, limit=23)
        assert day["count"] > sum(row[8] for row in hours[1:])
        assert float(day["lowPrice"]) <= min(float(row[3]) for row in hours[1:])
        await run_messages(sim, 500)
        later = await ask("ticker/24hr")
        of = sim.ledger.of("BTCUSDT")
        assert later["lastId"] == of.last_trade == 10**9 + of.trade_count - 1
        assert later["lastId"] - later["firstId"] + 1 == later["count"]

    with_klines(scenario, first_id=10**9)


def test_a_replay_and_an_exchange_without_history_have_klines_of_the_ledger_alone(tmp_path: Path) -> None:
    async def scenario(sim: Sim, ask: Ask) -> None:
        assert await ask(interval="1d") == []
        assert await ask(interval="1m", startTime=0) == []
        assert (await ask("ticker/24hr"))["count"] == 0

    with_klines(scenario, history=False)
    trade = {
        "e": "trade",
        "E": 1,
        "s": "BTCUSDT",
        "t": 7,
        "p": "5.0",
        "q": "2.0",
        "T": 1,
        "m": True,
        "M": True,
    }
    line = {"t": 1.0, "m": orjson.dumps({"stream": "btcusdt@trade", "data": trade}).decode()}
    recording = tmp_path / "one.jsonl"
    recording.write_bytes(orjson.dumps(line) + b"\n")
    with_klines(scenario, replay=recording)


def test_a_later_start_and_another_number_of_symbols_change_no_minute() -> None:
    end = BEGIN_MS + 700 * DAY_MS + 777 * MINUTE_MS
    first = History(make_symbols(5, 3, 100), 3, end)
    second = History(make_symbols(50, 3, 9_999), 3, end + 33 * DAY_MS + 40_000)
    for symbol in ("BTCUSDT", "BNBUSDT"):
        rows = [list(each.bars(symbol, MINUTE_MS, end - DAY_MS, end - 1)) for each in (first, second)]
        assert rows[0] == rows[1]
        assert len(rows[0]) > 1_000
    other = History(make_symbols(5, 4, 100), 4, end)
    assert list(other.bars("BTCUSDT", MINUTE_MS, end - DAY_MS, end - 1)) != rows[0]


def test_days_and_pools_are_kept_in_bounded_memory() -> None:
    symbols = make_symbols(400, 1, 100)
    history = History(symbols, 1, BEGIN_MS + 1_000 * DAY_MS)
    for symbol in symbols:
        list(history.bars(symbol.name, DAY_MS, BEGIN_MS + 100 * DAY_MS, BEGIN_MS + 107 * DAY_MS))
    kept = history._day.cache_info()
    assert kept.currsize == kept.maxsize < kept.misses
    assert len(history._pools) <= 35
