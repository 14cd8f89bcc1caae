"""A recording, pushed into a data folder by the recorder, is in the journal trade by trade, once, and always alike."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.playback.replaying import catalog_in, gaps, records, replayed, symbols_in, trades
from tests.playback.test_ingest import RECORDINGS, exchange_told, journal_told, market_events
from tests.reference.faulty_lines import make_market
from tests.reference.journal_ids import Coverage
from tests.reference.recordings import EPOCH, line, market_lines, trade, write_lines
from tradeback._fast.journal import JournalCursor, JournalTrade, JournalWriter
from tradeback.config import JournalConfig
from tradeback.errors import DataFolderError

PRECISION = 3


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_is_journaled_as_it_is(recordings: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "sim"
    report = replayed(recordings / name, folder)
    events = market_events(recordings / name)
    names = symbols_in(folder)
    assert [(names[record.stream_id], journal_told(record)) for record in trades(folder)] == [
        (data["s"], exchange_told(data)) for _, _, data in events
    ]
    assert (report.journaled, report.faults, report.stopped) == (len(records(folder)), "", False)
    assert gaps(folder) == []


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_of_two_faulty_lines_depends_on_the_recording_alone(tmp_path: Path, seed: int) -> None:
    market = make_market(random.Random(seed), 1_500)
    path = write_lines(tmp_path / "faulty.jsonl", market_lines("AUSDT", market.events, PRECISION))
    once, again = tmp_path / "once" / "sim", tmp_path / "again" / "sim"
    replayed(path, once)
    replayed(path, again, JournalConfig())
    assert records(once) == records(again)
    seen = {id_ for event in market.events for id_ in range(event.first, event.last + 1)}
    coverage = Coverage(precision=PRECISION)
    for record in records(once):
        coverage.add(record + bytes(4))
    assert coverage.traded <= seen
    # Every id is traded or a gap, from the one that the recording began with to the last.
    assert len(coverage.begins) == 1
    assert coverage.missing() == set()
    whole = set(range(min(coverage.traded), max(seen) + 1))
    assert coverage.traded | coverage.gaps == whole
    if not coverage.gaps:
        assert coverage.units == sum(market.ledger[id_] for id_ in whole)


@pytest.mark.parametrize("name", RECORDINGS[:1])
def test_replaying_twice_changes_nothing(recordings: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "sim"
    first = replayed(recordings / name, folder)
    before = records(folder)
    second = replayed(recordings / name, folder)
    assert records(folder) == before
    assert (first.messages, second.journaled) == (second.messages, 0)


def test_one_that_was_stopped_goes_on_where_it_was(recordings: Path, tmp_path: Path) -> None:
    path = recordings / RECORDINGS[0]
    folder, whole = tmp_path / "sim", tmp_path / "whole" / "sim"
    stop = threading.Event()
    reads = 0

    def read_to() -> int:
        nonlocal reads
        reads += 1
        if reads > 3:
            stop.set()
        return 0

    # Nothing is read, and the journal is to keep but 2,048 records: the replay would wait for ever.
    little = JournalConfig(segment_bytes=64 << 10, retention_bytes=128 << 10)
    report = replayed(path, folder, little, stop=stop, read_to=read_to)
    assert report.stopped
    assert 0 < report.journaled <= 1_200
    replayed(path, folder)
    replayed(path, whole)
    assert records(folder) == records(whole)


def test_retention_never_overtakes_a_reader(tmp_path: Path) -> None:
    lines = [line(EPOCH + n / 100, trade("AUSDT", n, "1.5", "2", EPOCH + n / 100)) for n in range(1, 9_001)]
    path = write_lines(tmp_path / "long.jsonl", lines)
    little = JournalConfig(segment_bytes=64 << 10, retention_bytes=128 << 10)
    folder = tmp_path / "sim"
    catalog_in(folder).close()
    JournalWriter.open(folder / "journal", "sim", segment_bytes=64 << 10).close()
    ids: list[int] = []
    ended = threading.Event()
    place = [1]

    def follow() -> None:
        with JournalCursor.open(folder / "journal", "reader") as cursor:
            while cursor.available() or not ended.is_set():
                ids.extend(record.trade_id for record in cursor.read(97) if isinstance(record, JournalTrade))
                place[0] = cursor.seq
                cursor.save()

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    try:
        replayed(path, folder, little, read_to=lambda: place[0])
    finally:
        ended.set()
        reader.join()
    assert ids == list(range(1, 9_001))


def test_a_folder_on_which_a_server_runs_is_refused(recordings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sim"
    catalog_in(folder).close()
    with (
        JournalWriter.open(folder / "journal", "sim"),
        pytest.raises(DataFolderError, match="is being written by process"),
    ):
        replayed(recordings / RECORDINGS[2], folder)
    assert symbols_in(folder) == {}


def test_what_lies_between_two_recordings_is_no_gap_and_a_hole_in_one_is(tmp_path: Path) -> None:
    def part(name: str, ids: list[int]) -> Path:
        return write_lines(
            tmp_path / name, [line(EPOCH + n, trade("AUSDT", n, "1.5", "2", EPOCH + n)) for n in ids]
        )

    folder = tmp_path / "sim"
    replayed(part("a", [10, 11, 12]), folder)
    replayed(part("b", [40, 41, 45]), folder)
    replayed(part("c", [44, 45, 46]), folder)
    assert [record.trade_id for record in trades(folder)] == [10, 11, 12, 40, 41, 45, 46]
    assert gaps(folder) == [(1, 42, 44)]


def test_more_decimals_than_the_catalog_knows_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "sim"
    for trade_id, price, quantity in ((1, "1.50", "2.123"), (2, "1", "2.12345")):
        payload = trade("AUSDT", trade_id, price, quantity, EPOCH)
        replayed(write_lines(tmp_path / "a.jsonl", [line(EPOCH, payload)]), folder)
    with closing(catalog_in(folder)) as catalog:
        (info,) = (symbol.info for symbol in catalog.symbols())
    assert (info.price_precision, info.quantity_precision) == (1, 5)
    assert (info.base_currency, info.quote_currency, info.is_active) == ("A", "USDT", True)
