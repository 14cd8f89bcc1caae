"""The table between processes: no reader sees half a row, a killed writer loses and repeats nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.table_writer import BASE_NS, PRECISION, STREAM_ID, units_of
from tests.reference.journal_ids import Coverage
from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import TableReader, TableRow
from tradeback.errors import DataFolderError, StaleRowError

READS = 200_000


@contextmanager
def writer(path: Path, journal: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running writer that has published; killed at the end."""
    command = [sys.executable, "-m", "tests.chaos.table_writer", str(path), str(journal)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"published\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def check_row(row: TableRow) -> int:
    """Every field of the row must be of the same moment. Returns the last id."""
    last = row.last_id
    assert last is not None
    assert (row.price, row.quantity) == (last, units_of(last) / 10**PRECISION)
    assert (row.ts_event, row.ts_recv) == (BASE_NS + last, BASE_NS + 2 * last)
    assert row.cum_units == row.day_units
    # The fourth of ten is missing for as long as the fifth is the last.
    assert row.open_ranges == (last % 10 == 4 and row.cum_units == sum_to(last) - units_of(last - 1))
    assert row.bid == row.ask == row.bid_quantity == row.ask_quantity == row.quote_id == row.quote_ts_recv
    return last


_sums = [0]


def sum_to(last: int) -> int:
    """Units of the trades 1000..last."""
    while len(_sums) <= last - 999:
        _sums.append(_sums[-1] + units_of(999 + len(_sums)))
    return _sums[last - 999]


def test_a_reader_never_sees_half_a_row(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with writer(path, tmp_path / "journal") as process:
        reader = TableReader.open(str(path))
        assert reader.writer_pid == process.pid
        seen = set()
        newest = reads = 0
        deadline = time.monotonic() + 60
        # Until both have run side by side, or nothing would be shown.
        while reads < READS or len(seen) <= 10:
            assert time.monotonic() < deadline
            reads += 1
            try:
                row = reader.read(STREAM_ID)
            except StaleRowError:
                # The writer was off its core for a tenth of a second: no answer, but no wrong one.
                continue
            assert row is not None
            last = check_row(row)
            assert last >= newest
            newest = last
            seen.add(last)
        with pytest.raises(DataFolderError, match=f"process {process.pid}"):
            SymbolTable.open(str(path), "sim")
        reader.close()


def test_a_killed_writer_loses_and_repeats_nothing(tmp_path: Path) -> None:
    path, journal = tmp_path / "table", tmp_path / "journal"
    rng = random.Random(7)
    for _ in range(5):
        with writer(path, journal):
            # The moment of the kill is what varies; nothing is waited for.
            time.sleep(rng.random() / 50)
        coverage = Coverage(precision=PRECISION)
        data = journal.read_bytes()
        assert len(data) % 64 == 0
        for at in range(0, len(data), 64):
            coverage.add(data[at : at + 64])
        table = SymbolTable.open(str(path), "sim")
        slot = table.add("TORTURE", STREAM_ID, PRECISION)
        begin = table.replay_from(0, len(data) // 64)
        assert len(data) // 64 - begin <= 1 or table.torn_stream_ids
        table.replay(data[begin * 64 :], begin)
        state = table.state(slot)
        assert state["next_id"] == max(coverage.traded) + 1
        assert state["cum_units"] == coverage.units == sum(map(units_of, coverage.traded))
        open_ids = {i for first, last in state["open"] for i in range(first, last + 1)}  # type: ignore[attr-defined]
        whole = set(range(1000, max(coverage.traded) + 1))
        assert open_ids == whole - coverage.traded - coverage.gaps
        table.close()
