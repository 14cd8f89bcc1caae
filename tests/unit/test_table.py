"""SymbolTable: names, slots, volumes, quotes, what waits, and what a restart finds."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tradeback._fast.record import BEGIN_FORMAT, GAP_FORMAT, JOURNAL_FORMAT
from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import TableReader

TRADE, AGG_TRADE, QUOTE = 1, 2, 3
FRESH, DUPLICATE, STALE, HELD, UNKNOWN, REFUSED = range(6)
MS = 1_000_000
SECOND = 1000 * MS
DAY = 86_400 * SECOND
FLAG_LATE = 8
T = 20_000 * DAY


@pytest.fixture
def table(tmp_path: Path) -> Iterator[SymbolTable]:
    table = SymbolTable.open(str(tmp_path / "table"), "sim")
    yield table
    table.close()


def test_a_trade_becomes_a_record(table: SymbolTable) -> None:
    table.add("BTCUSDT", 300, 5)
    table.take(QUOTE, "BTCUSDT", 0, 9, quote=(99.5, 2.0, 100.5, 3.0))
    status, records = table.take(
        TRADE,
        "BTCUSDT",
        7,
        7,
        price=100.0,
        mantissa=12345,
        scale=5,
        ts_event=T,
        recv_ns=T + 1_234_567,
        flags=1,
    )
    assert status == FRESH
    begin, trade = records
    assert struct.unpack(BEGIN_FORMAT, begin) == (7, 0, T, 300, 4, 0, 0)
    assert struct.unpack(JOURNAL_FORMAT, trade) == (100.0, 0.12345, 99.5, 100.5, 7, T, 1234, 1, 300, 1, 1, 0)


@pytest.mark.parametrize(
    ("behind_ns", "offset_us"), [(10**18, 2**31 - 1), (-(10**18), -(2**31)), (-5000, -5)]
)
def test_the_arrival_offset_is_clamped(table: SymbolTable, behind_ns: int, offset_us: int) -> None:
    table.add("BTCUSDT", 1, 0)
    _, records = table.take(TRADE, "BTCUSDT", 1, 1, ts_event=2 * 10**18, recv_ns=2 * 10**18 + behind_ns)
    assert struct.unpack(JOURNAL_FORMAT, records[1])[6] == offset_us


def test_names_of_every_length_are_told_apart(table: SymbolTable) -> None:
    names = ["A" * size for size in range(1, 51)]
    names += ["A" * (size - 1) + "B" for size in range(1, 51)]
    names += [f"{i:06d}USDT" for i in range(2000)] + ["币安人生USDT", "\N{PILE OF POO}" * 12]
    slots = {name: table.add(name, place + 1, 0) for place, name in enumerate(names)}
    assert list(slots.values()) == list(range(len(names)))
    assert {name: table.find(name) for name in names} == slots
    for absent in ["", "C", "A" * 51, "BA", "000000USD", "000000USDTX", "A" * 49 + "C"]:
        assert table.find(absent) == -1
        assert table.take(TRADE, absent, 1, 1)[0] == UNKNOWN


@pytest.mark.parametrize(
    ("symbol", "stream_id", "precision", "words"),
    [
        ("", 1, 0, "0 bytes"),
        ("X" * 51, 1, 0, "51 bytes"),
        ("X", 0, 0, "stream id 0"),
        ("X", 65536, 0, "stream id 65536"),
        ("X", 1, 19, "precision 19"),
        ("X", 1, -1, "precision -1"),
        ("TAKEN", 6, 0, "never changes"),
        ("X", 5, 0, "that of TAKEN"),
    ],
)
def test_what_cannot_be_added(
    table: SymbolTable, symbol: str, stream_id: int, precision: int, words: str
) -> None:
    table.add("TAKEN", 5, 0)
    with pytest.raises(ValueError, match=words):
        table.add(symbol, stream_id, precision)


def test_adding_twice_is_no_error(table: SymbolTable) -> None:
    assert table.add("X", 1, 0) == table.add("X", 1, 3) == 0
    assert table.add("Y", 65535, 18) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"price": 0.0},
        {"price": -1.0},
        {"price": float("nan")},
        {"price": float("inf")},
        {"mantissa": 0},
        {"ts_event": 0},
        {"mantissa": 2**63, "scale": 0},
    ],
)
def test_values_that_cannot_be_are_refused(table: SymbolTable, fields: dict[str, float]) -> None:
    slot = table.add("X", 1, 0)
    assert table.take(TRADE, "X", 1, 1, **fields) == (REFUSED, [])  # type: ignore[arg-type]
    assert table.take(9, "X", 1, 1) == (REFUSED, [])
    assert table.state(slot)["next_id"] == 0


def test_a_jump_of_more_than_a_count_holds_is_refused(table: SymbolTable) -> None:
    table.add("X", 1, 0)
    assert table.take(TRADE, "X", 10, 10)[0] == FRESH
    assert table.take(TRADE, "X", 2**32 + 10, 2**32 + 10)[0] == REFUSED
    assert table.take(TRADE, "X", 2**32 + 9, 2**32 + 9)[0] == FRESH
    gap = struct.unpack(GAP_FORMAT, table.expired(10**12)[0])
    assert (gap[0], gap[4], gap[7]) == (11, 2**32 + 8, 2**32 - 2)
    assert table.take(TRADE, "X", 11, 11)[0] == DUPLICATE


def test_the_day_is_that_of_the_trade(table: SymbolTable) -> None:
    slot = table.add("X", 1, 0)
    table.take(TRADE, "X", 1, 1, mantissa=5, ts_event=T - 1)
    table.take(TRADE, "X", 3, 3, mantissa=7, ts_event=T)
    table.take(TRADE, "X", 2, 2, mantissa=11, ts_event=T - 1)
    table.take(TRADE, "X", 4, 4, mantissa=13, ts_event=T + DAY - 1)
    state = table.state(slot)
    assert (state["day"], state["day_units"], state["cum_units"]) == (20_000, 20, 36)


def test_the_day_volume_is_seeded_with_what_was_traded_before_some_moment(
    table: SymbolTable, tmp_path: Path
) -> None:
    slot = table.add("X", 1, 2)
    table.take(TRADE, "X", 7, 7, mantissa=5, scale=2, ts_event=T)
    then = table.state(slot)["cum_units"]
    table.take(TRADE, "X", 8, 8, mantissa=3, scale=2, ts_event=T)
    for day, precision in [(19_999, 2), (20_001, 2), (20_000, 3)]:
        assert not table.seed_day_volume(slot, day, 600, then, precision)
    assert not table.seed_day_volume(slot, 20_000, 2**63 - 2, then, 2)
    assert table.state(slot)["day_units"] == 8
    for _ in range(2):
        assert table.seed_day_volume(slot, 20_000, 600, then, 2)
    table.take(TRADE, "X", 9, 9, mantissa=1, scale=2, ts_event=T)
    table.publish_slot(slot, 1)
    with contextlib.closing(TableReader.open(str(tmp_path / "table"))) as reader:
        row = reader.read(1)
    assert row is not None
    assert (row.day, row.day_volume) == (20_000, 6.04)
    table.take(TRADE, "X", 10, 10, mantissa=2, scale=2, ts_event=T + DAY)
    assert not table.seed_day_volume(slot, 20_000, 600, then, 2)
    assert table.state(slot)["day_units"] == 2
    with pytest.raises(ValueError, match="-1"):
        table.seed_day_volume(slot, 20_001, -1, 0, 2)
    with pytest.raises(IndexError, match="no slot 1"):
        table.seed_day_volume(1, 20_000, 1, 0, 2)


def test_sums_past_an_int64_keep_their_differences(table: SymbolTable) -> None:
    slot = table.add("X", 1, 0)
    sums = []
    for id_ in range(1, 5):
        table.take(TRADE, "X", id_, id_, mantissa=2**62 - 1, ts_event=T)
        sums.append(table.state(slot)["cum_units"])
    assert [(b - a) % 2**64 for a, b in pairwise(sums)] == [2**62 - 1] * 3
    assert table.state(slot)["day_units"] == 2**63 - 1


def test_quotes_go_up_and_a_lower_id_is_believed_after_a_while(table: SymbolTable) -> None:
    slot = table.add("X", 1, 0)
    assert table.take(QUOTE, "X", 0, 50, quote=(1, 2, 3, 4), now_ns=SECOND) == (FRESH, [])
    assert table.take(QUOTE, "X", 0, 50, quote=(9, 9, 9, 9), now_ns=SECOND)[0] == STALE
    assert table.take(QUOTE, "X", 0, 3, quote=(9, 9, 9, 9), now_ns=11 * SECOND - 1)[0] == STALE
    assert table.state(slot)["bid"] == 1
    assert table.take(QUOTE, "X", 0, 3, quote=(5, 0, 0, 0), now_ns=11 * SECOND)[0] == FRESH
    assert (table.state(slot)["bid"], table.state(slot)["quote_id"]) == (5, 3)
    for wrong in [float("nan"), -1.0, float("inf")]:
        assert table.take(QUOTE, "X", 0, 99, quote=(wrong, 1, 1, 1), now_ns=12 * SECOND)[0] == REFUSED


def test_an_aggregate_waits_for_its_singles(table: SymbolTable) -> None:
    table.add("X", 1, 0)
    table.take(TRADE, "X", 1, 1, mantissa=1, now_ns=SECOND, ts_event=T)
    assert table.take(AGG_TRADE, "X", 2, 4, mantissa=90, now_ns=SECOND + 1, ts_event=T) == (HELD, [])
    assert table.take(AGG_TRADE, "X", 2, 4, mantissa=90, now_ns=SECOND + 1, ts_event=T) == (DUPLICATE, [])
    for id_, quantity in [(2, 20), (4, 40)]:
        assert table.take(TRADE, "X", id_, id_, mantissa=quantity, now_ns=SECOND + 2, ts_event=T)[0] == FRESH
    assert table.expired(SECOND + 250 * MS) == []
    (record,) = table.expired(SECOND + 250 * MS + 1)
    _, quantity, _, _, last, _, _, count, _, _, flags, _ = struct.unpack(JOURNAL_FORMAT, record)
    assert (last, count, quantity, flags) == (3, 1, 30.0, 2 | 8)
    assert (table.expired(SECOND + 250 * MS + 1), table.deadline_ns) == ([], 0)


def test_trades_just_below_the_first_one_count_for_a_while(table: SymbolTable) -> None:
    """Where a symbol begins, one line may be behind the other: what follows on downwards is no old news."""
    table.add("BTCUSDT", 1, 0)
    start = 10**12
    assert table.take(TRADE, "BTCUSDT", 10, 10, mantissa=5, now_ns=start)[0] == FRESH
    assert (
        table.take(TRADE, "BTCUSDT", 8, 8, mantissa=5, now_ns=start + 1)[0] == DUPLICATE
    )  # it would leave a hole
    status, records = table.take(TRADE, "BTCUSDT", 9, 9, mantissa=5, now_ns=start + 2)
    assert status == FRESH
    (record,) = (struct.unpack(JOURNAL_FORMAT, r) for r in records)
    assert (record[4], record[7], record[10] & FLAG_LATE) == (9, 1, FLAG_LATE)
    assert table.take(TRADE, "BTCUSDT", 9, 9, mantissa=5, now_ns=start + 3)[0] == DUPLICATE
    assert table.take(TRADE, "BTCUSDT", 8, 8, mantissa=5, now_ns=start + 4)[0] == FRESH
    assert table.take(TRADE, "BTCUSDT", 7, 7, mantissa=5, now_ns=start + 250_000_000)[0] == DUPLICATE
    assert table.state(0)["cum_units"] == 15
    assert table.state(0)["next_id"] == 11


def test_a_silent_trade_line_is_not_waited_for(table: SymbolTable) -> None:
    table.add("X", 1, 0)
    table.take(TRADE, "X", 1, 1, now_ns=SECOND)
    status, records = table.take(AGG_TRADE, "X", 2, 4, mantissa=9, now_ns=SECOND + 250 * MS)
    assert (status, len(records)) == (FRESH, 1)


def test_what_waits_in_many_symbols_expires_slot_by_slot(table: SymbolTable) -> None:
    for place in range(500):
        table.add(f"S{place}", place + 1, 0)
        table.take(TRADE, f"S{place}", 1, 1, now_ns=SECOND)
        table.take(TRADE, f"S{place}", 3, 3, now_ns=SECOND + place * MS)
        table.take(TRADE, f"S{place}", 5, 5, now_ns=SECOND + place * MS)
    seen = []
    for step in range(0, 1000, 100):
        while records := table.expired(SECOND + step * MS):
            assert [struct.unpack(GAP_FORMAT, r)[8] for r in records] == [table.touched + 1] * 2
            seen.append(table.touched)
        due = [place for place in range(500) if place + 250 <= step]
        assert sorted(seen) == due
    assert (len(seen), table.deadline_ns) == (500, 0)


def test_a_symbol_that_was_not_carried_begins_anew(table: SymbolTable) -> None:
    slot = table.add("X", 1, 0)
    table.take(TRADE, "X", 1, 1)
    table.drop(1)
    assert table.take(TRADE, "X", 2, 2)[0] == FRESH  # was under way
    table.carry(slot)
    assert table.take(TRADE, "X", 1, 1)[0] == DUPLICATE
    status, (begin, trade) = table.take(TRADE, "X", 1000, 1000, ts_event=T)
    assert status == FRESH
    assert struct.unpack(BEGIN_FORMAT, begin) == (1000, 3, T, 1, 4, 0, 0)
    assert struct.unpack(JOURNAL_FORMAT, trade)[4] == 1000
    assert table.deadline_ns == 0
    table.take(TRADE, "X", 1002, 1002)
    assert table.state(slot)["open"] == [(1001, 1001)]


def test_one_that_was_dropped_before_its_first_trade_begins_once(table: SymbolTable) -> None:
    slot = table.add("X", 1, 0)
    table.drop(1)
    table.carry(slot)
    _, records = table.take(TRADE, "X", 5, 5, ts_event=T)
    assert [record[58] for record in records] == [4, 1]
    _, records = table.take(TRADE, "X", 9, 9, ts_event=T)
    assert [record[58] for record in records] == [1]
    assert table.state(slot)["open"] == [(6, 8)]


@pytest.mark.parametrize("end", ["close", "kill"])
@pytest.mark.parametrize("dropped", [True, False])
def test_only_what_was_dropped_on_purpose_begins_anew_after_a_restart(
    tmp_path: Path, end: str, dropped: bool
) -> None:
    path = str(tmp_path / "table")
    table = SymbolTable.open(path, "sim")
    slot = table.add("X", 1, 0)
    _, journal = table.take(TRADE, "X", 1, 1, ts_event=T, recv_ns=T)
    table.publish_slot(slot, len(journal))
    if dropped:
        table.drop(1)
        # A trade that was under way, and a quote: the row is written again, and stays dropped.
        journal += table.take(TRADE, "X", 2, 2, ts_event=T, recv_ns=T)[1]
        table.publish_slot(slot, len(journal))
    if end == "close":
        table.close()
    del table
    reader = TableReader.open(path)
    row = reader.read(1)
    assert row is not None
    assert row.dropped == dropped
    reader.close()

    table = SymbolTable.open(path, "sim")
    slot = table.add("X", 1, 0)
    table.carry(slot)
    _, records = table.take(TRADE, "X", 50, 50, ts_event=T, recv_ns=T, now_ns=SECOND)
    assert [r[58] for r in records] == ([4, 1] if dropped else [1])
    assert table.state(slot)["open"] == ([] if dropped else [(2, 49)])
    journal += records
    table.close()  # killed before the row was published: the replay says the same
    del table

    table = SymbolTable.open(path, "sim")
    slot = table.add("X", 1, 0)
    table.carry(slot)
    table.replay(b"".join(journal), 0)
    assert table.state(slot)["next_id"] == 51
    assert table.state(slot)["open"] == ([] if dropped else [(2, 49)])
    assert not table.state(slot)["dropped"]
    _, records = table.take(TRADE, "X", 60, 60, ts_event=T, now_ns=SECOND)
    assert (51, 59) in table.state(slot)["open"]
    table.close()


def test_dropping_what_has_no_row_changes_nothing_and_what_is_none_is_refused(table: SymbolTable) -> None:
    table.drop(65535)
    assert not table.state(table.add("X", 65535, 0))["dropped"]
    for wrong in (0, 65536, -1):
        with pytest.raises(ValueError, match=f"stream id {wrong}"):
            table.drop(wrong)


def test_nothing_is_found_after_close(tmp_path: Path) -> None:
    table = SymbolTable.open(str(tmp_path / "table"), "sim")
    table.add("X", 1, 0)
    table.close()
    table.close()
    assert table.take(TRADE, "X", 1, 1)[0] == UNKNOWN


def test_open_ranges_are_given_up_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    table = SymbolTable.open(path, "sim")
    slot = table.add("X", 1, 0)
    for id_ in (1, 5, 8):
        table.take(TRADE, "X", id_, id_, mantissa=2, ts_event=T)
    table.take(QUOTE, "X", 0, 4, quote=(1, 2, 3, 4), recv_ns=77)
    table.publish_slot(slot, 3)
    before = table.state(slot)
    table.close()
    table = SymbolTable.open(path, "sim")
    assert (table.applied_seq, table.replay_from(0, 3)) == (3, 3)
    slot = table.add("X", 1, 0)
    assert table.state(slot) == before
    assert table.take(TRADE, "X", 3, 3, ts_event=T)[0] == FRESH
    gaps = [struct.unpack(GAP_FORMAT, r) for r in table.expired(2)]
    assert [(g[0], g[4], g[6]) for g in gaps] == [(2, 2, 4), (4, 4, 4), (6, 7, 4)]
    table.close()


def test_another_symbol_under_the_same_stream_id_begins_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    table = SymbolTable.open(path, "sim")
    table.add("X", 1, 0)
    table.take(TRADE, "X", 1000, 1000)
    table.publish_slot(0, 5)
    table.close()
    table = SymbolTable.open(path, "sim")
    state = table.state(table.add("Y", 1, 2))
    assert (state["next_id"], state["price"], state["next_seq"]) == (0, 0.0, 5)
    table.close()


@pytest.mark.parametrize(("precision", "day_units"), [(5, 1_234_500), (3, 12_345), (1, 123)])
def test_a_changed_precision_converts_the_day(tmp_path: Path, precision: int, day_units: int) -> None:
    path = str(tmp_path / "table")
    table = SymbolTable.open(path, "sim")
    table.add("X", 1, 3)
    table.take(TRADE, "X", 1, 1, mantissa=12_345, scale=3, ts_event=T)
    table.publish_slot(0, 1)
    table.close()
    table = SymbolTable.open(path, "sim")
    assert table.state(table.add("X", 1, precision))["day_units"] == day_units
    table.close()


def test_replay_of_what_nobody_added(tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    table = SymbolTable.open(path, "sim")
    table.add("X", 1, 0)
    _, first = table.take(TRADE, "X", 1, 1, ts_event=T)
    table.publish_slot(0, 2)
    _, second = table.take(TRADE, "X", 2, 2, mantissa=3, ts_event=T)
    table.close()
    table = SymbolTable.open(path, "sim")
    foreign = bytearray(second[0])
    foreign[56:58] = (9).to_bytes(2, "little")
    impossible = bytearray(second[0])
    impossible[52:56] = (0).to_bytes(4, "little")
    start = bytearray(64)
    start[58] = 3
    assert table.replay(b"".join([*first, *second, foreign, impossible, start]), 0) == 1
    assert (table.unreplayed, table.applied_seq) == (2, 3)
    slot = table.add("X", 1, 0)
    assert (table.state(slot)["next_id"], table.state(slot)["cum_units"]) == (3, 4)
    assert table.find("X") == slot
    table.close()


def test_a_journal_that_is_not_the_tables_own(tmp_path: Path) -> None:
    table = SymbolTable.open(str(tmp_path / "table"), "sim")
    slot = table.add("X", 1, 0)
    _, records = table.take(TRADE, "X", 1, 1, ts_event=T)
    table.publish_slot(slot, 1000)
    assert table.replay_from(0, 7) == 7
    assert (table.applied_seq, table.state(slot)["next_seq"]) == (7, 7)
    assert table.replay(records[0], 6) == 0
    table.close()


def test_a_held_aggregate_keeps_the_quote_of_its_arrival(table: SymbolTable) -> None:
    table.add("X", 1, 0)
    table.take(QUOTE, "X", 0, 1, quote=(10, 1, 11, 1), now_ns=SECOND)
    table.take(TRADE, "X", 1, 1, now_ns=SECOND)
    table.take(AGG_TRADE, "X", 2, 4, mantissa=9, now_ns=SECOND, recv_ns=T, ts_event=T)
    table.take(QUOTE, "X", 0, 2, quote=(20, 1, 21, 1), now_ns=SECOND)
    (record,) = table.expired(2 * SECOND)
    assert struct.unpack(JOURNAL_FORMAT, record)[2:4] == (10.0, 11.0)


def test_a_sparse_record_replays_as_it_was_taken(tmp_path: Path) -> None:
    """Ids 2..9 are open but for 6; the aggTrade 4..8 counts for 4, 5, 7 and 8, and leaves 2, 3 and 9 open."""
    path = str(tmp_path / "table")
    table = SymbolTable.open(path, "sim")
    slot = table.add("X", 1, 0)
    table.publish_slot(slot, 0)
    journal = []
    for first, last, quantity in [(1, 1, 5), (10, 10, 5), (6, 6, 5), (4, 8, 25)]:
        status, records = table.take(AGG_TRADE, "X", first, last, mantissa=quantity, ts_event=T, recv_ns=T)
        assert status == FRESH
        journal += records
    _, quantity, _, _, last, _, _, count, _, _, flags, _ = struct.unpack(JOURNAL_FORMAT, journal[-1])
    assert (last, count, quantity, flags) == (8, 4, 20.0, 2 | 4 | 8)
    state = table.state(slot)
    assert state["open"] == [(2, 3), (9, 9)]
    del table  # killed before any of it was published
    table = SymbolTable.open(path, "sim")
    slot = table.add("X", 1, 0)
    assert table.replay(b"".join(journal), 0) == 5
    assert table.state(slot) == {**state, "next_seq": 5}
    table.close()
