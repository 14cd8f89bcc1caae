from __future__ import annotations

from pathlib import Path

from tradeback._fast.journal import JournalCursor, JournalGap, JournalStart, JournalWriter
from tradeback._fast.segment import checksum, checksum_by_table

TEN_RECORDS = 4096 + 10 * 64


def trade(writer: JournalWriter, trade_id: int) -> int:
    return writer.append_trade(stream_id=7, price=1.5, qty=0.25, trade_id=trade_id, ts_event=trade_id * 1000)


def test_the_checksum_is_crc_32c_with_and_without_the_instruction() -> None:
    assert checksum(b"123456789") == checksum_by_table(b"123456789") == 0xE3069283


def test_a_cursor_opened_first_follows_the_writer_over_segments_and_a_restart(tmp_path: Path) -> None:
    with JournalCursor.open(tmp_path / "journal") as cursor:
        assert cursor.read() == []
        with JournalWriter.open(tmp_path / "journal", "sim/main", segment_bytes=TEN_RECORDS) as writer:
            for trade_id in range(25):
                assert trade(writer, trade_id) == trade_id + 1
                if writer.needs_prepare:
                    writer.prepare()
            assert [record.seq for record in cursor] == list(range(1, 26))
        with JournalWriter.open(tmp_path / "journal", "sim/main", segment_bytes=TEN_RECORDS) as writer:
            assert (writer.next_seq, writer.cut, writer.damaged, writer.skipped) == (26, 0, 0, 0)
            writer.append_start(5)
            writer.append_gap(stream_id=7, first_id=30, last_id=34, ts_event=6, reason=1)
            assert cursor.read() == [
                JournalStart(seq=26, ts_event=5),
                JournalGap(
                    seq=27,
                    stream_id=7,
                    first_id=30,
                    last_id=34,
                    trade_count=5,
                    ts_event=6,
                    reason=1,
                    flags=0,
                ),
            ]
