"""The mapped file: who may open it, what is refused and with which words, what is mended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import LAYOUT, TableReader
from tradeback.errors import DataFolderError, StaleRowError

TRADE = 1


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A table with one traded symbol under stream id 40, closed."""
    path = str(tmp_path / "table")
    table = SymbolTable.open(path, "sim")
    table.add("X", 40, 3)
    table.take(TRADE, "X", 5, 5, price=2.5, mantissa=1500, scale=3, ts_event=86_400 * 10**9, recv_ns=77)
    table.publish_slot(0, 1)
    table.close()
    return path


def overwrite(path: str, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def row_at(stream_id: int) -> int:
    return LAYOUT["header_bytes"] + stream_id * LAYOUT["row_bytes"]


def test_a_row_as_others_read_it(path: str) -> None:
    reader = TableReader.open(path)
    row = reader.read(40)
    assert row is not None
    assert (row.stream_id, row.price, row.quantity, row.last_id) == (40, 2.5, 1.5, 5)
    assert (row.cum_units, row.day_units, row.day, row.day_volume) == (1500, 1500, 1, 1.5)
    assert (row.ts_event, row.ts_recv, row.quantity_precision) == (86_400 * 10**9, 77, 3)
    assert (row.bid, row.ask, row.quote_id, row.quote_ts_recv, row.open_ranges) == (0, 0, 0, 0, 0)
    assert (row.bid_quantity, row.ask_quantity) == (0, 0)
    assert "stream_id=40" in repr(row)
    with pytest.raises(AttributeError):
        row.price = 1.0  # type: ignore[misc]
    assert [reader.read(other) for other in (0, 41, 65535, 65536, -1, 2**70)] == [None] * 6
    assert (reader.exchange, reader.writer_pid, reader.replaced) == ("sim", 0, False)
    os.rename(path, path + ".old")
    assert reader.replaced
    reader.close()
    reader.close()
    with pytest.raises(DataFolderError, match="closed"):
        reader.read(40)


def test_the_file_is_sparse(path: str) -> None:
    assert os.stat(path).st_size == LAYOUT["file_bytes"]
    assert os.stat(path).st_blocks * 512 < 200_000


def test_one_writer_a_file(path: str) -> None:
    table = SymbolTable.open(path, "sim")
    with pytest.raises(DataFolderError, match=rf"{path}.*process {os.getpid()}.*DATA_DIR"):
        SymbolTable.open(path, "sim")
    reader = TableReader.open(path)
    assert reader.writer_pid == os.getpid()
    reader.close()
    table.close()
    SymbolTable.open(path, "sim").close()


@pytest.mark.parametrize("open_", [lambda path: SymbolTable.open(path, "sim"), TableReader.open])
@pytest.mark.parametrize(
    ("at", "data", "words"),
    [
        (0, b"SQLite format 3\0", "is no table"),
        (LAYOUT["version_offset"], b"\x63\0\0\0", "version 99.*knows 1"),
        (LAYOUT["version_offset"] + 4, b"\xff", "cannot be"),
        (24, b"\xff" * 64, "cannot be"),
    ],
)
def test_foreign_files_are_refused(path: str, open_: object, at: int, data: bytes, words: str) -> None:
    overwrite(path, at, data)
    with pytest.raises(DataFolderError, match=words + ".*move it away"):
        open_(path)  # type: ignore[operator]


@pytest.mark.parametrize("open_", [lambda path: SymbolTable.open(path, "sim"), TableReader.open])
@pytest.mark.parametrize(
    "size", [1, 100, 4096, 1_000_000, LAYOUT["file_bytes"] - 1, LAYOUT["file_bytes"] + 1]
)
def test_files_of_another_size_are_refused(path: str, open_: object, size: int) -> None:
    os.truncate(path, size)
    with pytest.raises(DataFolderError, match="move it away"):
        open_(path)  # type: ignore[operator]
    assert os.stat(path).st_size == size


def test_an_empty_file_and_an_empty_header_are_made_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    for size in (0, LAYOUT["file_bytes"]):
        with open(path, "wb") as file:
            file.truncate(size)
        with pytest.raises(DataFolderError):
            TableReader.open(path)
        SymbolTable.open(path, "sim").close()
        TableReader.open(path).close()


def test_a_table_of_another_exchange_is_refused(path: str) -> None:
    with pytest.raises(DataFolderError, match=r"'sim', not of 'binance'"):
        SymbolTable.open(path, "binance")
    SymbolTable.open(path, "sim").close()


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="start the server"):
        TableReader.open(str(tmp_path / "none"))
    with pytest.raises(DataFolderError, match=r"cannot open.*DATA_DIR"):
        SymbolTable.open(str(tmp_path / "none" / "table"), "sim")
    with pytest.raises(DataFolderError, match="cannot open"):
        SymbolTable.open(str(tmp_path), "sim")
    with pytest.raises(DataFolderError, match="at most 63"):
        SymbolTable.open(str(tmp_path / "table"), "x" * 64)
    with pytest.raises(TypeError):
        SymbolTable()
    with pytest.raises(TypeError):
        TableReader()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_what_is_no_file_is_refused() -> None:
    with pytest.raises(DataFolderError):
        SymbolTable.open("/dev/full", "sim")


def test_a_half_written_row_is_stale_to_readers_and_emptied_by_the_writer(path: str) -> None:
    with open(path, "rb") as file:
        file.seek(row_at(40))
        sequence = int.from_bytes(file.read(4), "little")
    overwrite(path, row_at(40), (sequence + 1).to_bytes(4, "little"))
    reader = TableReader.open(path)
    with pytest.raises(StaleRowError, match="stream id 40"):
        reader.read(40)
    table = SymbolTable.open(path, "sim")
    assert (table.torn_stream_ids, table.rebuild, table.replay_from(3, 9)) == ([40], False, 3)
    row = reader.read(40)
    assert row is not None
    assert (row.price, row.last_id, row.quantity_precision) == (0.0, None, 3)
    table.close()
    reader.close()


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (4, b"\x29\0"),  # another row's stream id
        (6, b"\x13"),  # a precision of 19
        (7, b"\x11"),  # 17 open ranges
        (7, b"\x01"),  # an open range that is above the last id
        (24, b"\xff" * 8),  # an id past the highest
    ],
)
def test_a_row_that_cannot_be_is_emptied(path: str, offset: int, data: bytes) -> None:
    overwrite(path, row_at(40) + offset, data)
    if data == b"\x01":
        ranges = (
            LAYOUT["header_bytes"] + LAYOUT["row_count"] * LAYOUT["row_bytes"] + 40 * LAYOUT["ranges_bytes"]
        )
        overwrite(path, ranges, (3).to_bytes(8, "little") + (5).to_bytes(8, "little"))
    table = SymbolTable.open(path, "sim")
    assert table.torn_stream_ids == [40]
    assert table.state(table.add("X", 40, 3))["next_id"] == 0
    table.close()


def test_a_crash_of_the_machine_empties_every_row(path: str) -> None:
    table = SymbolTable.open(path, "sim")
    del table  # without close, as after a kill
    table = SymbolTable.open(path, "sim")
    assert (table.rebuild, table.torn_stream_ids) == (False, [])
    del table
    overwrite(path, LAYOUT["boot_id_offset"], b"another boot")
    table = SymbolTable.open(path, "sim")
    assert (table.rebuild, table.torn_stream_ids, table.applied_seq) == (True, [40], 0)
    table.close()
    # Closed, the machine may go down.
    overwrite(path, LAYOUT["boot_id_offset"], b"another boot")
    table = SymbolTable.open(path, "sim")
    assert (table.rebuild, table.torn_stream_ids) == (False, [])
    table.close()
