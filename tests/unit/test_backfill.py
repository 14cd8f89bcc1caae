"""Backfill: the plan of jobs, which bars of an answer are taken, and the work against the simulated exchange."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.consumer import SAFETY_SECONDS
from tests.repairing import symbols_of
from tests.stalls import hasty_until_stalled
from tests.unit.test_sim_streams import config as sim_config
from tradeback.config import Config
from tradeback.errors import ConfigError, ExchangeError, UnknownSymbolError
from tradeback.exchange.binance import REST_ROWS_MAX
from tradeback.exchange.rest import ExchangeRest, RestPolicy
from tradeback.exchange.rows import KlineRow
from tradeback.exchange.sim import Sim
from tradeback.model import MINUTE_NS, RESOLUTIONS, Bar
from tradeback.recorder.asking import asked_backfill, asked_progress, find_symbols
from tradeback.recorder.backfill import Backfill, BackfillPolicy, bars_of, plan
from tradeback.store.base import BackfillJob, History
from tradeback.store.histories import open_history

DAY = RESOLUTIONS["1d"]
QUICK = BackfillPolicy(first_backoff=0.02, longest_backoff=0.1)
FOR_EVER = 2**62


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(0, 9)), max_size=5),
    st.integers(0, 12),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_plan_leaves_nothing_out(
    before: list[tuple[int, int, int]], start: int, length: int, again: bool
) -> None:
    jobs: dict[int, BackfillJob] = {
        first: BackfillJob(1, "1m", first, first + size, first + min(done, size))
        for first, size, done in before
    }
    job = plan(jobs.values(), 1, "1m", start, start + length, again=again)
    assert job.start <= start
    assert job.end >= start + length
    assert job.start <= job.done_to <= job.end
    assert job.error == ""
    stored = {at for each in jobs.values() for at in range(each.start, each.done_to)}
    taken_as_stored = set(range(start, job.done_to))
    if again:
        assert job.done_to == start
    else:
        assert taken_as_stored <= stored
        if job.start == start and start not in jobs and start in stored:
            assert job.done_to > start
    assert plan(jobs.values(), 2, "1m", 0, 5).done_to == 0


def kline(at: int, trades: int = 3, volume: str = "1.5") -> KlineRow:
    price = Decimal("2.5")
    return KlineRow(
        at, at + MINUTE_NS - 10**6, price, price, price, price, Decimal(volume), Decimal(1), trades
    )


JOB = BackfillJob(1, "1m", 0, 10 * MINUTE_NS, 2 * MINUTE_NS)


def test_closed_bars_are_taken() -> None:
    rows = [kline(n * MINUTE_NS) for n in (2, 3, 5)]
    bars, done_to = bars_of(rows, JOB, 20 * MINUTE_NS)
    assert [bar.open_time // MINUTE_NS for bar in bars] == [2, 3, 5]
    assert bars[0] == Bar(2 * MINUTE_NS, 2.5, 2.5, 2.5, 2.5, 1.5, 3)
    assert done_to == 6 * MINUTE_NS
    bars, done_to = bars_of(rows, JOB, 6 * MINUTE_NS - 10**6)  # its last ms is not over
    assert ([bar.open_time // MINUTE_NS for bar in bars], done_to) == ([2, 3], 5 * MINUTE_NS)
    assert bars_of([kline(2 * MINUTE_NS, 0, "0.0")], JOB, 20 * MINUTE_NS) == ([], 3 * MINUTE_NS)
    assert bars_of([], JOB, 20 * MINUTE_NS) == ([], JOB.end)
    assert bars_of([], JOB, 5 * MINUTE_NS + 1) == ([], 5 * MINUTE_NS)
    assert bars_of([], JOB, MINUTE_NS) == ([], JOB.done_to)


@pytest.mark.parametrize(
    "row",
    [
        kline(2 * MINUTE_NS + 1),
        replace(kline(2 * MINUTE_NS), close_time=4 * MINUTE_NS - 10**6),
        kline(1 * MINUTE_NS),
        kline(10 * MINUTE_NS),
        kline(3 * MINUTE_NS, trades=0),
        kline(3 * MINUTE_NS, volume="0.000"),
    ],
)
def test_an_answer_that_was_not_asked_for_is_dropped(row: KlineRow) -> None:
    with pytest.raises(ExchangeError, match=r"the answer is dropped|is none"):
        bars_of([row], JOB, 20 * MINUTE_NS)


@asynccontextmanager
async def backfilling(
    path: Path, sim: Sim, policy: BackfillPolicy = QUICK
) -> AsyncIterator[tuple[Backfill, History, ExchangeRest]]:
    config = Config.model_validate(
        {"data": {"folder": path}, "exchange": {"name": "sim"}, "recorder": {"history_days": 3}}
    )
    history = open_history(config, write=True)
    rest = ExchangeRest(sim.rest_url, RestPolicy(attempts=1, timeout=SAFETY_SECONDS))
    backfill = Backfill(history, rest, symbols_of(sim).get, config, policy)
    try:
        yield backfill, history, rest
    finally:
        await rest.close()
        history.close()


def stored(history: History, stream_id: int, job: BackfillJob) -> list[Bar]:
    return history.bars(stream_id, job.resolution, job.start, job.end)


async def exchange_bars(rest: ExchangeRest, symbol: str, job: BackfillJob) -> list[Bar]:
    """What the exchange has, asked for in another way than backfill does: from the end, in pages of 700."""
    found: list[Bar] = []
    end = job.end // 10**6 - 1
    while end >= job.start // 10**6:
        rows = await rest.klines(
            symbol, job.resolution, start_ms=max(job.start // 10**6, end - 700 * 60_000 + 1), end_ms=end
        )
        found = [
            Bar(
                row.open_time,
                float(row.open),
                float(row.high),
                float(row.low),
                float(row.close),
                float(row.volume),
                row.trades,
            )
            for row in rows
            if row.trades
        ] + found
        end -= 700 * 60_000
    return found


@pytest.mark.parametrize("kind", ["html", "truncate", "badcolumns", "rest5xx", "rest429", "stall"])
def test_a_misbehaving_exchange_delays_and_spoils_nothing(tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        async with Sim(sim_config(symbols=2)) as sim, backfilling(tmp_path, sim) as (backfill, history, rest):
            await rest.exchange_info()
            await backfill.read_clock()
            jobs = backfill.ask([1, 2], ["1m"], 1)
            sim.fault(kind, count=1 if kind == "stall" else 3)
            async with asyncio.timeout(SAFETY_SECONDS), asyncio.TaskGroup() as tasks:
                if kind == "stall":
                    tasks.create_task(hasty_until_stalled(sim, rest, 1))
                    await asyncio.sleep(0)  # it has begun
                await backfill.run(only=jobs)
            assert backfill.failures >= 1
            assert backfill.last_failure
            assert all(job.done and not job.error for job in history.jobs())
            for stream_id, job in enumerate(jobs, start=1):
                bars = stored(history, stream_id, job)
                assert bars == await exchange_bars(rest, sim.symbols[stream_id - 1], job)
                assert len(bars) >= 1_400

    asyncio.run(run())


def test_work_goes_on_after_any_end_and_nothing_is_fetched_twice(tmp_path: Path) -> None:
    async def run() -> None:
        async with Sim(sim_config(symbols=3)) as sim:
            pages = rounds = 0
            while True:
                async with backfilling(tmp_path, sim) as (backfill, history, rest):
                    await rest.exchange_info()
                    await backfill.read_clock()
                    jobs = backfill.ask([1, 2, 3], ["1m", "1h"], 2)
                    before = sum(job.done_to - job.start for job in jobs)
                    working = asyncio.create_task(backfill.run(only=jobs))
                    async with asyncio.timeout(SAFETY_SECONDS):
                        while backfill.pages < 3 and not working.done():
                            await asyncio.sleep(0.001)
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
                    pages += backfill.pages
                    rounds += 1
                    assert sum(job.done_to - job.start for job in history.jobs()) >= before
                    if all(job.done for job in backfill.jobs):
                        break
            assert rounds > 3
            async with backfilling(tmp_path, sim) as (backfill, history, rest):
                await backfill.run(only=backfill.jobs)
                assert backfill.pages == 0
                for job in history.jobs():
                    name = sim.symbols[job.stream_id - 1]
                    if job.resolution == "1m":
                        assert stored(history, job.stream_id, job) == await exchange_bars(rest, name, job)
                again = backfill.ask([1], ["1h"], 2, again=True)
                await backfill.run(only=again)
                assert (backfill.pages, backfill.changed) == (1, 0)

    asyncio.run(run())


def test_symbols_take_turns_and_one_that_the_exchange_does_not_know_ends(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            Sim(sim_config(symbols=3)) as sim,
            backfilling(tmp_path, sim, BackfillPolicy(at_once=1)) as (backfill, history, rest),
        ):
            await rest.exchange_info()
            delisted = sim.rest.symbols.pop(sim.symbols[1])
            await backfill.read_clock()
            jobs = backfill.ask([1, 2, 3], ["1m"], 4)
            working = asyncio.create_task(backfill.run(only=jobs))
            most_apart = 0
            async with asyncio.timeout(SAFETY_SECONDS):
                while not working.done():
                    await asyncio.sleep(0.001)
                    one, _, three = sorted(backfill.jobs, key=lambda job: job.stream_id)
                    most_apart = max(most_apart, abs(one.done_to - three.done_to))
            await working
            assert most_apart <= 1_500 * MINUTE_NS  # a page, which passes over minutes without trades
            unknown = next(job for job in history.jobs() if job.stream_id == 2)
            assert "-1121" in unknown.error
            assert unknown.done_to == unknown.start
            assert all(job.done for job in history.jobs() if job.stream_id != 2)
            progress = asked_progress(backfill)
            assert progress["pending"] == 0
            assert [job["error"] != "" for job in progress["jobs"]] == [False, True, False]
            # Asked for again, it is tried again.
            sim.rest.symbols[sim.symbols[1]] = delisted
            await backfill.run(only=backfill.ask([2], ["1m"], 0))
            assert all(job.done and not job.error for job in history.jobs())

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(4))
def test_what_is_pending_is_what_is_not_done_whenever_it_is_asked_for(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        async with Sim(sim_config(symbols=3)) as sim, backfilling(tmp_path, sim) as (backfill, history, rest):
            await rest.exchange_info()
            await backfill.read_clock()
            delisted = sim.rest.symbols.pop(sim.symbols[1])
            working = asyncio.create_task(backfill.run())
            pages = 0
            async with asyncio.timeout(SAFETY_SECONDS):
                for _ in range(12):
                    of = chance.sample([1, 2, 3], chance.randrange(1, 3))
                    backfill.ask(of, ["1m", "1h"], chance.randrange(3), again=chance.random() < 0.5)
                    pages += chance.randrange(3)
                    while True:
                        unfinished = [job for job in backfill.jobs if not job.done and not job.error]
                        assert backfill.state()["pending"] == len(unfinished)
                        if backfill.pages >= pages or not unfinished:
                            break
                        await asyncio.sleep(0.001)
                sim.rest.symbols[sim.symbols[1]] = delisted
                backfill.ask([2], ["1m", "1h"], 2)
                while backfill.state()["pending"]:
                    await asyncio.sleep(0.001)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            assert all(job.done or job.stream_id == 2 for job in history.jobs())
            for job in history.jobs():
                if job.resolution == "1m" and job.done:
                    name = sim.symbols[job.stream_id - 1]
                    assert stored(history, job.stream_id, job) == await exchange_bars(rest, name, job)

    asyncio.run(run())


def test_the_budget_is_kept_and_a_part_of_it_left_to_others(tmp_path: Path) -> None:
    async def run() -> None:
        now = 1_700_000_000.0  # the 20th second of a minute, which stays
        async with Sim(sim_config(symbols=2, weight_limit=100)) as sim, backfilling(tmp_path, sim) as made:
            backfill, _, rest = made
            rest.clock = sim.rest.clock = lambda: now  # which stops both minutes
            await rest.exchange_info()
            await backfill.read_clock()
            backfill.ask([1, 2], ["1m"], 300)
            working = asyncio.create_task(backfill.run())
            async with asyncio.timeout(SAFETY_SECONDS):
                while backfill.progress()["waits"] == 0:
                    await asyncio.sleep(0.001)
            # 0.8 of 100, and of that 0.8 again.
            assert 55 <= rest.budget.used <= 66
            assert 30.0 < backfill.progress()["waits"] <= 41.0
            assert (backfill.failures, rest.retries) == (0, 0)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    asyncio.run(run())


def test_a_symbol_that_begins_gets_its_history_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with Sim(sim_config(symbols=1)) as sim, backfilling(tmp_path, sim) as (backfill, history, rest):
            await rest.exchange_info()
            await backfill.read_clock()
            backfill.begin(1)
            spans = {name: [job for job in backfill.jobs if job.resolution == name] for name in RESOLUTIONS}
            for name, jobs in spans.items():
                # The newest page first, where there are several; together they leave nothing out.
                assert [job.end for job in jobs[1:]] == [job.start for job in jobs[:-1]]
                assert jobs[-1].start % DAY == 0
                assert 2 * DAY < jobs[0].end - jobs[-1].start < 5 * DAY
                assert len(jobs) == 1 or jobs[0].end - jobs[0].start == REST_ROWS_MAX * RESOLUTIONS[name]
            assert len(spans["1m"]) == 2
            every = backfill.jobs
            async with asyncio.timeout(SAFETY_SECONDS):
                await backfill.run(only=every)
            pages = backfill.pages
            backfill.begin(1)
            await backfill.run(only=backfill.jobs)
            assert backfill.pages <= pages + 2 * len(RESOLUTIONS)  # at most what closed meanwhile
            start = spans["1m"][-1].start + 5 * MINUTE_NS
            backfill.mend(1, start + 1, start + 3 * MINUTE_NS + 1)
            mending = next(job for job in backfill.jobs if job.start == start)
            assert (mending.done_to, mending.end) == (start, start + 4 * MINUTE_NS)
            await backfill.run(only=[mending])
            assert all(job.done for job in history.jobs())

    asyncio.run(run())


def test_what_is_asked_for_wrongly_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with Sim(sim_config(symbols=2)) as sim, backfilling(tmp_path, sim) as (backfill, _, _rest):
            named = {symbol.name: symbol for symbol in symbols_of(sim).values()}.get
            good = {"symbols": ["BTCUSDT"], "resolutions": ["1m"], "days": 1}
            for changes, error, what in (
                ({"symbols": ["NOSUCH"]}, UnknownSymbolError, "NOSUCH: no such symbol"),
                ({"symbols": "BTCUSDT"}, UnknownSymbolError, "a list of names"),
                ({"resolutions": ["7m"]}, ConfigError, "1m, 5m, 15m, 1h, 4h, 1d, not"),
                ({"days": -1}, ConfigError, "0 to 3650, not -1"),
                ({"days": True}, ConfigError, "0 to 3650"),
            ):
                with pytest.raises(error, match=what):
                    asked_backfill(backfill, named, good | changes)
            assert not backfill.jobs
            answer = asked_backfill(backfill, named, good)
            assert [job["symbol"] for job in answer["jobs"]] == ["BTCUSDT"]

    asyncio.run(run())
    assert find_symbols(["btcusdt", "BTCUSDT"], ["BTCUSDT"], "sim") == ["BTCUSDT"]
    with pytest.raises(UnknownSymbolError, match="did you mean BTCUSDT"):
        find_symbols(["BTCUSD"], ["BTCUSDT", "XRPBTC"], "sim")
    with pytest.raises(UnknownSymbolError, match="symbols list"):
        find_symbols(["QQQ"], ["BTCUSDT"], "sim")
