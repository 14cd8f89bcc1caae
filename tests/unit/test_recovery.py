"""What a start makes of a table and a journal that do not say the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reference.journal_ids import Coverage
from tradeback._fast.journal import JournalWriter
from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import LAYOUT
from tradeback.model import Symbol, SymbolInfo
from tradeback.recovery import bring_up

TRADE = 1
SECOND = 10**9
KNOWN = [Symbol(SymbolInfo(name, "A", "B", True, 2, 3), number) for number, name in enumerate("XYZ", 40)]
NEVER_TRADED = "Z"


class Server:
    """A table and a journal in one folder, driven as the server drives them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "table"
        self.journal = JournalWriter.open(folder / "journal", "sim")
        self.covered = {symbol.name: Coverage(precision=3) for symbol in KNOWN}
        self.start()

    def start(self) -> None:
        self.table = SymbolTable.open(str(self.path), "sim")

    def trade(self, symbol: str, trade_id: int) -> None:
        """Let one trade come, and 250 ms pass behind it."""
        slot = self.table.add(symbol, {one.name: one.stream_id for one in KNOWN}[symbol], 3)
        self.table.carry(slot)
        _, records = self.table.take(
            TRADE, symbol, trade_id, trade_id, mantissa=1500, scale=3, ts_event=SECOND, recv_ns=7, now_ns=1
        )
        while expired := self.table.expired(10 * SECOND):
            records += expired
        for record in records:
            self.journal.append_bytes(record)
            self.covered[symbol].add(record)
        self.table.publish_slot(slot, self.journal.next_seq)

    def bring_up(self) -> None:
        bring_up(self.table, self.path, self.journal, KNOWN)

    def known(self, symbol: str) -> tuple[object, object]:
        """The id that it expects next, and the units that it counted."""
        state = self.table.state(self.table.find(symbol))
        return state["next_id"], state["cum_units"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.bring_up()
    for symbol, first in (("X", 100), ("Y", 500)):
        for trade_id in range(first, first + 3):
            server.trade(symbol, trade_id)
    yield server
    server.table.close()
    server.journal.close()


def test_a_lost_table_is_filled_from_the_journal_and_what_was_missed_is_a_gap(server: Server) -> None:
    before = server.known("X")
    server.table.close()
    os.unlink(server.path)
    server.start()
    server.bring_up()
    assert server.known("X") == before == (103, 4500)
    assert server.known("Y") == (503, 4500)
    assert server.table.unreplayed == 0
    server.trade("X", 105)
    covered = server.covered["X"]
    assert (len(covered.begins), covered.gaps) == (1, {103, 104})
    assert server.known("X") == (106, 6000)


def test_a_start_that_is_cut_short_leaves_the_filling_to_the_next(server: Server) -> None:
    server.table.close()
    os.unlink(server.path)
    server.start()
    server.table.add("X", 40, 3)  # and killed here
    del server.table
    server.start()
    assert not server.table.rebuild
    server.bring_up()
    assert server.known("X") == (103, 4500)
    assert server.known("Y") == (503, 4500)


def test_a_torn_row_is_filled_and_the_others_hold(server: Server) -> None:
    del server.table
    with open(server.path, "r+b") as file:
        at = LAYOUT["header_bytes"] + 40 * LAYOUT["row_bytes"]
        file.seek(at)
        sequence = int.from_bytes(file.read(4), "little")
        file.seek(at)
        file.write((sequence | 1).to_bytes(4, "little"))
    server.start()
    assert server.table.torn_stream_ids == [40]
    server.bring_up()
    assert server.known("X") == (103, 4500)
    assert server.known("Y") == (503, 4500)


def test_a_first_start_adds_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.bring_up()
    assert [server.table.find(symbol.name) for symbol in KNOWN] == [-1, -1, -1]
    server.table.close()
    server.journal.close()


def test_what_never_traded_begins_after_all(server: Server) -> None:
    server.table.close()
    os.unlink(server.path)
    server.start()
    server.bring_up()
    server.trade(NEVER_TRADED, 9)
    covered = server.covered[NEVER_TRADED]
    assert (covered.begins, covered.traded, covered.gaps) == ([(9, 0)], {9}, set())
