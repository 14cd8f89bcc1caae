"""Random lives of a journal: appends, restarts, damage. Nothing wrong is read, nothing intact is lost."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.journal import HEADER, RECORD_BYTES, is_whole, read_journal
from tradeback._fast.journal import JournalCursor, JournalWriter
from tradeback.errors import DataFolderError

HEADER_BYTES = 4096
# Hundreds of journals, each synced many times: in memory where the machine has such a folder.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

segment_bytes = st.integers(1, 12).map(lambda records: HEADER_BYTES + RECORD_BYTES * records)
# Append so many, or close and open again (0).
lives = st.lists(st.integers(0, 20), min_size=1, max_size=12)
# Where in all the files together, counted in bytes and modulo their size, and which bit.
flips = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), max_size=4)


def live(folder: Path, size: int, steps: list[int]) -> dict[int, bytes]:
    """Appends; returns what was appended, crc left out, by number."""
    given_numbers: dict[int, bytes] = {}
    writer = JournalWriter.open(folder, "sim/main", size)
    for step in steps:
        if step == 0:
            writer.close()
            writer = JournalWriter.open(folder, "sim/main", size)
        for _ in range(step):
            if writer.needs_prepare:
                writer.prepare()
            record = (
                writer.next_seq.to_bytes(8, "little") + os.urandom(50) + b"\x63" + os.urandom(1) + bytes(4)
            )
            given_numbers[writer.append_bytes(record)] = record[:60]
    writer.close()
    return given_numbers


def read_all(folder: Path) -> dict[int, bytes]:
    """What a cursor gives, up to its end or to an error."""
    found: dict[int, bytes] = {}
    with JournalCursor.open(folder) as cursor:
        try:
            while cursor.available():
                seq, data = cursor.read_bytes(5)
                for place in range(len(data) // RECORD_BYTES):
                    assert seq + place not in found
                    found[seq + place] = data[place * RECORD_BYTES :][:60]
        except DataFolderError:
            return found
    return found


@given(segment_bytes, lives)
@settings(deadline=None)
def test_what_was_appended_is_read_in_order_and_once(size: int, steps: list[int]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as place:
        folder = Path(place)
        given_numbers = live(folder, size, steps)
        assert list(given_numbers) == list(range(1, sum(steps) + 1))
        assert read_all(folder) == given_numbers
        assert {seq: record[:60] for seq, record in read_journal(folder).items()} == given_numbers


@given(segment_bytes, segment_bytes, lives, flips)
@settings(max_examples=300, deadline=None)
def test_after_damage_what_is_read_is_right_and_what_is_intact_is_kept(
    size: int, later_size: int, steps: list[int], flipped: list[tuple[int, int]]
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as place:
        folder = Path(place)
        given_numbers = live(folder, size, steps)
        paths = sorted(folder.glob("*.segment"))
        for where, bit in flipped:
            where %= sum(path.stat().st_size for path in paths)
            for path in paths:
                if where < path.stat().st_size:
                    data = bytearray(path.read_bytes())
                    data[where] ^= 1 << bit
                    path.write_bytes(data)
                    break
                where -= path.stat().st_size
        before = read_all(folder)
        assert before.items() <= given_numbers.items()
        try:
            later = live(folder, later_size, [7, 0, 7])
        except DataFolderError:
            # A header that cannot be trusted: a person decides, and everything is left as it was.
            assert read_all(folder) == before
            return
        after = read_all(folder)
        assert after.items() <= (given_numbers | later).items()
        assert later.items() <= after.items()
        assert min(later) > max(given_numbers, default=0)
        intact = set(given_numbers) & set(whole_records(folder))
        assert intact <= set(after)


def whole_records(folder: Path) -> list[int]:
    """The numbers of all whole records in the files, counted or not."""
    found = []
    for path in folder.glob("*.segment"):
        data = path.read_bytes()
        first_seq, capacity = HEADER.unpack_from(data)[4:6]
        for place in range(capacity):
            record = data[HEADER_BYTES + place * RECORD_BYTES :][:RECORD_BYTES]
            if is_whole(record, first_seq + place):
                found.append(first_seq + place)
    return found


@given(segment_bytes, lives, st.integers(0, 1 << 20))
@settings(deadline=None)
def test_a_file_cut_short_is_refused_and_what_lies_before_it_is_read(
    size: int, steps: list[int], where: int
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as place:
        folder = Path(place)
        given_numbers = live(folder, size, steps)
        paths = sorted(folder.glob("*.segment"))
        path = paths[where % len(paths)]
        os.truncate(path, where % path.stat().st_size)
        first_seq = int(path.name[:20])
        expected = {seq: record for seq, record in given_numbers.items() if seq < first_seq}
        assert read_all(folder) == expected
        with pytest.raises(DataFolderError, match=re.escape(str(path))):
            JournalWriter.open(folder, "sim/main", size)
        assert read_all(folder) == expected
