"""The journal in one process: writing, rolling over, reading, and what `open` finds after a crash."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from pathlib import Path

import pytest

from tests.reference.journal import crc32c, read_journal
from tradeback._fast.journal import (
    JournalBegin,
    JournalCursor,
    JournalGap,
    JournalOther,
    JournalStart,
    JournalTrade,
    JournalWriter,
)
from tradeback._fast.segment import HEADER_FORMAT, checksum, checksum_by_table
from tradeback.errors import DataFolderError

TEN_RECORDS = 4096 + 10 * 64
COMMITTED_AT = 128


def opened(folder: Path, segment_bytes: int = TEN_RECORDS, retention_bytes: int = 1 << 30) -> JournalWriter:
    return JournalWriter.open(folder, "sim/main", segment_bytes, retention_bytes)


def append(writer: JournalWriter, count: int) -> None:
    """Trades whose id is their sequence number; segments are reserved as needed."""
    for _ in range(count):
        if writer.needs_prepare:
            writer.prepare()
        seq = writer.next_seq
        assert writer.append_trade(stream_id=7, price=1.5, qty=0.25, trade_id=seq, ts_event=seq * 1000) == seq


def segment(folder: Path, first_seq: int) -> Path:
    return folder / f"{first_seq:020d}.segment"


def poke(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def seqs(cursor: JournalCursor) -> list[int]:
    return [record.seq for record in cursor]


def test_the_checksum_is_crc_32c_with_and_without_the_instruction() -> None:
    assert checksum(b"123456789") == checksum_by_table(b"123456789") == crc32c(b"123456789") == 0xE3069283
    for size in range(70):
        data = os.urandom(size)
        assert checksum(data) == checksum_by_table(data) == crc32c(data)


def test_a_cursor_opened_first_follows_the_writer_over_segments_and_a_restart(tmp_path: Path) -> None:
    with JournalCursor.open(tmp_path / "journal") as cursor:
        assert cursor.read() == []
        with opened(tmp_path / "journal") as writer:
            append(writer, 25)
            assert seqs(cursor) == list(range(1, 26))
        with opened(tmp_path / "journal") as writer:
            assert (writer.next_seq, writer.cut, writer.damaged, writer.skipped) == (26, 0, 0, 0)
            append(writer, 9)
            assert seqs(cursor) == list(range(26, 35))
            assert (cursor.damaged, cursor.skipped) == (0, 0)


def test_the_file_is_what_the_reference_reads(tmp_path: Path) -> None:
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        append(writer, 25)
        found = {}
        while cursor.available():
            first, data = cursor.read_bytes(7)
            found |= {first + i: data[i * 64 : i * 64 + 64] for i in range(len(data) // 64)}
        assert found == read_journal(tmp_path)
        assert len(found) == 25


def test_each_kind_of_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        writer.append_start(5)
        writer.append_trade(
            stream_id=65535,
            price=0.1,
            qty=1e-8,
            trade_id=2**64 - 1,
            ts_event=-1,
            trade_count=3,
            bid=0.09,
            ask=0.11,
            recv_offset_us=-7,
            flags=5,
        )
        writer.append_gap(stream_id=7, first_id=30, last_id=34, ts_event=6, reason=1)
        writer.append_begin(stream_id=8, first_id=40, floor_id=35, ts_event=7)
        record = bytes(58) + b"\x63" + bytes(5)
        assert writer.append_bytes(record) == 5
        start, trade, gap, begin, other = cursor.read()
        assert start == JournalStart(seq=1, ts_event=5)
        assert trade == JournalTrade(2, 65535, 2**64 - 1, 3, 0.1, 1e-8, 0.09, 0.11, -1, -7, 5)
        assert gap == JournalGap(3, 7, 30, 34, 5, 6, 1, 0)
        assert begin == JournalBegin(4, 8, 40, 35, 7, 0)
        assert isinstance(other, JournalOther)
        assert (other.kind, other.data[:60]) == (0x63, record[:60])
        for wrong in (b"", bytes(64), bytes(63), b"\x01" * 65):
            with pytest.raises(ValueError, match=r"give 64 and a kind above 0"):
                writer.append_bytes(wrong)


def test_without_a_next_segment_append_refuses_and_goes_on_after_prepare(tmp_path: Path) -> None:
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        for seq in range(1, 11):
            assert writer.append_start(seq) == seq
        for _ in range(3):
            with pytest.raises(DataFolderError, match=r"no room: call prepare"):
                writer.append_start(0)
        assert writer.needs_prepare
        writer.prepare()
        assert not writer.needs_prepare
        assert writer.append_start(11) == 11
        assert seqs(cursor) == list(range(1, 12))


def test_a_journal_that_ended_full_has_room_when_it_is_opened(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        for seq in range(1, 11):
            writer.append_start(seq)
    with opened(tmp_path) as writer:
        assert writer.append_start(11) == 11


def test_nothing_can_be_appended_after_close(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    append(writer, 3)
    writer.close()
    writer.close()
    with pytest.raises(DataFolderError, match=r"no room"):
        writer.append_start(0)
    assert writer.prepare() == ((), ())


def test_appending_goes_on_while_another_thread_prepares(tmp_path: Path) -> None:
    ended = threading.Event()
    failures: list[BaseException] = []
    total = 20_000

    def prepare(writer: JournalWriter) -> None:
        try:
            while not ended.is_set():
                if writer.needs_prepare:
                    writer.prepare()
        except BaseException as error:
            failures.append(error)
            raise

    with opened(tmp_path, 4096 + 100 * 64) as writer, JournalCursor.open(tmp_path) as cursor:
        thread = threading.Thread(target=prepare, args=(writer,))
        thread.start()
        record = bytes(58) + b"\x63" + bytes(5)
        found = 0
        try:
            while writer.next_seq <= total:
                try:
                    writer.append_bytes(record)
                except DataFolderError:
                    cursor.wait(0.001)
                for seq in seqs(cursor):
                    found += 1
                    assert seq == found
        finally:
            ended.set()
            thread.join()
    assert not failures
    assert found == total


def test_a_cursor_starts_where_it_is_told(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 15)
        for start, first in (("oldest", 1), (12, 12), ("newest", None), (19, None)):
            with JournalCursor.open(tmp_path, start=start) as cursor:
                assert next(iter(seqs(cursor)), None) == first
                append(writer, 1)
                assert seqs(cursor)[-1] == writer.next_seq - 1
        for start in ("now", 0, -1, 1.5):
            with pytest.raises(ValueError, match=r"give oldest, newest or a number above 0"):
                JournalCursor.open(tmp_path, start=start)  # type: ignore[arg-type]


def test_waiting_ends_with_a_record_or_with_the_time(tmp_path: Path) -> None:
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        assert not cursor.wait(0)
        assert not cursor.wait(0.02)
        timer = threading.Timer(0.02, append, (writer, 1))
        timer.start()
        assert cursor.wait(float("inf"))
        timer.join()
        assert cursor.read()[0].seq == 1


# ---- what a crash leaves


def test_a_whole_record_that_was_not_counted_is_kept(tmp_path: Path) -> None:
    """Killed between writing the record and publishing it."""
    with opened(tmp_path) as writer:
        append(writer, 5)
    poke(segment(tmp_path, 1), COMMITTED_AT, struct.pack("<Q", 4))
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        assert (writer.next_seq, writer.cut, writer.skipped) == (6, 0, 0)
        assert seqs(cursor) == [1, 2, 3, 4, 5]


def test_a_torn_record_behind_the_count_is_cut_off_and_never_comes_back(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 7)
    whole = segment(tmp_path, 1).read_bytes()
    with opened(tmp_path / "other") as writer:
        append(writer, 5)
    # Record 6 is torn, and 7 is there whole but for its last byte, which comes only later.
    poke(segment(tmp_path / "other", 1), 4096 + 5 * 64, whole[4096 + 5 * 64 :][:40])
    poke(segment(tmp_path / "other", 1), 4096 + 6 * 64, whole[4096 + 6 * 64 :][:63])
    with opened(tmp_path / "other") as writer:
        assert writer.next_seq == 6
        append(writer, 1)
    poke(segment(tmp_path / "other", 1), 4096 + 6 * 64 + 63, whole[4096 + 6 * 64 + 63 :][:1])
    with opened(tmp_path / "other") as writer, JournalCursor.open(tmp_path / "other") as cursor:
        assert writer.next_seq == 7
        assert seqs(cursor) == [1, 2, 3, 4, 5, 6]


def test_numbers_whose_records_a_machine_crash_took_are_not_given_again(tmp_path: Path) -> None:
    """The counter reached the disk and the last page of records did not."""
    with opened(tmp_path) as writer:
        append(writer, 8)
        writer.prepare()
    poke(segment(tmp_path, 1), 4096 + 5 * 64, bytes(3 * 64))
    with JournalCursor.open(tmp_path, start=7) as early:
        with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
            assert (writer.next_seq, writer.cut, writer.skipped) == (9, 3, 3)
            append(writer, 14)
            assert seqs(cursor) == [*range(1, 6), *range(9, 23)]
            assert (cursor.skipped, cursor.damaged) == (3, 0)
            assert seqs(early) == list(range(9, 23))
        with opened(tmp_path) as writer:
            assert (writer.next_seq, writer.skipped) == (23, 0)


def test_the_numbers_go_on_above_every_durable_cursor(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 8)
    with JournalCursor.open(tmp_path, "sink", start=30) as cursor:
        cursor.save()
    with opened(tmp_path) as writer:
        assert (writer.next_seq, writer.skipped) == (30, 21)
        append(writer, 1)
    # And when a kill comes after the new segment was made and before the old one was sealed.
    poke(segment(tmp_path, 1), COMMITTED_AT + 8, bytes(8))
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        assert writer.next_seq == 31
        assert seqs(cursor) == [*range(1, 9), 30]


def test_a_kill_between_the_new_segment_and_the_seal_of_the_old_one_is_mended(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 8)
    poke(segment(tmp_path, 1), 4096 + 5 * 64, bytes(3 * 64))
    opened(tmp_path).close()
    poke(segment(tmp_path, 1), COMMITTED_AT, struct.pack("<QQ", 8, 0))
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        assert writer.next_seq == 9
        append(writer, 1)
        assert seqs(cursor) == [1, 2, 3, 4, 5, 9]


def test_a_counter_that_the_disk_never_saw_is_told_by_the_segment_after(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 12)
    poke(segment(tmp_path, 1), COMMITTED_AT, bytes(8))
    poke(segment(tmp_path, 11), COMMITTED_AT, bytes(8))
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        assert writer.next_seq == 13
        assert seqs(cursor) == list(range(1, 13))


def test_a_damaged_record_is_passed_over_and_counted(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 15)
    poke(segment(tmp_path, 1), 4096 + 3 * 64 + 9, b"\xff")
    poke(segment(tmp_path, 11), 4096 + 1 * 64 + 9, b"\xff")
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        assert writer.damaged == 1
        assert seqs(cursor) == [seq for seq in range(1, 16) if seq not in (4, 12)]
        assert cursor.damaged == 2


def test_an_absurd_counter_leads_nobody_outside_the_file(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 5)
    poke(segment(tmp_path, 1), COMMITTED_AT, b"\xff" * 8)
    with JournalCursor.open(tmp_path) as cursor:
        assert seqs(cursor) == [1, 2, 3, 4, 5]
    with opened(tmp_path) as writer:
        assert writer.next_seq == 11


def test_a_reservation_that_a_kill_cut_short_is_cleared_away(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 5)
    left = tmp_path / f"{11:020d}.segment.new"
    left.write_bytes(b"half")
    with opened(tmp_path) as writer:
        assert not left.exists()
        append(writer, 10)


# ---- what is refused, and what the sentence says


def test_a_second_writer_is_told_who_holds_the_journal(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(DataFolderError, match=rf"written by process {os.getpid()}: stop"):
        opened(tmp_path)
    opened(tmp_path).close()


def test_another_exchanges_journal_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(
        DataFolderError, match=r"belongs to the journal of 'sim/main', and this is 'binance/main'"
    ):
        JournalWriter.open(tmp_path, "binance/main")


def rewrite_version(path: Path) -> None:
    size = struct.calcsize(HEADER_FORMAT)
    fixed = bytearray(path.read_bytes()[:size])
    fixed[8] = 2
    poke(path, 0, bytes(fixed) + struct.pack("<I", crc32c(bytes(fixed))))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (
            lambda path: path.write_bytes(b"SQLite format 3\0" * 1000),
            "is no segment of a journal: move it out",
        ),
        (lambda path: path.write_bytes(b""), "is no segment of a journal: move it out"),
        (rewrite_version, "has version 2 .* knows 1: run the program that wrote it"),
        (lambda path: poke(path, 80, b"\xff"), "has a damaged header: move it out"),
        (
            lambda path: os.truncate(path, 4096 + 5 * 64),
            "was cut to 4416 bytes and should have 4736: move it out",
        ),
        (
            lambda path: path.unlink(),
            "the segment that should follow .*001.segment is missing.* restore it, or move",
        ),
        (
            lambda path: path.rename(path.with_name(f"{12:020d}.segment")),
            "was renamed, .* name it 0*11.segment",
        ),
    ],
)
def test_a_segment_in_the_middle_that_cannot_be_is_named_with_the_remedy_and_nothing_is_lost(
    tmp_path: Path, harm: object, sentence: str
) -> None:
    with opened(tmp_path) as writer:
        append(writer, 25)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.segment")}
    assert callable(harm)
    harm(segment(tmp_path, 11))
    with pytest.raises(DataFolderError, match=sentence):
        opened(tmp_path)
    with JournalCursor.open(tmp_path) as cursor:
        assert seqs_until_error(cursor)[:10] == list(range(1, 11))
    for first in (1, 21):
        assert segment(tmp_path, first).read_bytes() == before[segment(tmp_path, first).name]
    # The remedy that every sentence offers: what is older goes too, and the rest is a journal.
    for path in tmp_path.glob("*.segment"):
        if path.name < segment(tmp_path, 21).name:
            path.unlink()
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path) as cursor:
        assert writer.next_seq == 26
        assert seqs(cursor) == [21, 22, 23, 24, 25]


def seqs_until_error(cursor: JournalCursor) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(DataFolderError):
        while records := cursor.read(1):
            found += [record.seq for record in records]
    return found


def test_segments_that_cannot_hold_a_record_and_names_too_long_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match=r"raise JOURNAL_SEGMENT_BYTES"):
        opened(tmp_path, 4096)
    with pytest.raises(DataFolderError, match=r"too long to name a journal"):
        JournalWriter.open(tmp_path, "x" * 64)
