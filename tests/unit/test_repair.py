"""Repairs against the simulated exchange: what it has not, or not yet, what it spoils; ages and beginnings."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.consumer import SAFETY_SECONDS
from tests.repairing import (
    FOR_EVER,
    Folder,
    Range,
    assert_whole,
    event_time,
    repairing,
    symbols_of,
)
from tests.stalls import hasty_until_stalled
from tests.unit.test_sim_streams import config, run_messages
from tradeback.exchange.rest import RestPolicy
from tradeback.exchange.sim import Sim
from tradeback.model import UNFILLABLE_TEXTS, Symbol

Scenario = Callable[[Sim, Folder, dict[int, Symbol]], Awaitable[None]]
BOTH_WAYS = pytest.mark.parametrize("market_data_only", [False, True], ids=["trades", "aggTrades"])
MINUTE_US = 60_000_000


def with_sim(path: Path, scenario: Scenario, messages: int = 3_000, **options: Any) -> None:
    async def run() -> None:
        async with Sim(config(**{"symbols": 2, "history": False, **options})) as sim:
            if messages:
                await run_messages(sim, messages)
            folder = Folder(path)
            try:
                await scenario(sim, folder, symbols_of(sim))
            finally:
                folder.close()

    asyncio.run(run())


def ids_of(sim: Sim, symbol: Symbol) -> tuple[int, int]:
    rows = sim.ledger.of(symbol.name).trades.latest(10**9)
    return rows[0][0], rows[-1][0]


def make_trades(sim: Sim, symbol: Symbol, start_us: int, count: int, step_us: int) -> None:
    """Trades at times of one's choice, each its own aggTrade, ids from 1000 on."""
    of = sim.ledger.of(symbol.name)
    for number in range(count):
        at = start_us + number * step_us
        price, quantity = 10**8 * 50, 10**6 * (1 + number % 7)
        sim.ledger.add_trade(of, 1000 + number, at, price, quantity, False)
        sim.ledger.add_agg_trade(of, 500 + number, at, price, quantity, False, 1000 + number, 1000 + number)


def leave_out(sim: Sim, first: int, last: int) -> None:
    """Let the exchange answer as if it had never made these trades."""
    trades, aggs = sim.rest.routes.get("historicalTrades"), sim.rest.routes["aggTrades"]
    if trades is not None:
        sim.rest.routes["historicalTrades"] = lambda query: [
            row for row in trades({**query, "limit": "1000"}) if not first <= row["id"] <= last
        ][: int(query["limit"])]
    sim.rest.routes["aggTrades"] = lambda query: [
        row for row in aggs(query) if row["l"] < first or row["f"] > last
    ]


@BOTH_WAYS
def test_what_the_exchange_passes_over_is_given_up_and_the_rest_is_filled(
    tmp_path: Path, market_data_only: bool
) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        one = symbols[1]
        aggs = sim.ledger.of(one.name).aggs.latest(10**9)
        first, last = aggs[300][5], aggs[310][6]
        before, behind = aggs[290][5], aggs[320][6]
        folder.write(sim, one, [(before, behind)])
        leave_out(sim, first, last)
        async with repairing(folder, sim.rest_url, symbols) as running:
            given_up: list[tuple[int, int, int]] = []
            running.repair.on_given_up = lambda *what: given_up.append(what)
            await running.until()
            assert_whole(running.history, sim, one, [(first, last)])
            assert running.history.gaps(1)[0].unfillable == UNFILLABLE_TEXTS[1]
            assert running.repair.given_up == last - first + 1
            assert running.repair.repaired == behind - before - (last - first)
            ((stream_id, start, end),) = given_up
            assert stream_id == 1
            assert start <= event_time(aggs[300][1]) <= event_time(aggs[310][1]) <= end

    with_sim(tmp_path, scenario, market_data_only=market_data_only)


@BOTH_WAYS
def test_what_the_exchange_does_not_have_yet_is_waited_for(tmp_path: Path, market_data_only: bool) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        one = symbols[1]
        _, highest = ids_of(sim, one)
        folder.write(sim, one, [])
        folder.live.append_gap(
            stream_id=1, first_id=highest + 1, last_id=highest + 20, ts_event=time.time_ns(), reason=1
        )
        async with repairing(folder, sim.rest_url, symbols) as running:
            async with asyncio.timeout(SAFETY_SECONDS):
                while running.repair.failures < 3:
                    await asyncio.sleep(0.01)
            assert "does not have the trade" in running.repair.last_failure
            assert "yet" in running.repair.state()["waiting"]["BTCUSDT"]["failure"]
            while ids_of(sim, one)[1] < highest + 20:
                await run_messages(sim, 50)
            await running.until()
            assert running.repair.given_up == 0
            assert running.history.covered()[1][-1][1] == highest + 20
            assert not running.repair.state()["waiting"]

    with_sim(tmp_path, scenario, market_data_only=market_data_only)


FAULTS = ["html", "truncate", "badcolumns", "rest5xx", "stall", "rest429", "rest418"]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_misbehaving_exchange_is_reported_and_spoils_nothing(tmp_path: Path, kind: str) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        gaps: dict[int, list[Range]] = {}
        for number, symbol in symbols.items():
            lowest, highest = ids_of(sim, symbol)
            gaps[number] = [(lowest + 5, lowest + 9), ((lowest + highest) // 2, highest - 1)]
            folder.write(sim, symbol, gaps[number])
        count = 2 if kind in ("stall", "rest429", "rest418") else 5
        sim.fault(kind, count=count)
        async with repairing(folder, sim.rest_url, symbols) as running:
            if kind == "stall":
                await hasty_until_stalled(sim, running.rest, count)
            await running.until()
            for symbol in symbols.values():
                assert_whole(running.history, sim, symbol)
            repair = running.repair
            assert repair.failures >= 1
            assert repair.state()["failures"] == repair.failures
            assert repair.last_failure
            assert repair.given_up == 0
            assert repair.repaired == sum(last - first + 1 for each in gaps.values() for first, last in each)

    with_sim(tmp_path, scenario)


def absurd(kind: str) -> Callable[[list[dict[str, Any]]], Any]:
    """A way to spoil rows that are well formed."""

    def spoil(rows: list[dict[str, Any]]) -> Any:
        if kind == "order":
            return rows[::-1]
        if kind == "twice":
            return [*rows, rows[-1]]
        if kind == "before":
            return [{**row, "id": row["id"] - 1_000} for row in rows]
        if kind == "time":
            return [{**row, "time": row["time"] + 3_600_000} for row in rows]
        if kind == "price":
            return [{**row, "price": "0.00000001"} for row in rows]
        if kind == "quantity":
            return [{**row, "qty": "0.00000001"} for row in rows]
        return {"code": 0}

    return spoil


@pytest.mark.parametrize("kind", ["order", "twice", "before", "time", "price", "quantity", "object"])
def test_absurd_answers_about_one_symbol_do_not_hold_up_the_others(tmp_path: Path, kind: str) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        for symbol in symbols.values():
            lowest, highest = ids_of(sim, symbol)
            folder.write(sim, symbol, [(lowest + 5, lowest + 30), (highest - 30, highest - 1)])
        right, spoil = sim.rest.routes["historicalTrades"], absurd(kind)
        wrong = symbols[1].name
        sim.rest.routes["historicalTrades"] = lambda query: (
            spoil(right(query)) if query["symbol"] == wrong else right(query)
        )
        async with repairing(folder, sim.rest_url, symbols) as running:
            await running.until(2)
            assert_whole(running.history, sim, symbols[2])
            async with asyncio.timeout(SAFETY_SECONDS):
                while running.repair.failures < 4:
                    await asyncio.sleep(0.01)
            assert list(running.repair.state()["waiting"]) == [wrong]
            assert len(running.history.gaps(1, open_only=True)) == 2
            sim.rest.routes["historicalTrades"] = right
            running.repair.wake()
            await running.until()
            assert_whole(running.history, sim, symbols[1])

    with_sim(tmp_path, scenario)


@BOTH_WAYS
def test_what_is_too_old_is_given_up_from_where_the_age_begins(
    tmp_path: Path, market_data_only: bool
) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        hours = 3_600
        count = 4 * hours // 2  # one every two seconds
        start = time.time_ns() // 1_000 - 4 * hours * 1_000_000
        make_trades(sim, symbols[1], start, count, 2_000_000)
        folder.write(sim, symbols[1], [(1010, 1000 + count - 10), (1000 + count - 5, 1000 + count - 3)])
        async with repairing(folder, sim.rest_url, symbols, age=2.0 * hours) as running:
            await running.until()
            (gap,) = running.history.gaps(1)
            assert gap.unfillable == UNFILLABLE_TEXTS[2]
            assert gap.first_id == 1010
            assert abs(gap.last_id - (1000 + count // 2)) < 60  # two minutes
            assert_whole(running.history, sim, symbols[1], [(gap.first_id, gap.last_id)])

    with_sim(tmp_path, scenario, 0, market_data_only=market_data_only)


def test_none_is_fetched_where_the_age_is_zero(tmp_path: Path) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        lowest, _ = ids_of(sim, symbols[1])
        folder.write(sim, symbols[1], [(lowest + 5, lowest + 9)])
        async with repairing(folder, sim.rest_url, symbols, age=0.0) as running:
            await running.until()
            assert_whole(running.history, sim, symbols[1], [(lowest + 5, lowest + 9)])
            assert running.repair.repaired == 0

    with_sim(tmp_path, scenario)


@BOTH_WAYS
def test_the_minute_in_which_a_symbol_begins_is_made_whole(tmp_path: Path, market_data_only: bool) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        now = time.time_ns() // 1_000
        minute = now - now % MINUTE_US - 3 * MINUTE_US
        # From one minute before on, one a second; the symbol begins with the 31st second of the minute.
        make_trades(sim, symbols[1], minute - MINUTE_US, 200, 1_000_000)
        begins = 1000 + 60 + 31
        folder.write(sim, symbols[1], [(0, begins - 1)], reason="begin")
        async with repairing(folder, sim.rest_url, symbols) as running:
            begun: list[int] = []
            running.repair.on_begin = begun.append
            await running.until()
            whole = running.history.bars(1, "1m", 0, FOR_EVER)
            assert [bar.trade_count for bar in whole] == [60, 60, 20]
            assert whole[0].open_time == minute * 1_000
            (gap,) = running.history.gaps(1)
            assert (gap.first_id, gap.last_id, gap.unfillable) == (0, 1059, UNFILLABLE_TEXTS[4])
            assert set(begun) == {1}

    with_sim(tmp_path, scenario, 0, market_data_only=market_data_only)


@BOTH_WAYS
def test_the_budget_is_never_overstepped(tmp_path: Path, market_data_only: bool) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        # A minute that turns a second after most of its weight was taken. The next one has enough for all, however slow
        # this machine is: until then the clock stands.
        begun = math.inf
        clock: Callable[[], float] = lambda: 1_700_000_039.0 + max(0.0, time.monotonic() - begun)  # noqa: E731
        sim.rest.clock = clock
        for symbol in symbols.values():
            lowest, highest = ids_of(sim, symbol)
            step = (highest - lowest) // 8
            folder.write(sim, symbol, [(lowest + step * n, lowest + step * n) for n in range(1, 8)])
        limit = 200 if market_data_only else 800
        sim.rest.weight_limit = limit
        policy = RestPolicy(attempts=1, weight_share=0.5, weight_limit=limit)
        async with repairing(folder, sim.rest_url, symbols, rest_policy=policy, clock=clock) as running:
            assert running.rest.budget.wait(limit * 3 // 8, clock()) == 0.0
            begun = time.monotonic()
            await running.until()
            for symbol in symbols.values():
                assert_whole(running.history, sim, symbol)
            assert running.repair.failures == 0
            # Eight requests of weight 25 are more than what was left of it.
            assert market_data_only or clock() > 1_700_000_040.0

    with_sim(tmp_path, scenario, 20_000, market_data_only=market_data_only)


def test_ids_of_an_unknown_symbol_are_reported(tmp_path: Path) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        lowest, _ = ids_of(sim, symbols[1])
        folder.write(sim, symbols[1], [(lowest + 5, lowest + 9)])
        async with repairing(folder, sim.rest_url, {2: symbols[2]}) as running:
            async with asyncio.timeout(SAFETY_SECONDS):
                while not running.repair.failures:
                    await asyncio.sleep(0.01)
            assert "stream id 1 has gaps and no symbol" in running.repair.last_failure

    with_sim(tmp_path, scenario)


def test_nothing_is_appended_twice_over_restarts_at_any_moment(tmp_path: Path) -> None:
    async def scenario(sim: Sim, folder: Folder, symbols: dict[int, Symbol]) -> None:
        missing = 0
        for symbol in symbols.values():
            lowest, highest = ids_of(sim, symbol)
            ranges = [(first, first + 6) for first in range(lowest + 3, highest - 10, 17)]
            missing += 7 * len(ranges)
            folder.write(sim, symbol, ranges)
        repaired = rounds = 0
        left = 1
        while left:
            async with repairing(folder, sim.rest_url, symbols) as running:
                async with asyncio.timeout(SAFETY_SECONDS):
                    while not running.repair.repaired and left:
                        if running.sink.caught_up:
                            left = len(running.history.gaps(open_only=True))
                        await asyncio.sleep(0.001)
            # Until it has ended, another step may append.
            repaired += running.repair.repaired
            rounds += 1
        assert repaired == missing
        assert rounds > 2
        async with repairing(folder, sim.rest_url, symbols) as running:
            await running.until()
            for symbol in symbols.values():
                assert_whole(running.history, sim, symbol)

    with_sim(tmp_path, scenario, 12_000)
