"""Random markets on two faulty lines, and restarts: every id once or in a gap, quantities exact."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.reference.faulty_lines import LineEvent, Market, make_market
from tests.reference.journal_ids import Coverage
from tests.reference.table import SymbolOracle
from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import LAYOUT, TableReader

TRADE, AGG_TRADE = 1, 2
MS = 1_000_000
START_MS = 1_700_000_000_000
STREAM_ID = 77


@dataclass
class Server:
    """A table and its journal, driven as the server drives them; `crash` leaves the file as a kill does."""

    path: str
    journal: list[bytes] = field(default_factory=list)
    table: SymbolTable = field(init=False)
    slot: int = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.table = SymbolTable.open(self.path, "sim")
        self.slot = self.table.add("BTCUSDT", STREAM_ID, 8)
        begin = self.table.replay_from(0, len(self.journal))
        self.table.replay(b"".join(self.journal[begin:]), begin)

    def take(self, event: LineEvent, publish: bool = True) -> int:
        status, records = self.table.take(
            TRADE if event.single else AGG_TRADE,
            "BTCUSDT",
            event.first,
            event.last,
            mantissa=event.units,
            scale=8,
            ts_event=(START_MS + event.made) * MS,
            recv_ns=(START_MS + event.arrival) * MS,
            now_ns=(event.arrival + 1) * MS,
        )
        self.journal += records
        if publish:
            self.table.publish_slot(self.slot, len(self.journal))
        return status

    def expire(self, now_ms: int) -> None:
        while records := self.table.expired((now_ms + 1) * MS):
            self.journal += records
            self.table.publish_slot(self.slot, len(self.journal))

    def crash(self) -> None:
        del self.table

    def damage_row(self) -> None:
        """As if the kill had come in the middle of publishing: odd sequence number, half of the row new."""
        with open(self.path, "r+b") as file:
            at = LAYOUT["header_bytes"] + STREAM_ID * LAYOUT["row_bytes"]
            file.seek(at)
            sequence = int.from_bytes(file.read(4), "little")
            file.seek(at)
            file.write((sequence | 1).to_bytes(4, "little"))
            file.seek(at + 24)
            file.write(random.Random(0).randbytes(40))

    def crash_machine(self) -> None:
        """Another boot: what the pages held is not to be believed."""
        with open(self.path, "r+b") as file:
            file.seek(LAYOUT["boot_id_offset"])
            file.write(b"another boot")
            at = LAYOUT["header_bytes"] + STREAM_ID * LAYOUT["row_bytes"]
            file.seek(at + 24)
            file.write(bytes(40))


def check(server: Server, market: Market) -> Coverage:
    coverage = Coverage(precision=8)
    for record in server.journal:
        coverage.add(record)
    brought = {i for e in market.events for i in range(e.first, e.last + 1)}
    ids = coverage.traded | coverage.gaps
    assert ids == set(range(min(ids), max(ids) + 1))
    assert max(ids) == max(brought)
    assert len(coverage.begins) == 1
    assert coverage.units == sum(market.ledger[i] for i in coverage.traded)
    return coverage


@pytest.mark.parametrize("seed", range(30))
def test_every_id_once_or_in_a_gap(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    market = make_market(rng, 1500)
    server = Server(str(tmp_path / "table"))
    oracle = SymbolOracle()
    for event in market.events:
        if rng.random() < 0.5:
            server.expire(event.arrival)
            oracle.expire((event.arrival + 1) * MS)
        status = server.take(event)
        ts, now = (START_MS + event.made) * MS, (event.arrival + 1) * MS
        assert status == oracle.take(event.single, event.first, event.last, event.units, 1.0, ts, now)[0]
    for end in (10**9, 2 * 10**9):
        # An aggTrade that counts at the end can still open a range.
        server.expire(end)
        oracle.expire((end + 1) * MS)
    coverage = check(server, market)
    state = server.table.state(server.slot)
    assert state["cum_units"] == coverage.units == oracle.volume
    assert (state["open"], state["held"], server.table.deadline_ns) == ([], [], 0)
    reader = TableReader.open(server.path)
    row = reader.read(STREAM_ID)
    assert row is not None
    assert (row.last_id, row.cum_units, row.open_ranges) == (oracle.last, oracle.volume, 0)
    reader.close()
    server.table.close()


@pytest.mark.parametrize("seed", range(30))
def test_restarts_lose_nothing_and_repeat_nothing(seed: int, tmp_path: Path) -> None:
    rng = random.Random(1000 + seed)
    market = make_market(rng, 1500)
    server = Server(str(tmp_path / "table"))
    down_until = -1
    for event in market.events:
        if event.arrival < down_until:
            continue
        if rng.random() < 0.3:
            server.expire(event.arrival)
        restart = rng.random() < 0.01
        unpublished = restart and rng.random() < 0.5
        server.take(event, publish=not unpublished)
        if not restart:
            continue
        how = rng.choice(["close", "kill", "torn", "machine"])
        if how == "close" and not unpublished:
            server.table.close()
        server.crash()
        if how == "torn":
            server.damage_row()
        elif how == "machine":
            server.crash_machine()
        server.start()
        assert server.table.torn_stream_ids == ([STREAM_ID] if how in ("torn", "machine") else [])
        assert server.table.rebuild == (how == "machine")
        down_until = event.arrival + rng.choice([0, 10, 1000])
    server.expire(10**9)
    server.expire(2 * 10**9)
    coverage = Coverage(precision=8)
    for record in server.journal:
        coverage.add(record)
    ids = coverage.traded | coverage.gaps
    assert ids == set(range(min(ids), max(ids) + 1))
    assert coverage.units == sum(market.ledger[i] for i in coverage.traded)
    state = server.table.state(server.slot)
    assert state["cum_units"] == coverage.units
    assert state["next_id"] == max(ids) + 1
    server.table.close()


def test_an_end_before_the_replay_leaves_the_emptied_row_to_the_next_start(tmp_path: Path) -> None:
    server = Server(str(tmp_path / "table"))
    for id_ in (1, 2, 3):
        server.take(LineEvent(id_, 0.0, True, id_, id_, 5, id_))
    server.crash()
    server.damage_row()
    cut_short = SymbolTable.open(server.path, "sim")
    assert cut_short.torn_stream_ids == [STREAM_ID]
    cut_short.close()
    server.start()
    state = server.table.state(server.slot)
    assert (state["next_id"], state["cum_units"]) == (4, 15)
    server.table.close()
