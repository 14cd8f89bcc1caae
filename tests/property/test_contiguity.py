"""Which trades are missing, against sets of ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradeback._fast.record import FLAGS, REASONS
from tradeback.model import Gap, Tick
from tradeback.recorder.contiguity import NOT_RECORDED, Contiguity, contiguity

SECOND = 1_000_000_000


def tick(last: int, count: int = 1, *, sparse: bool = False, at: int | None = None) -> Tick:
    flags = FLAGS["aggregate"] | FLAGS["sparse"] if sparse else 0
    return Tick(1, last, count, 5.0, 1.0, 0.0, 0.0, last * SECOND if at is None else at, flags)


def judge(
    ticks: list[Tick],
    covered: list[tuple[int, int]],
    gaps: list[Gap],
    before: list[tuple[int, int]] | None = None,
) -> Contiguity:
    """Nobody writes meanwhile, unless `before` is given."""
    return contiguity(ticks, covered if before is None else before, lambda: (gaps, covered))


def ranges(ids: set[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in sorted(ids):
        if found and found[-1][1] + 1 == number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def gap(first: int, last: int, unfillable: str = "") -> Gap:
    return Gap(1, first, last, last * SECOND, REASONS["timeout"], unfillable)


@given(st.data())
def test_missing_is_what_was_stored_by_nobody(data: st.DataObject) -> None:
    stored = data.draw(st.sets(st.integers(100, 160), min_size=1))
    missing = set(range(min(stored), max(stored) + 1)) - stored
    # Some of the missing ids are in gaps, and of those some are unfillable.
    parts = [part for part in ranges(missing) if data.draw(st.booleans())]
    gaps = [gap(first, last, data.draw(st.sampled_from(["", "too old"]))) for first, last in parts]
    ticks = []
    for first, last in ranges(stored):
        while first <= last:
            count = data.draw(st.integers(1, last - first + 1))
            ticks.append(tick(first + count - 1, count))
            first += count
    found = judge(sorted(ticks, key=lambda of: (of.ts_event, of.trade_id)), ranges(stored), gaps)
    assert not found.faults
    assert (found.first_id, found.last_id) == (min(stored), max(stored))
    assert (found.trades, found.ticks) == (len(stored), len(ticks))
    told = {number for part in found.missing for number in range(part.first_id, part.last_id + 1)}
    assert told == missing
    assert sum(part.trades for part in found.missing) == len(missing)
    for part in found.missing:
        owner = next((of for of in gaps if of.first_id <= part.first_id <= of.last_id), None)
        assert part.closed == (owner is None or owner.unfillable != "")
        assert part.after <= part.first_id * SECOND
        assert part.before >= part.last_id * SECOND
        # A bar in which something is missing is said to lack it.
        assert found.lacking(part.first_id * SECOND, part.last_id * SECOND + 1)
    if not missing and len(ticks) > 1:
        # Nothing is known of what lies before the first and after the last.
        begin, end = found.begin, found.end
        assert found.lacking(begin, end) == ""
        assert found.lacking(begin - 1, end) == f"trades before {min(stored)} are not stored"
        assert found.lacking(begin, end + 1) == f"trades after {max(stored)} are not stored"
        wider = judge(ticks, [(min(stored) - 1, max(stored) + 1)], gaps)
        assert wider.lacking(begin - 1, end + 1) == ""


def test_a_gap_takes_its_part_of_a_hole() -> None:
    found = judge(
        [tick(10), tick(20)], [(5, 10), (20, 30)], [gap(13, 14), gap(16, 40, "not there"), gap(1, 3)]
    )
    assert [(of.first_id, of.last_id, of.why) for of in sorted(found.missing)] == [
        (11, 12, NOT_RECORDED),
        (13, 14, "a gap, being fetched: timeout"),
        (15, 15, NOT_RECORDED),
        (16, 19, "unfillable: not there"),
    ]
    assert {(of.after, of.before) for of in found.missing} == {(10 * SECOND, 20 * SECOND)}
    assert found.lacking(12 * SECOND, 13 * SECOND).startswith("trades 11 to 19 are missing")
    assert found.lacking(0, 5 * SECOND) == "its trades are not stored"
    assert found.lacking(21 * SECOND, 25 * SECOND) == "its trades are not stored"


def test_what_was_traded_while_the_symbol_was_not_carried_is_not_missing() -> None:
    begin = Gap(1, 11, 19, 20 * SECOND, REASONS["begin"], "before the symbol began, not asked for")
    for part in judge([tick(10), tick(20)], [(10, 10), (20, 20)], [begin]).missing:
        assert (part.first_id, part.last_id, part.asked, part.why) == (11, 19, False, "not carried then")


def test_a_sparse_tick_stands_for_ids_that_it_does_not_name() -> None:
    # 11 and 13 came alone; the aggTrade of 10..14 counts for 10, 12 and 14.
    ticks = [tick(9), tick(11), tick(13), tick(14, 3, sparse=True), tick(15)]
    found = judge(ticks, [(9, 15)], [])
    assert (found.faults, found.missing, found.trades) == ([], [], 7)


def test_ids_that_count_as_stored_must_have_a_tick_and_only_one() -> None:
    assert judge([tick(1), tick(4)], [(1, 4)], []).faults == [
        "trades 2 to 3 count as stored and have no tick"
    ]
    assert judge([tick(1), tick(2), tick(3)], [(1, 1), (3, 3)], []).faults == [
        "trades 2 to 2 have a tick and do not count as stored"
    ]
    assert judge([tick(4), tick(6, 3)], [(4, 6)], []).faults == ["trades 4 to 4 stand in two ticks"]


def test_what_a_recorder_stores_meanwhile_is_neither_missing_nor_a_fault() -> None:
    # 3 was repaired behind what was read of the ticks; 5 was stored after the covered ids were read first.
    found = judge([tick(1), tick(2), tick(4), tick(5)], [(1, 6)], [], before=[(1, 2), (4, 4)])
    assert (found.missing, found.faults) == ([], [])


def test_without_ticks_nothing_is_known() -> None:
    found = judge([], [(1, 10)], [gap(11, 12)])
    assert found == Contiguity()
    assert found.lacking(0, 10) == "its trades are not stored"
