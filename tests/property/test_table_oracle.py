"""The compiled table against the plain one, event by event: same answers, same records, same state."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.reference.journal_ids import AGGREGATE, KIND_AT, KIND_BEGIN, KIND_GAP, LATE, SPARSE
from tests.reference.table import ID_MAX, BeginOut, GapOut, Out, SymbolOracle, TradeOut, exact_units
from tradeback._fast.record import BEGIN_FORMAT, GAP_FORMAT, JOURNAL_FORMAT
from tradeback._fast.table import SymbolTable

TRADE, AGG_TRADE = 1, 2
MS = 1_000_000
DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


def told(record: bytes, precision: int) -> Out:
    if record[KIND_AT] == KIND_BEGIN:
        first, floor, _, _, _, _, _ = struct.unpack(BEGIN_FORMAT, record)
        return BeginOut(first, floor)
    if record[KIND_AT] == KIND_GAP:
        first, _, _, _, last, _, reason, _, _, _, _, _ = struct.unpack(GAP_FORMAT, record)
        return GapOut(first, last, reason)
    price, quantity, _, _, last, _, _, count, _, _, flags, _ = struct.unpack(JOURNAL_FORMAT, record)
    return TradeOut(
        last,
        count,
        round(quantity * 10**precision),
        price,
        aggregate=bool(flags & AGGREGATE),
        sparse=bool(flags & SPARSE),
        late=bool(flags & LATE),
    )


class Shelf:
    """One table for all examples, a new symbol for each: a file for each would cost more than the test."""

    def __init__(self, path: str) -> None:
        self.table = SymbolTable.open(path, "sim")
        self.used = 0

    def symbol(self, precision: int) -> tuple[str, int]:
        """A symbol that nothing was told of yet, and its slot; nothing waits in the table."""
        while self.table.expired(2**62):
            pass
        self.used += 1
        name = f"S{self.used}"
        return name, self.table.add(name, self.used, precision)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    shelf = Shelf(str(tmp_path_factory.mktemp("table") / "table"))
    yield shelf
    shelf.table.close()


# (step of time in ms, single line?, first id relative to the newest, how many ids, units, jump of days,
#  does what is due expire?, is the symbol dropped, or carried again?)
events = st.tuples(
    st.sampled_from([0, 0, 1, 5, 60, 249, 250, 400]),
    st.booleans(),
    st.integers(-30, 12),
    st.sampled_from([1, 1, 1, 2, 3, 6, 20]),
    st.integers(1, 5000),
    st.sampled_from([0] * 8 + [1, -1]),
    st.booleans(),
    st.sampled_from([""] * 8 + ["drop", "carry", "both"]),
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(events, max_size=150), st.integers(0, 6))
def test_every_event_has_the_same_effect(
    shelf: Shelf, steps: list[tuple[int, bool, int, int, int, int, bool, str]], precision: int
) -> None:
    table = shelf.table
    name, slot = shelf.symbol(precision)
    oracle = SymbolOracle()
    now, newest = 1_000 * MS, 1000
    for step, single, ahead, count, units, days, expire, change in steps:
        now += step * MS
        if change in ("drop", "both"):
            table.drop(table.state(slot)["stream_id"])
            oracle.drop()
        if change in ("carry", "both"):
            table.carry(slot)
            oracle.carry()
        if expire:
            got: list[Out] = []
            while records := table.expired(now):
                got += [told(r, precision) for r in records]
            assert got == oracle.expire(now)
        first = newest + ahead
        last = first if single else first + count - 1
        newest = max(newest, last)
        ts = (START_MS + days * DAY_MS) * MS
        status, records = table.take(
            TRADE if single else AGG_TRADE,
            name,
            first,
            last,
            price=float(last),
            mantissa=units,
            scale=precision,
            ts_event=ts,
            recv_ns=ts,
            now_ns=now,
        )
        assert (status, [told(r, precision) for r in records]) == oracle.take(
            single, first, last, units, float(last), ts, now
        )
        state = table.state(slot)
        assert state["next_id"] == (oracle.last or 0) + 1
        assert state["open"] == [(o.first, o.last) for o in oracle.open]
        assert state["held"] == [(h.first, h.last) for h in oracle.held]
        assert (state["cum_units"], state["day_units"]) == (oracle.volume, oracle.day_units)
        assert state["price"] == oracle.price
        assert state["dropped"] == (oracle.dropped or oracle.anew)
        if due := oracle.deadlines():
            assert 0 < table.deadline_ns <= min(due)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 2**64 - 1),
    st.integers(0, 22),
    st.integers(0, 18),
)
def test_quantities_are_exact_or_rounded_and_counted(
    shelf: Shelf, mantissa: int, scale: int, precision: int
) -> None:
    table = shelf.table
    name, slot = shelf.symbol(precision)
    rounded = table.counts["rounded"]
    status, _ = table.take(TRADE, name, 1, 1, mantissa=mantissa, scale=scale)
    units = exact_units(mantissa, scale, precision)
    if units > 2**63 - 1:
        assert status == 5
    else:
        assert status == 0
        assert table.state(slot)["cum_units"] == units
        assert table.counts["rounded"] - rounded == bool(mantissa * 10**precision % 10**scale)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=12))
# An aggTrade of nearly 2**32 trades of which two are known, and no trade line to wait for.
@example([(False, 5, 5), (False, 9, 9), (False, 5, 2**32)])
def test_ids_that_cannot_be_are_refused(shelf: Shelf, ids: list[tuple[bool, int, int]]) -> None:
    table = shelf.table
    name, slot = shelf.symbol(0)
    oracle = SymbolOracle()
    for single, first, last in ids:
        status, records = table.take(TRADE if single else AGG_TRADE, name, first, last, now_ns=1000 * MS)
        expected = oracle.take(single, first, last, 1, 1.0, 1, 1000 * MS)
        assert (status, [told(r, 0) for r in records]) == expected
        assert table.state(slot)["next_id"] == (0 if oracle.last is None else oracle.last + 1)


@pytest.mark.parametrize("id_", [0, 1, ID_MAX - 1, ID_MAX])
def test_the_ends_of_the_ids(id_: int, tmp_path: Path) -> None:
    table = SymbolTable.open(str(tmp_path / "table"), "sim")
    slot = table.add("X", 1, 0)
    assert table.take(TRADE, "X", id_, id_)[0] == 0
    assert table.take(TRADE, "X", id_, id_)[0] == 1
    assert table.take(AGG_TRADE, "X", id_, id_)[0] == 1
    assert table.state(slot)["next_id"] == id_ + 1
    assert table.take(TRADE, "X", id_ + 1, id_ + 1)[0] == (0 if id_ < ID_MAX else 5)
    table.close()
