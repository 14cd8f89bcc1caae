"""Coverage, against a set of ids: what is new, what is missing, and what a batch has to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback._fast.record import REASONS
from tradeback.model import Gap
from tradeback.recorder.coverage import Coverage, CoverageChanges

TOP = 40  # ids of the random cases: few, so that they meet


def ids_of(ranges: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@dataclass
class Stored:
    """What a history holds after the batches that it was given, and whether they were right."""

    ranges: dict[tuple[int, int], int] = field(default_factory=dict)
    gaps: dict[tuple[int, int], Gap] = field(default_factory=dict)

    def write(self, changes: CoverageChanges) -> None:
        for key in changes.dissolved:
            self.ranges.pop(key, None)
        for stream_id, first, last in changes.covered:
            self.ranges[stream_id, first] = last
        for key in changes.filled:
            self.gaps.pop(key, None)
        for gap in changes.gaps:
            self.gaps[gap.stream_id, gap.first_id] = gap

    def coverage(self) -> Coverage:
        covered: dict[int, list[tuple[int, int]]] = {}
        for (stream_id, first), last in self.ranges.items():
            covered.setdefault(stream_id, []).append((first, last))
        return Coverage(covered, self.gaps.values())


def test_trades_in_order_are_one_range() -> None:
    coverage = Coverage({})
    assert coverage.add_trade(7, 100) == [(100, 100)]
    assert coverage.add_trade(7, 103, 3) == [(101, 103)]
    assert coverage.add_trade(7, 102) is None
    assert coverage.covered(7) == [(100, 103)]
    changes = coverage.changes()
    assert (changes.covered, changes.dissolved) == ([(7, 100, 103)], [])
    assert coverage.changes() == CoverageChanges([], [], [], [])


def test_a_sparse_record_stands_for_the_highest_ids_that_are_free() -> None:
    coverage = Coverage({1: [(1, 10), (13, 13), (15, 15)]}, [Gap(1, 14, 14, 5, 1)])
    assert coverage.add_trade(1, 17, 4, sparse=True) == [(16, 17), (11, 12)]
    assert coverage.covered(1) == [(1, 13), (15, 17)]
    # A repair is made for what was given up.
    assert coverage.add_trade(1, 14, sparse=True, repair=True) == [(14, 14)]
    assert coverage.covered(1) == [(1, 17)]
    assert coverage.gaps(1) == []


def test_a_gap_is_filled_from_both_ends_and_in_the_middle() -> None:
    coverage = Coverage({1: [(1, 10), (21, 30)]})
    coverage.add_gap(Gap(1, 11, 20, 99, 1))
    coverage.changes()
    for trade_id in (11, 20, 15):
        assert coverage.add_trade(1, trade_id, repair=True) == [(trade_id, trade_id)]
    assert [(gap.first_id, gap.last_id, gap.ts_event) for gap in coverage.gaps(1)] == [
        (12, 14, 99),
        (16, 19, 99),
    ]
    changes = coverage.changes()
    assert changes.filled == [(1, 11)]
    assert {gap.first_id for gap in changes.gaps} == {12, 16}


def test_a_gap_that_is_told_again_says_nothing_new() -> None:
    coverage = Coverage({1: [(1, 10)]})
    gap = Gap(1, 11, 20, 99, 1)
    assert coverage.add_gap(gap) == [gap]
    coverage.add_trade(1, 15, repair=True)
    coverage.give_up(Gap(1, 16, 20, 100, REASONS["unfillable"], "gone"))
    coverage.changes()
    assert coverage.add_gap(gap) == []
    assert coverage.changes() == CoverageChanges([], [], [], [])
    assert [(gap.first_id, gap.reason, gap.unfillable) for gap in coverage.gaps(1)] == [
        (11, 1, ""),
        (16, 1, "gone"),
    ]
    assert coverage.count_gaps() == (1, 1)


def test_a_symbol_begins() -> None:
    coverage = Coverage({})
    begin = REASONS["begin"]
    assert coverage.begin(1, 0, 100, 5) == [Gap(1, 0, 99, 5, begin)]
    assert coverage.begin(1, 0, 100, 5) == []
    coverage.add_trade(1, 100)
    # The slower line just below the first one.
    assert coverage.add_trade(1, 99) == [(99, 99)]
    assert coverage.begin(1, 101, 200, 6) == [Gap(1, 101, 199, 6, begin)]
    assert coverage.add_trade(1, 201, 3, sparse=True) == [(200, 201)]
    assert coverage.holes() == []
    assert coverage.count_gaps() == (2, 0)
    coverage.give_up(Gap(1, 0, 98, 7, REASONS["unfillable"], "before its beginning"))
    assert coverage.count_gaps() == (1, 0)
    assert coverage.begin(2, 0, 0, 5) == []


def test_a_server_that_lost_its_memory_does_not_begin_where_the_history_goes_on() -> None:
    coverage = Coverage({1: [(50, 60)], 2: [(50, 120)], 3: [(150, 160)]})
    lost, begin = REASONS["lost"], REASONS["begin"]
    assert coverage.begin(1, 0, 100, 5) == [Gap(1, 61, 99, 5, lost), Gap(1, 0, 49, 5, begin)]
    assert coverage.begin(1, 0, 100, 5) == []
    coverage.add_trade(1, 100)
    # It knows of trades before: between them nobody asked.
    assert coverage.begin(1, 101, 200, 6) == [Gap(1, 101, 199, 6, begin)]
    # Read again, after what it says is stored.
    assert coverage.begin(2, 0, 100, 5) == [Gap(2, 0, 49, 5, begin)]
    assert coverage.begin(3, 0, 100, 5) == [Gap(3, 0, 99, 5, begin)]


def test_holes_are_what_nothing_accounts_for() -> None:
    coverage = Coverage({1: [(5, 10), (15, 20), (30, 31)], 2: [(1, 9)]}, [Gap(1, 12, 13, 1, 1)])
    assert coverage.holes() == [(1, 11, 11), (1, 14, 14), (1, 21, 29)]
    assert coverage.missing(1, 1, 12) == [(1, 4), (11, 11)]
    assert coverage.missing(3, 4, 5) == [(4, 5)]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.integers(0, TOP), st.integers(1, 5), st.booleans(), st.booleans()),
        st.tuples(st.just("gap"), st.integers(0, TOP), st.integers(1, 9), st.booleans(), st.just(False)),
        st.tuples(st.just("begin"), st.integers(0, TOP), st.integers(0, TOP), st.just(False), st.just(False)),
        st.tuples(st.just("write"), st.just(0), st.just(0), st.booleans(), st.just(False)),
    ),
    max_size=40,
)


@settings(max_examples=400)
@given(steps)
def test_any_sequence_is_what_sets_of_ids_say(sequence: list[tuple[str, int, int, bool, bool]]) -> None:
    store, coverage = Stored(), Coverage({})
    stored: set[int] = set()
    missing: dict[int, str] = {}
    for kind, at, count, first_flag, second_flag in sequence:
        if kind == "trade":
            expected = set(range(max(at - count + 1, 0), at + 1))
            if first_flag:
                taken = stored if second_flag else stored | missing.keys()
                expected = set(sorted(set(range(at + 1)) - taken)[-count:])
            brought = coverage.add_trade(3, at, count, sparse=first_flag, repair=second_flag)
            if at in stored:
                assert brought is None
                continue
            assert brought is not None
            assert ids_of(brought) == expected
            stored |= expected
            missing = {number: why for number, why in missing.items() if number not in expected}
        elif kind == "gap":
            ids = set(range(at, at + count)) - stored
            gap = Gap(3, at, at + count - 1, 1, 1, "gone" if first_flag else "")
            if first_flag:
                coverage.give_up(gap)
                missing |= dict.fromkeys(ids, "gone")
            else:
                coverage.add_gap(gap)
                missing = dict.fromkeys(ids, "") | missing
        elif kind == "begin":
            coverage.begin(3, count, at, 1)
            missing = dict.fromkeys(set(range(count, at)) - stored, "") | missing
        else:
            store.write(coverage.changes())
            if first_flag:
                coverage = store.coverage()
        assert ids_of(coverage.covered(3)) == stored
        assert {
            number: gap.unfillable
            for gap in coverage.gaps(3)
            for number in range(gap.first_id, gap.last_id + 1)
        } == missing
        unfillable = [bool(gap.unfillable) for gap in coverage.gaps(3) if gap.reason != REASONS["begin"]]
        begins = [gap for gap in coverage.gaps(3) if gap.reason == REASONS["begin"] and not gap.unfillable]
        assert coverage.count_gaps() == (unfillable.count(False) + len(begins), unfillable.count(True))
    store.write(coverage.changes())
    again = store.coverage()
    assert again.covered(3) == coverage.covered(3)
    assert again.gaps(3) == coverage.gaps(3)
    # Ranges never touch: where nothing is missing there is one.
    ranges = coverage.covered(3)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(ranges))
    assert ids_of([(first, last) for _, first, last in coverage.holes()]) == (
        set(range(min(stored), max(stored))) - stored - missing.keys() if stored else set()
    )
