"""Durable cursors, retention, and folders that cannot be written: full, of another user, in the way."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, fill
from tests.unit.test_journal import TEN_RECORDS, append, opened, segment, seqs
from tradeback._fast.journal import JournalCursor, JournalWriter, drop_cursor, durable_places
from tradeback.errors import DataFolderError, PlaceLostError

FOUR_SEGMENTS = 4 * TEN_RECORDS


def firsts(folder: Path) -> list[int]:
    return [int(path.name[:20]) for path in sorted(folder.glob("*.segment"))]


def test_the_oldest_segments_go_first_and_a_reader_left_behind_is_told_where_to_go_on(tmp_path: Path) -> None:
    with opened(tmp_path, retention_bytes=FOUR_SEGMENTS) as writer, JournalCursor.open(tmp_path) as cursor:
        append(writer, 5)
        assert cursor.read(3)[-1].seq == 3
        append(writer, 90)
        assert firsts(tmp_path) == [71, 81, 91, 101]
        # The deleted segment is still mapped: it can be read to its end, and only then the place is lost.
        assert [record.seq for record in cursor.read()] == list(range(4, 11))
        for _ in range(2):
            with pytest.raises(PlaceLostError, match=r"record 11 is no longer .* the oldest is 71") as lost:
                cursor.read()
            assert lost.value.oldest_seq == 71
        cursor.seek(lost.value.oldest_seq)
        assert seqs(cursor) == list(range(71, 96))


def test_retention_waits_for_durable_cursors_up_to_its_hard_cap(tmp_path: Path) -> None:
    with opened(tmp_path, retention_bytes=FOUR_SEGMENTS) as writer:
        with JournalCursor.open(tmp_path, "sink") as cursor:
            append(writer, 45)
            assert firsts(tmp_path)[0] == 1
            assert cursor.read(25)[-1].seq == 25
            cursor.save()
            append(writer, 15)
            assert firsts(tmp_path)[0] == 21
        overrun = []
        for _ in range(20):
            overrun += writer.prepare().overrun
            for _ in range(5):
                writer.append_start(0)
        total = sum(path.stat().st_size for path in tmp_path.glob("*.segment"))
        assert total <= 2 * FOUR_SEGMENTS
        assert len(overrun) > 0
        assert "the cursor sink of the journal" in overrun[0]
        assert "stands at record 26" in overrun[0]
        with JournalCursor.open(tmp_path, "sink") as cursor, pytest.raises(PlaceLostError):
            cursor.read()
        assert drop_cursor(tmp_path, "sink")
        writer.prepare()
        append(writer, 20)
        assert len(firsts(tmp_path)) <= 4


def test_a_durable_cursor_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 15)
    with JournalCursor.open(tmp_path, "sink") as cursor:
        assert cursor.read(12)[-1].seq == 12
        cursor.save()
        cursor.read(2)
    assert durable_places(tmp_path) == {"sink": 13}
    with JournalCursor.open(tmp_path, "sink", start="newest") as cursor:
        assert seqs(cursor) == [13, 14, 15]


def test_a_cursor_that_is_in_use_is_neither_given_twice_nor_dropped(tmp_path: Path) -> None:
    with JournalCursor.open(tmp_path, "sink") as cursor:
        for attempt in (lambda: JournalCursor.open(tmp_path, "sink"), lambda: drop_cursor(tmp_path, "sink")):
            with pytest.raises(DataFolderError, match=rf"in use by process {os.getpid()}: stop that one"):
                attempt()
        assert cursor.read() == []
    assert drop_cursor(tmp_path, "sink")
    assert not drop_cursor(tmp_path, "sink")
    for name in ("", "../sink", ".sink", "a/b", "x" * 65):
        with pytest.raises(DataFolderError, match=r"cannot name a cursor"):
            JournalCursor.open(tmp_path, name)


def test_of_two_saved_places_the_last_whole_one_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        append(writer, 15)
    with JournalCursor.open(tmp_path, "sink") as cursor:
        for _ in range(3):
            cursor.read(4)
            cursor.save()
    path = tmp_path / "cursors" / "sink"
    whole = path.read_bytes()
    # Four saves, the first on opening: the last lies in the second slot.
    path.write_bytes(whole[:130] + b"\xff" + whole[131:])
    assert durable_places(tmp_path) == {"sink": 9}
    path.write_bytes(whole[:66] + b"\xff" + whole[67:130] + b"\xff" + whole[131:])
    assert durable_places(tmp_path) == {"sink": 0}
    path.write_bytes(b"no cursor")
    assert durable_places(tmp_path) == {"sink": 0}
    with pytest.raises(DataFolderError, match=r"is no saved place of a cursor.* delete it"):
        JournalCursor.open(tmp_path, "sink")
    path.write_bytes(b"")
    with JournalCursor.open(tmp_path, "sink") as cursor:
        assert seqs(cursor)[0] == 1


@pytest.fixture
def small_disk(mounted: Callable[[str], Path]) -> Path:
    return mounted("64k")


def test_a_cursor_is_dropped_though_the_disk_is_full(small_disk: Path) -> None:
    """Also one that was being made when the disk got full, or its process was killed."""
    JournalCursor.open(small_disk, "whole").close()
    (small_disk / "cursors" / "begun").touch()
    fill(small_disk / "ballast")
    for name in ("whole", "begun"):
        assert drop_cursor(small_disk, name)
    assert durable_places(small_disk) == {}


def test_a_full_disk_is_an_error_that_passes_when_there_is_room_again(small_disk: Path) -> None:
    journal = small_disk / "journal"
    with opened(journal, 4096 + 64 * 128) as writer, JournalCursor.open(journal) as cursor:
        append(writer, 100)
        ballast = small_disk / "ballast"
        fill(ballast)
        # The segment at hand and the one made ahead hold 256 records.
        for seq in range(101, 257):
            assert writer.append_start(0) == seq
        for _ in range(2):
            with pytest.raises(
                DataFolderError, match=r"No space left on device; free some space, or lower JOURNAL_"
            ):
                writer.prepare()
            assert writer.needs_prepare
            with pytest.raises(DataFolderError, match=r"no room"):
                writer.append_start(0)
        assert firsts(journal) == [1, 129]
        assert not list(journal.glob("*.new"))
        ballast.unlink()
        writer.prepare()
        append(writer, 10)
        assert seqs(cursor) == list(range(1, 267))


def test_a_full_disk_at_the_start_is_one_sentence(small_disk: Path) -> None:
    with pytest.raises(DataFolderError, match=r"No space left on device; free some space"):
        opened(small_disk / "journal", 1 << 20)


def test_a_limit_on_file_sizes_is_told(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(DataFolderError, match=r"ulimit -f"):
            opened(tmp_path, 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_of_another_user_is_told() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can try it as another user")
    # Not under pytest's folder, which no other user may enter.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        opened(Path(place)).close()
        script = f"""
import os
from tradeback._fast.journal import JournalCursor, JournalWriter
from tradeback.errors import DataFolderError
os.setuid(65534)
with JournalCursor.open({place!r}) as cursor:
    print(cursor.read())
try:
    JournalWriter.open({place!r}, "sim/main")
except DataFolderError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        assert "[]" in done.stdout
        assert "it belongs to root and this process runs as user 65534" in done.stdout


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    with pytest.raises(DataFolderError, match=r"File exists"):
        JournalWriter.open(tmp_path / "journal", "sim/main")


def test_a_writer_goes_on_after_all_segments_were_moved_away(tmp_path: Path) -> None:
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path, "sink") as cursor:
        append(writer, 8)
        cursor.read()
        cursor.save()
    segment(tmp_path, 1).unlink()
    segment(tmp_path, 11).unlink()
    with opened(tmp_path) as writer, JournalCursor.open(tmp_path, "sink") as cursor:
        append(writer, 2)
        assert seqs(cursor) == [9, 10]
