"""A ledger of the simulated exchange stored with holes in it, and real sinks and repairs that fill them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from tests.consumer import SAFETY_SECONDS
from tests.waiting import until
from tradeback._fast.journal import JournalWriter
from tradeback._fast.record import FLAGS, REASONS
from tradeback._fast.stats import Stats
from tradeback.config import Config
from tradeback.exchange.rest import ExchangeRest, RestPolicy
from tradeback.exchange.rows import symbol_row
from tradeback.exchange.sim import Sim
from tradeback.model import Symbol, Tick
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.history_sink import HistorySink
from tradeback.recorder.repair import Repair, RepairPolicy
from tradeback.store.base import History
from tradeback.store.histories import open_history

UNIT = 10**8  # of the ledger's prices and quantities
DAY_S = 86_400.0
FOR_EVER = 2**62
QUICK = RepairPolicy(confirm_after=0.1, first_backoff=0.02, longest_backoff=0.2, poll=0.005, idle_poll=0.2)

Range = tuple[int, int]


def symbols_of(sim: Sim) -> dict[int, Symbol]:
    """The exchange's symbols by stream ids, which count from 1."""
    return {
        number: Symbol(symbol_row(sim.symbol_rows[name].row), number)
        for number, name in enumerate(sim.symbols, start=1)
    }


def event_time(time_us: int) -> int:
    """The ledger's time as the exchange tells it: milliseconds, in ns."""
    return time_us // 1_000 * 1_000_000


def within(ranges: Sequence[Range], trade_id: int) -> bool:
    return any(first <= trade_id <= last for first, last in ranges)


class Folder:
    """A data folder with both journals; `write` journals a symbol's trades, all but the gaps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = Config.model_validate({"data": {"folder": path}, "exchange": {"name": "sim"}})
        self.folder = self.config.data.of("sim")
        self.live = self._open("journal")

    def _open(self, name: str) -> JournalWriter:
        writer = JournalWriter.open(
            self.folder / name, "sim", segment_bytes=4 << 20, retention_bytes=64 << 20
        )
        writer.prepare()
        return writer

    def write(
        self,
        sim: Sim,
        symbol: Symbol,
        gaps: Sequence[Range],
        *,
        aggregates: bool = False,
        reason: str = "timeout",
    ) -> None:
        """Journal what the ledger has of a symbol. With `aggregates`, aggTrades that no gap touches are journaled
        as one record."""
        ledger = sim.ledger.of(symbol.name)
        grouped: set[int] = set()
        if aggregates:
            for _, time_us, price, quantity, _, first, last in ledger.aggs.latest(10**9):
                if first < last and not any(low <= last and high >= first for low, high in gaps):
                    grouped.update(range(first, last + 1))
                    self._trade(symbol, last, time_us, price, quantity, last - first + 1)
        for trade_id, time_us, price, quantity, _ in ledger.trades.latest(10**9):
            if trade_id not in grouped and not within(gaps, trade_id):
                self._trade(symbol, trade_id, time_us, price, quantity, 1)
        for first, last in gaps:
            self.live.append_gap(
                stream_id=symbol.stream_id,
                first_id=first,
                last_id=last,
                ts_event=time.time_ns(),
                reason=REASONS[reason],
            )

    def _trade(self, symbol: Symbol, last: int, time_us: int, price: int, quantity: int, count: int) -> None:
        if self.live.needs_prepare:
            self.live.prepare()
        self.live.append_trade(
            stream_id=symbol.stream_id,
            price=price / UNIT,
            qty=quantity / UNIT,
            trade_id=last,
            ts_event=event_time(time_us),
            trade_count=count,
            flags=FLAGS["aggregate"] if count > 1 else 0,
        )

    def close(self) -> None:
        self.live.close()


class Repairing:
    """The history, its sink and the repairs of a folder, running."""

    def __init__(self, history: History, sink: HistorySink, repair: Repair, rest: ExchangeRest) -> None:
        self.history = history
        self.sink = sink
        self.repair = repair
        self.rest = rest

    async def until(self, stream_id: int | None = None) -> None:
        """Wait until no gap is open, of one symbol or of all, and everything is stored."""
        # In this order: gaps may be on their way to the history before.
        await until(lambda: self.sink.caught_up and not self.history.gaps(stream_id, open_only=True))


@asynccontextmanager
async def repairing(
    folder: Folder,
    rest_url: str,
    symbols: dict[int, Symbol],
    *,
    age: float = DAY_S,
    rest_policy: RestPolicy | None = None,
    policy: RepairPolicy = QUICK,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Repairing]:
    """Store, repair, and stop as a kill would find it: whatever is under way is dropped."""
    history = open_history(folder.config, write=True)
    repairs = folder._open("repairs")
    stats = Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS)
    sink = HistorySink(
        folder.folder,
        stats,
        0.005,
        history,
        lambda stream_id: symbols[stream_id].info.quantity_precision if stream_id in symbols else 8,
    )
    rest = ExchangeRest(rest_url, rest_policy or RestPolicy(attempts=1, timeout=SAFETY_SECONDS), clock)
    repair = Repair(history, rest, repairs, symbols.get, age, policy)
    loop = asyncio.get_running_loop()
    sink.on_gaps = lambda _: loop.call_soon_threadsafe(repair.wake)
    sink.start()
    running = asyncio.create_task(repair.run())
    try:
        yield Repairing(history, sink, repair, rest)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.to_thread(sink.stop)
        await rest.close()
        repairs.close()
        history.close()


def assert_whole(history: History, sim: Sim, symbol: Symbol, unfillable: Sequence[Range] = ()) -> list[Tick]:
    """Every id of the ledger is stored once with its price and quantity, or is `unfillable`; returns the ticks."""
    ledger = sim.ledger.of(symbol.name)
    trades = {row[0]: row for row in ledger.trades.latest(10**9)}
    lowest, highest = min(trades), max(trades)
    gaps = history.gaps(symbol.stream_id)
    assert [(gap.first_id, gap.last_id) for gap in gaps] == list(unfillable), gaps
    assert all(gap.unfillable for gap in gaps)
    stored = history.covered()[symbol.stream_id]
    free = [(lowest - 1, lowest - 1), *unfillable, (highest + 1, highest + 1)]
    expected = [(low[1] + 1, high[0] - 1) for low, high in pairwise(free)]
    assert stored == [(first, last) for first, last in expected if first <= last]

    ticks = list(history.ticks(symbol.stream_id, 0, FOR_EVER))
    assert len({tick.trade_id for tick in ticks}) == len(ticks)
    assert sum(tick.trade_count for tick in ticks) == sum(last - first + 1 for first, last in stored)
    row_of = {trade_id: row for row in ledger.aggs.latest(10**9) for trade_id in range(row[5], row[6] + 1)}
    units: dict[int, int] = {}
    for tick in ticks:
        _, time_us, price, quantity, _ = trades[tick.trade_id]
        assert (tick.price, tick.ts_event) == (price / UNIT, event_time(time_us))
        if tick.trade_count == 1:
            assert tick.volume == quantity / UNIT
        units[row_of[tick.trade_id][0]] = units.get(row_of[tick.trade_id][0], 0) + round(tick.volume * UNIT)
    for agg_id, sum_of in units.items():
        row = next(row for row in ledger.aggs.from_value(agg_id))
        ids = [each for each in range(row[5], row[6] + 1) if not within(unfillable, each)]
        assert sum_of == sum(trades[each][3] for each in ids)
    return ticks
