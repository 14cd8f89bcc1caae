"""Sinks over real journals and a real history: each on its own, from its own place, whatever happens to the others."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.waiting import await_true
from tradeback._fast.journal import JournalTrade, JournalWriter, Record, drop_cursor, durable_places
from tradeback._fast.record import FLAGS, REASONS
from tradeback._fast.stats import Stats
from tradeback.config import HistoryConfig
from tradeback.model import MINUTE_NS, RESOLUTIONS, Gap
from tradeback.recorder import history_sink, sinks
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.history_sink import HistorySink
from tradeback.recorder.sinks import AT_ONCE, Enough, Sink, drop_other_cursors, journal_end
from tradeback.store import history_file
from tradeback.store.history_sqlite import HISTORY_FILE, SqliteHistory

DAY = 1_700_000_000 * 10**9 // RESOLUTIONS["1d"] * RESOLUTIONS["1d"]
FOR_EVER = 2**63 - 1
TEN_RECORDS = 4096 + 10 * 64


class Collector(Sink):
    """Keeps what it commits: a sink whose store has no places of its own. It fails as often as it is told to."""

    def __init__(
        self, folder: Path, name: str = "indicators", failures: int = 0, enough: Enough = AT_ONCE
    ) -> None:
        stats = Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS)
        super().__init__(name, folder, stats, 0.0, enough)
        self.records: list[Record] = []
        self.batches: list[int] = []  # how many records each commit had
        self.failures = failures
        self._taken: list[Record] = []

    def open(self) -> None:
        self._taken = []

    def take(self, journal: str, records: list[Record]) -> None:
        self._taken += records

    def commit(self, places: Mapping[str, int]) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("its backend is away")
        self.records += self._taken
        self.batches.append(len(self._taken))
        self._taken = []


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    with JournalWriter.open(tmp_path / "journal", "sim") as journal:
        yield journal


@pytest.fixture
def repairs(tmp_path: Path) -> Iterator[JournalWriter]:
    with JournalWriter.open(tmp_path / "repairs", "sim") as journal:
        yield journal


@pytest.fixture
def history(tmp_path: Path) -> Iterator[SqliteHistory]:
    store = SqliteHistory(tmp_path / HISTORY_FILE, HistoryConfig(), write=True)
    try:
        yield store
    finally:
        store.close()


def sink_of(folder: Path, history: SqliteHistory, *, bars: bool = True) -> HistorySink:
    stats = Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS)
    return HistorySink(folder, stats, 0.0, history, lambda stream_id: 1, bars=bars)


@contextlib.contextmanager
def running(sink: Sink) -> Iterator[None]:
    sink.start()
    try:
        yield
    finally:
        sink.stop()


def append(writer: JournalWriter, ids: range, stream_id: int = 1, flags: int = 0) -> None:
    for number in ids:
        if writer.needs_prepare:
            writer.prepare()
        writer.append_trade(
            stream_id=stream_id,
            price=number / 4,
            qty=0.1,
            trade_id=number,
            ts_event=DAY + number,
            flags=flags,
        )


def limit_pages(history: SqliteHistory, room: int) -> None:
    """Let the history's file grow by so many pages and no further: to SQLite the disk is full then."""
    with history._file.writing() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + room}")


def await_stored(sink: Sink, folder: Path) -> None:
    await_true(
        lambda: all(
            sink.places.get(journal, 0) >= journal_end(folder / journal) for journal in ("journal", "repairs")
        )
    )


class EndsBehindItsLook(Collector):
    """Is asked to stop when it has just looked, and a record has come since."""

    append: Callable[[], None]

    def at_end(self) -> bool:
        if not self._stopping.is_set():
            self.append()
            self.ask_to_stop()
        return False


def test_what_came_since_the_last_look_is_stored_at_the_end(tmp_path: Path, writer: JournalWriter) -> None:
    sink = EndsBehindItsLook(tmp_path)
    sink.append = lambda: append(writer, range(1, 2))
    sink.start()
    sink.join()
    assert len(sink.records) == 1
    assert sink.places["journal"] == writer.next_seq


def test_a_sink_waits_for_the_journals_and_follows_the_server_over_its_restarts(tmp_path: Path) -> None:
    sink = Collector(tmp_path)
    with running(sink):
        await_true(lambda: sink.caught_up)
        for start in (1, 101):
            with JournalWriter.open(tmp_path / "journal", "sim") as writer:
                append(writer, range(start, start + 100))
                await_true(lambda: len(sink.records) >= start + 99)  # noqa: B023  called at once
    trades = [record.trade_id for record in sink.records if isinstance(record, JournalTrade)]
    assert trades == list(range(1, 201))


def test_a_stop_leaves_nothing_unstored(tmp_path: Path, writer: JournalWriter) -> None:
    for start in range(1, 1001, 100):
        append(writer, range(start, start + 100))
        sink = Collector(tmp_path)
        with running(sink):
            await_true(lambda: bool(sink.places))  # noqa: B023  called at once
        assert [record.seq for record in sink.records] == list(range(start, start + 100))


def test_a_sink_that_fails_goes_on_from_its_place_and_others_do_not_notice(
    tmp_path: Path, writer: JournalWriter, repairs: JournalWriter
) -> None:
    failing, healthy = Collector(tmp_path, "cache", failures=3), Collector(tmp_path)
    with running(failing), running(healthy):
        append(writer, range(1, 1001))
        append(repairs, range(2000, 2010))
        await_true(lambda: failing.errors > 0)
        await_stored(healthy, tmp_path)
        assert (healthy.errors, healthy.error) == (0, "")
        await_stored(failing, tmp_path)
        await_true(lambda: failing.error == "")
    assert failing.errors == 3
    for sink in (failing, healthy):
        assert sorted(record.trade_id for record in sink.records if isinstance(record, JournalTrade)) == [
            *range(1, 1001),
            *range(2000, 2010),
        ]


def test_a_batch_waits_until_it_is_large_enough_and_no_longer_than_it_may(
    tmp_path: Path, writer: JournalWriter
) -> None:
    append(writer, range(1, 2))
    sink = Collector(tmp_path, enough=Enough(1_000, 3_600.0))
    with running(sink):
        await_true(lambda: bool(sink._taken))
        append(writer, range(2, 1_200))
        await_true(lambda: sink.caught_up)
        append(writer, range(1_200, 1_203))
        await_true(lambda: sink._taken[-1:] != [] and sink._taken[-1].seq == 1_202)
    # What is there is stored at the end, whether or not it is enough.
    assert [record.seq for record in sink.records] == list(range(1, 1_203))
    assert sum(sink.batches) == 1_202
    assert sink.batches[0] >= 1_000
    append(writer, range(1_203, 1_204))
    sink = Collector(tmp_path, enough=Enough(1_000, 0.05))
    with running(sink):
        await_true(lambda: bool(sink.records))


def test_places_of_sinks_that_are_no_longer_configured_are_forgotten(tmp_path: Path) -> None:
    for name in ("indicators", "cache"):
        with running(Collector(tmp_path, name)):
            pass
    drop_other_cursors(tmp_path, {"indicators"})
    assert durable_places(tmp_path / "journal").keys() == {"indicators"}
    assert durable_places(tmp_path / "repairs").keys() == {"indicators"}


def test_a_locked_history_is_waited_for(
    tmp_path: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "LOCK_PATIENCE_S", 0.05)
    history = SqliteHistory(tmp_path / HISTORY_FILE, HistoryConfig(), write=True)
    sink, other = sink_of(tmp_path, history), Collector(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / HISTORY_FILE)) as rival, running(sink), running(other):
        await_true(lambda: sink.caught_up)
        rival.execute("BEGIN IMMEDIATE")
        append(writer, range(1, 101))
        await_true(lambda: sink.errors > 1)
        assert "locked" in sink.error
        await_stored(other, tmp_path)
        rival.rollback()
        await_stored(sink, tmp_path)
    assert history.covered() == {1: [(1, 100)]}
    assert len(list(history.ticks(1, 0, FOR_EVER))) == 100
    history.close()


def test_a_full_disk_is_waited_for(tmp_path: Path, writer: JournalWriter, history: SqliteHistory) -> None:
    sink = sink_of(tmp_path, history)
    with running(sink):
        await_true(lambda: sink.caught_up)
        limit_pages(history, 0)
        append(writer, range(1, 5001))
        await_true(lambda: sink.errors > 0)
        assert "full" in sink.error
        limit_pages(history, 1_000_000)
        await_stored(sink, tmp_path)
    assert history.covered() == {1: [(1, 5000)]}
    assert sink._stats.value("ticks") == sink._stats.value("trades") == 5000
    (bar,) = history.bars(1, "1m", 0, FOR_EVER)
    assert (bar.open, bar.close, bar.volume, bar.trade_count) == (0.25, 1250.0, 500.0, 5000)


def test_an_older_cursor_changes_nothing_and_a_store_that_was_lost_is_made_anew(
    tmp_path: Path, writer: JournalWriter, repairs: JournalWriter
) -> None:
    append(writer, range(1, 101))
    writer.append_gap(stream_id=1, first_id=101, last_id=110, ts_event=DAY, reason=1)
    append(writer, range(111, 121))
    append(repairs, range(101, 106), flags=FLAGS["repair"])

    def stored(path: Path) -> tuple[object, ...]:
        store = SqliteHistory(path, HistoryConfig(), write=True)
        try:
            sink = sink_of(tmp_path, store)
            with running(sink):
                await_stored(sink, tmp_path)
            ticks = list(store.ticks(1, 0, FOR_EVER))
            return ticks, store.bars(1, "1d", 0, FOR_EVER), store.covered(), store.gaps(), store.places()
        finally:
            store.close()

    once = stored(tmp_path / HISTORY_FILE)
    assert once[2:4] == ({1: [(1, 105), (111, 120)]}, [Gap(1, 106, 110, DAY, 1)])
    # Both cursors are gone, as where a journal was brought back from a backup: all is read again.
    for journal in ("journal", "repairs"):
        drop_cursor(tmp_path / journal, "history")
    assert stored(tmp_path / HISTORY_FILE) == once
    # The store is another one: the saved cursors say nothing about it.
    assert stored(tmp_path / "other.sqlite") == once


def test_a_sink_that_retention_overtook_goes_on_and_what_it_lost_becomes_a_gap(
    tmp_path: Path, history: SqliteHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_sink, "HOLE_PATIENCE", 0.02)
    with JournalWriter.open(tmp_path / "journal", "sim", TEN_RECORDS, 3 * TEN_RECORDS) as writer:
        append(writer, range(1, 6))
        sink = sink_of(tmp_path, history)
        with running(sink):
            await_stored(sink, tmp_path)
        append(writer, range(6, 201))
        sink = sink_of(tmp_path, history)
        woken = []
        sink.on_gaps = lambda _: woken.append(True)
        with running(sink):
            await_stored(sink, tmp_path)
            await_true(lambda: bool(woken))
    (gap,) = history.gaps(1)
    assert gap.reason == REASONS["lost"]
    assert gap.first_id == 6
    assert history.covered() == {1: [(1, 5), (gap.last_id + 1, 200)]}
    assert sink.errors == 0


def test_damaged_records_become_a_gap(
    tmp_path: Path, writer: JournalWriter, history: SqliteHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_sink, "HOLE_PATIENCE", 0.02)
    append(writer, range(1, 21))
    (segment,) = list((tmp_path / "journal").glob("*1.segment"))
    with segment.open("r+b") as file:
        file.seek(4096 + 9 * 64)
        file.write(b"\xff" * 128)
    sink = sink_of(tmp_path, history)
    with running(sink):
        await_stored(sink, tmp_path)
        await_true(lambda: bool(history.gaps(1)))
        assert [gap[:3] for gap in history.gaps(1)] == [(1, 10, 11)]
        # Whoever fetches it closes it, as any other.
        with JournalWriter.open(tmp_path / "repairs", "sim") as repairs:
            append(repairs, range(10, 12), flags=FLAGS["repair"])
            await_stored(sink, tmp_path)
    assert (history.covered(), history.gaps()) == ({1: [(1, 20)]}, [])


def test_a_day_of_tenths(tmp_path: Path, history: SqliteHistory) -> None:
    sink = sink_of(tmp_path, history)
    sink.open()
    second = 10**9
    trades: list[Record] = [
        JournalTrade(n + 1, 1, n + 1, 1, 2.5, 0.1, 0.0, 0.0, DAY + n * second, 0, 0) for n in range(86_400)
    ]
    for start in range(0, 86_400, 7_000):
        sink.take("journal", trades[start : start + 7_000])
        sink.commit({"journal": start + 7_001, "repairs": 1})
    minutes = history.bars(1, "1m", 0, FOR_EVER)
    assert [bar.open_time for bar in minutes] == [DAY + n * MINUTE_NS for n in range(1_440)]
    assert {bar.volume for bar in minutes} == {6.0}
    (day,) = history.bars(1, "1d", 0, FOR_EVER)
    assert (day.volume, day.trade_count) == (8640.0, 86_400)


def test_without_aggregation_there_are_no_bars(
    tmp_path: Path, writer: JournalWriter, history: SqliteHistory
) -> None:
    append(writer, range(1, 11))
    sink = sink_of(tmp_path, history, bars=False)
    with running(sink):
        await_stored(sink, tmp_path)
    assert len(list(history.ticks(1, 0, FOR_EVER))) == 10
    assert history.bars(1, "1m", 0, FOR_EVER) == []


def test_bars_that_are_made_again_have_the_trades_of_the_time_without(
    tmp_path: Path, writer: JournalWriter, history: SqliteHistory
) -> None:
    append(writer, range(1, 11))
    sink = sink_of(tmp_path, history, bars=False)
    with running(sink):
        await_stored(sink, tmp_path)
    append(writer, range(11, 21))
    sink = sink_of(tmp_path, history)
    with running(sink):
        await_stored(sink, tmp_path)
    (bar,) = history.bars(1, "1m", 0, FOR_EVER)
    assert (bar.open_time, bar.open, bar.close, bar.trade_count) == (DAY, 1 / 4, 20 / 4, 20)


def test_a_history_made_anew_reads_no_repair_before_what_was_journaled_before_it(
    tmp_path: Path,
    writer: JournalWriter,
    repairs: JournalWriter,
    history: SqliteHistory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sinks, "READ_RECORDS", 8)
    append(writer, range(1, 21))
    for missing in (21, 23):
        writer.append_gap(
            stream_id=1, first_id=missing, last_id=missing, ts_event=DAY, reason=REASONS["lost"]
        )
    append(writer, range(22, 25, 2))
    # One record for the ids 21 and 23 of an aggTrade; which they are tell the trades around.
    repairs.append_trade(
        stream_id=1,
        price=5.0,
        qty=0.2,
        trade_id=23,
        trade_count=2,
        ts_event=DAY + 23,
        flags=FLAGS["repair"] | FLAGS["aggregate"] | FLAGS["sparse"],
    )
    sink = sink_of(tmp_path, history)
    with running(sink):
        await_stored(sink, tmp_path)
    assert history.gaps() == []
    ticks = list(history.ticks(1, 0, FOR_EVER))
    assert [tick.trade_id for tick in ticks] == [*range(1, 21), 22, 23, 24]
    assert sum(tick.trade_count for tick in ticks) == 24
    (bar,) = history.bars(1, "1m", 0, FOR_EVER)
    assert (bar.volume, bar.trade_count) == (2.4, 24)
