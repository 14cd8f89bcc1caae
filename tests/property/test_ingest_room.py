"""The journal has no room for a while: what was delivered meanwhile is journaled as gaps, each id once."""

from __future__ import annotations

import random
import struct
from collections import defaultdict
from pathlib import Path

import pytest

from tests.reference.faulty_lines import LineEvent, make_market
from tests.reference.journal_ids import KIND_AT, KIND_BEGIN, KIND_GAP, KIND_TRADE, Coverage
from tradeback._fast.fanout import FanOut
from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import JournalCursor, JournalWriter
from tradeback._fast.record import GAP_FORMAT
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable

MS = 1_000_000
START_MS = 1_700_000_000_000
SYMBOLS = ["AUSDT", "BUSDT", "CUSDT"]
PRECISION = 8
UNWRITTEN = 5
REASON = 6  # the field of a gap
SEGMENT_BYTES = 4096 + 64 * 40


class Server:
    """An Ingest on files, as the server opens them; `kill` leaves them as SIGKILL does."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self.journal = JournalWriter.open(
            folder / "journal", "sim", segment_bytes=segment_bytes, retention_bytes=1 << 30
        )
        self.stats = Stats.in_memory()
        self.table = SymbolTable.open(str(folder / "table"), "sim")
        for stream_id, symbol in enumerate(SYMBOLS, 1):
            self.table.add(symbol, stream_id, PRECISION)
        with JournalCursor.open(folder / "journal") as cursor:
            cursor.seek(self.table.replay_from(cursor.seq, self.journal.next_seq))
            while cursor.available():
                seq, records = cursor.read_bytes(1000)
                self.table.replay(records, seq)
        self.ingest = Ingest(self.table, self.journal, FanOut(self.table, self.stats), self.stats)

    def take(self, stream_id: int, event: LineEvent) -> None:
        made = START_MS + event.made
        kind, ids = (
            ("trade", f'"t":{event.first}')
            if event.single
            else ("aggTrade", f'"a":{event.first},"f":{event.first},"l":{event.last}')
        )
        symbol = SYMBOLS[stream_id - 1]
        quantity = f"{event.units // 10**PRECISION}.{event.units % 10**PRECISION:08d}"
        message = (
            f'{{"stream":"{symbol.lower()}@{kind}","data":{{"e":"{kind}","E":{made},"s":"{symbol}",{ids},'
            f'"p":"1.5","q":"{quantity}","T":{made},"m":true,"M":true}}}}'
        )
        took = self.ingest.take(message.encode(), (START_MS + event.arrival) * MS, (event.arrival + 1) * MS)
        assert took in (0, 3)
        if took == 3:
            raise AssertionError(f"not in the layout that the decoder predicts: {message}")

    def kill(self) -> None:
        # The lock goes, and nothing else is written.
        self.journal.close()
        self.stats.close()
        del self.ingest, self.table

    def close(self) -> None:
        self.journal.close()
        self.table.close()
        self.stats.close()


def coverage_of(folder: Path) -> tuple[dict[int, Coverage], set[int]]:
    """What the journal covers by stream id, and the reasons of its gaps."""
    coverage: dict[int, Coverage] = defaultdict(lambda: Coverage(precision=PRECISION))
    reasons = set()
    with JournalCursor.open(folder / "journal") as cursor:
        while cursor.available():
            _, records = cursor.read_bytes(1000)
            for at in range(0, len(records), 64):
                row = records[at : at + 64]
                if row[KIND_AT] in (KIND_TRADE, KIND_GAP, KIND_BEGIN):
                    coverage[int.from_bytes(row[56:58], "little")].add(row)
                if row[KIND_AT] == KIND_GAP:
                    reasons.add(struct.unpack(GAP_FORMAT, row)[REASON])
    return coverage, reasons


@pytest.mark.parametrize("kills", [False, True], ids=["running", "killed"])
@pytest.mark.parametrize("seed", range(30))
def test_every_id_is_journaled_once_whenever_there_is_room(seed: int, kills: bool, tmp_path: Path) -> None:
    rng = random.Random(seed)
    markets = [make_market(rng, 400) for _ in SYMBOLS]
    events = sorted((event, i) for i, market in enumerate(markets, 1) for event in market.events)
    server = Server(tmp_path)
    room = rng.choice([0.001, 0.004, 0.01])
    was_behind = False
    for event, stream_id in events:
        if rng.random() < 0.3:
            server.ingest.tick((event.arrival + 1) * MS)
        server.take(stream_id, event)
        was_behind |= server.ingest.unwritten_symbols > 0
        if rng.random() < room:
            server.journal.prepare()
        if kills and rng.random() < 0.005:
            server.kill()
            server = Server(tmp_path)
    for end in (10**9, 2 * 10**9, 3 * 10**9):
        server.ingest.tick(end * MS)
        while server.ingest.unwritten_symbols:
            server.journal.prepare()
            server.ingest.tick(end * MS)
    coverage, _ = coverage_of(tmp_path)
    assert was_behind
    for stream_id, market in enumerate(markets, 1):
        of = coverage[stream_id]
        ids = of.traded | of.gaps
        assert ids == set(range(min(ids), max(ids) + 1))
        assert of.units == sum(market.ledger[i] for i in of.traded)
        if not kills:
            assert ids == set(market.ledger) & ids
            assert max(ids) == max(event.last for event in market.events)
    server.close()


def at(first: int, last: int, arrival: int, *, single: bool = False) -> LineEvent:
    return LineEvent(arrival, 0.0, single, first, last, last - first + 1, arrival)


def test_a_sparse_record_without_room_is_a_gap_of_its_own_ids_alone(tmp_path: Path) -> None:
    """An aggTrade around a single that is journaled: the single's id is in no gap, and no other id is missed."""
    server = Server(tmp_path, segment_bytes=4096 + 64 * 3)
    server.take(1, at(9, 9, 0, single=True))
    server.take(1, at(12, 12, 1, single=True))
    server.take(1, at(10, 14, 2))
    server.ingest.tick(1000 * MS)
    assert server.ingest.unwritten_symbols == 1
    server.journal.prepare()
    server.ingest.tick(1001 * MS)
    assert server.ingest.unwritten_symbols == 0
    coverage, reasons = coverage_of(tmp_path)
    assert coverage[1].traded == {9, 12}
    assert coverage[1].gaps == {10, 11, 13, 14}
    assert reasons == {UNWRITTEN}
    server.close()


def test_a_symbol_that_begins_without_room_begins_in_the_journal_too(tmp_path: Path) -> None:
    """Also with the trade just below, which came after it."""
    server = Server(tmp_path, segment_bytes=4096 + 64 * 2)
    server.take(1, at(9, 9, 0, single=True))
    server.take(2, at(500, 500, 1, single=True))
    server.take(2, at(499, 499, 2, single=True))
    server.take(2, at(503, 503, 3, single=True))
    server.ingest.tick(1000 * MS)
    assert server.ingest.unwritten_symbols == 1
    server.journal.prepare()
    server.ingest.tick(1001 * MS)
    assert server.ingest.unwritten_symbols == 0
    coverage, reasons = coverage_of(tmp_path)
    assert coverage[2].begins == [(499, 0)]
    assert (coverage[2].traded, coverage[2].gaps) == (set(), {499, 500, 501, 502, 503})
    assert reasons == {UNWRITTEN}
    server.close()


def test_a_symbol_that_begins_anew_without_room_has_no_gap_before_it(tmp_path: Path) -> None:
    server = Server(tmp_path, segment_bytes=4096 + 64 * 2)
    server.take(1, at(9, 9, 0, single=True))
    server.table.drop(1)
    server.table.carry(0)
    server.take(1, at(700, 700, 1000, single=True))
    server.journal.prepare()
    server.ingest.tick(3000 * MS)
    coverage, _ = coverage_of(tmp_path)
    assert coverage[1].begins == [(9, 0), (700, 10)]
    assert (coverage[1].traded, coverage[1].gaps) == ({9}, {700})
    server.close()


def test_room_for_the_gap_alone_leaves_the_next_trade_behind_too(tmp_path: Path) -> None:
    """The mapped row must not show a trade that is not journaled, or a kill would lose it."""
    server = Server(tmp_path, segment_bytes=4096 + 64 * 1)
    server.journal.prepare()
    server.take(1, at(1, 1, 0, single=True))
    server.take(1, at(2, 2, 1, single=True))
    server.journal.prepare()
    server.take(1, at(3, 3, 2, single=True))
    server.kill()
    server = Server(tmp_path, segment_bytes=4096 + 64 * 50)
    server.journal.prepare()
    server.take(1, at(4, 4, 3, single=True))
    server.ingest.tick(10**9 * MS)
    coverage, _ = coverage_of(tmp_path)
    assert coverage[1].traded == {1, 4}
    assert coverage[1].gaps == {2, 3}
    server.close()
