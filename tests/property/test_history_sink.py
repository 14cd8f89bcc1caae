"""The history sink against the ledger: records as two faulty lines leave them, batches cut anywhere, crashes, replays
from older places of either journal. What is stored at the end is what was traded, once."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.faulty_lines import make_market
from tests.reference.table import BeginOut, GapOut, Out, SymbolOracle
from tradeback._fast.journal import JournalBegin, JournalGap, JournalTrade, Record
from tradeback._fast.record import FLAGS, REASONS
from tradeback._fast.stats import Stats
from tradeback.config import HistoryConfig
from tradeback.model import MINUTE_NS, UNFILLABLE_TEXTS, Bar
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.history_sink import HistorySink
from tradeback.store.history_sqlite import SqliteHistory

PRECISION = 5
EPOCH = 1_700_000_000 * 10**9 // MINUTE_NS * MINUTE_NS
FOR_EVER = 2**63 - 1
STREAMS = (3, 9)


@dataclass
class World:
    """Two journals of two symbols, and what was really traded: units, ns and price of each id."""

    journal: list[Record] = field(default_factory=list)
    repairs: list[Record] = field(default_factory=list)
    ledger: dict[int, dict[int, tuple[int, int, float]]] = field(default_factory=dict)


def time_of(made: int) -> int:
    # A market of half a minute is drawn out over several.
    return EPOCH + made * 20_000_000


def price_of(made: int) -> float:
    return 50.25 + made % 13


def trade(seq: int, stream_id: int, last: int, count: int, units: int, made: int, flags: int) -> JournalTrade:
    price, quantity = price_of(made), units / 10**PRECISION
    return JournalTrade(seq, stream_id, last, count, price, quantity, 1.0, 2.0, time_of(made), 0, flags)


def records_of(rng: random.Random, stream_id: int, world: World) -> Iterator[Record]:
    """What the server journals of one symbol; sequence numbers are set later."""
    market = make_market(rng, 120)
    made_at: dict[int, int] = {}
    for event in market.events:
        for number in range(event.first, event.last + 1):
            made_at[number] = event.made
    world.ledger[stream_id] = {
        number: (units, time_of(made_at[number]), price_of(made_at[number]))
        for number, units in market.ledger.items()
        if number in made_at
    }
    oracle = SymbolOracle()

    def out(found: list[Out]) -> Iterator[Record]:
        for one in found:
            if isinstance(one, GapOut):
                count = one.last - one.first + 1
                yield JournalGap(0, stream_id, one.first, one.last, count, EPOCH, one.reason, 0)
            elif isinstance(one, BeginOut):
                yield JournalBegin(0, stream_id, one.first, one.floor, EPOCH, 0)
            else:
                flags = (
                    FLAGS["aggregate"] * one.aggregate
                    | FLAGS["sparse"] * one.sparse
                    | FLAGS["late"] * one.late
                )
                yield trade(0, stream_id, one.trade_id, one.count, one.units, made_at[one.trade_id], flags)

    away_from, away_to = sorted(rng.choices(range(2 * len(market.events) + 1), k=2))
    for place, event in enumerate(market.events):
        if place == away_from:
            oracle.drop()
        if place == away_to:
            oracle.carry()
        if away_from <= place < away_to:
            continue
        now = event.arrival * 10**6
        while due := sorted(deadline for deadline in oracle.deadlines() if deadline <= now):
            yield from out(oracle.expire(due[0]))
        price, made = price_of(event.made), time_of(event.made)
        yield from out(oracle.take(event.single, event.first, event.last, event.units, price, made, now)[1])
    while due := oracle.deadlines():
        yield from out(oracle.expire(min(due)))


def make_world(rng: random.Random) -> World:
    world = World()
    lines = [list(records_of(rng, stream_id, world)) for stream_id in STREAMS]
    while any(lines):
        record = rng.choice([line for line in lines if line]).pop(0)
        world.journal.append(record._replace(seq=len(world.journal) + 1))
    for record in world.journal:
        for number in missing_ids(record):
            known = world.ledger[record.stream_id].get(number)
            seq = len(world.repairs) + 1
            if known is None or rng.random() < 0.2:
                reason, why = REASONS["unfillable"], rng.choice(list(UNFILLABLE_TEXTS))
                lost = JournalGap(seq, record.stream_id, number, number, 1, EPOCH, reason, why)
                world.repairs.append(lost)
            elif rng.random() < 0.8:
                made = (known[1] - EPOCH) // 20_000_000
                repair = trade(seq, record.stream_id, number, 1, known[0], made, FLAGS["repair"])
                world.repairs.append(repair)
    return world


def missing_ids(record: Record) -> range:
    """What a record says to be missing."""
    if isinstance(record, JournalGap):
        return range(record.first_id, record.last_id + 1)
    if isinstance(record, JournalBegin):
        return range(record.floor_id, record.first_id)
    return range(0)


def sink_of(folder: Path, history: SqliteHistory) -> HistorySink:
    stats = Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS)
    return HistorySink(folder, stats, 0.0, history, lambda stream_id: PRECISION)


def run_sink(rng: random.Random, world: World, folder: Path, history: SqliteHistory) -> None:
    """Random batches and crashes until all is stored."""
    journals = {"journal": world.journal, "repairs": world.repairs}
    crashes = 4
    while True:
        sink = sink_of(folder, history)
        places = {name: sink.open().get(name, 1) for name in journals}
        if rng.random() < 0.5:
            places = {name: rng.randint(1, place) for name, place in places.items()}
        while True:
            for name in rng.choice([["journal"], ["repairs"], ["journal", "repairs"]]):
                found = journals[name][places[name] - 1 :][: rng.choice([1, 3, 20, 200])]
                sink.take(name, found)
                places[name] += len(found)
            if rng.random() < 0.05 and crashes:
                crashes -= 1
                break
            if rng.random() < 0.7 or all(places[name] > len(journals[name]) for name in journals):
                sink.commit(dict(places))
                if all(places[name] > len(journals[name]) for name in journals):
                    return


def expected_bars(trades: dict[int, tuple[int, int, float]]) -> list[Bar]:
    minutes: dict[int, list[int]] = {}
    for number in sorted(trades):
        minutes.setdefault(trades[number][1] // MINUTE_NS * MINUTE_NS, []).append(number)
    bars = []
    for start, ids in sorted(minutes.items()):
        prices = [trades[number][2] for number in ids]
        volume = float(sum(Decimal(trades[number][0]) for number in ids) / 10**PRECISION)
        bars.append(Bar(start, prices[0], max(prices), min(prices), prices[-1], volume, len(ids)))
    return bars


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_stored_is_what_was_traded(seed: int) -> None:
    rng = random.Random(seed)
    world = make_world(rng)
    with tempfile.TemporaryDirectory() as folder:
        history = SqliteHistory(Path(folder) / "history.sqlite", HistoryConfig(), write=True)
        try:
            run_sink(rng, world, Path(folder), history)
            for stream_id in STREAMS:
                check(world, history, stream_id)
            assert history.places() == {
                "journal": len(world.journal) + 1,
                "repairs": len(world.repairs) + 1,
            }
        finally:
            history.close()


def check(world: World, history: SqliteHistory, stream_id: int) -> None:
    records = [record for record in (*world.journal, *world.repairs) if record.stream_id == stream_id]
    # A trade just below a symbol's first one may come late by the live lines, and from a repair.
    trades = {record.trade_id: record for record in records if isinstance(record, JournalTrade)}
    ticks = list(history.ticks(stream_id, 0, FOR_EVER))
    assert sorted(tick.trade_id for tick in ticks) == sorted(trades)
    assert sum(tick.trade_count for tick in ticks) == sum(record.trade_count for record in trades.values())
    stored = {
        number for first, last in history.covered().get(stream_id, []) for number in range(first, last + 1)
    }
    assert len(stored) == sum(record.trade_count for record in trades.values())
    gaps = history.gaps(stream_id)
    missing = {number for gap in gaps for number in range(gap.first_id, gap.last_id + 1)}
    told = {number for record in records for number in missing_ids(record)}
    assert missing == told - stored
    given_up = {
        record.first_id: UNFILLABLE_TEXTS[record.flags]
        for record in records
        if isinstance(record, JournalGap) and record.reason == REASONS["unfillable"]
    }
    assert {number: gap.unfillable for gap in gaps for number in range(gap.first_id, gap.last_id + 1)} == {
        number: given_up.get(number, "") for number in missing
    }
    ledger = world.ledger[stream_id]
    assert stored <= ledger.keys()
    bars = history.bars(stream_id, "1m", 0, FOR_EVER)
    assert bars == expected_bars({number: ledger[number] for number in stored})
