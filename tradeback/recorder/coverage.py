"""Coverage: which trade ids are stored, and which are known to be missing. It makes each trade count once.

Owned by the history sink's thread. Of each stream id it keeps the stored ids as ranges that do not touch, which is
one range where nothing is missing, and the gaps. What changed since the last `changes` is what a batch writes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tradeback._fast.record import REASONS
from tradeback.model import Gap

GAP_BEGIN = REASONS["begin"]
GAP_LOST = REASONS["lost"]

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CoverageChanges:
    """The fields of the same names of a HistoryBatch."""

    covered: Sequence[tuple[int, int, int]]
    dissolved: Sequence[tuple[int, int]]
    gaps: Sequence[Gap]
    filled: Sequence[tuple[int, int]]


class Coverage:
    """`covered` and `gaps` are what the history holds. Ranges of ids are (first, last), both inclusive."""

    def __init__(self, covered: Mapping[int, Iterable[Range]], gaps: Iterable[Gap] = ()) -> None:
        self._streams: dict[int, _Stream] = {}
        for stream_id, ranges in covered.items():
            stream = self._streams[stream_id] = _Stream()
            for first, last in sorted(ranges):
                stream.firsts.append(first)
                stream.lasts.append(last)
        for gap in gaps:
            stream = self._of(gap.stream_id)
            stream.add_gap(gap)
            stream.gaps_told.add(gap.first_id)
            stream.gaps_touched.clear()

    def _of(self, stream_id: int) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = _Stream()
        return stream

    def add_trade(
        self, stream_id: int, trade_id: int, count: int = 1, *, sparse: bool = False, repair: bool = False
    ) -> list[Range] | None:
        """Take a record that stands for `count` trades up to `trade_id`; the ids that it brings, from the highest
        down, or None where it was seen before, which its last id tells.

        The ids of a `sparse` record are the highest that are not covered. Ids of gaps count as covered then,
        unless it is a `repair`: the record was made when they were given up.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = _Stream()
        lasts = stream.lasts
        first = trade_id - count + 1
        if lasts and lasts[-1] + 1 == first and not sparse:
            # In order, as nearly all are.
            lasts[-1] = trade_id
            stream.touched.add(stream.firsts[-1])
            if stream.gaps and stream.gaps[-1].last_id >= first:
                stream.fill(first, trade_id)
            return [(first, trade_id)]
        if stream.holds(trade_id):
            return None
        ranges = stream.highest_free(trade_id, count, repair) if sparse else [(max(first, 0), trade_id)]
        for low, high in ranges:
            stream.cover(low, high)
            stream.fill(low, high)
        return ranges

    def add_gap(self, gap: Gap) -> list[Gap]:
        """Take a gap; those of its ids that are neither stored nor known to be missing become gaps, returned."""
        stream = self._of(gap.stream_id)
        return [
            stream.add_gap(gap._replace(first_id=first, last_id=last))
            for first, last in stream.missing(gap.first_id, gap.last_id)
        ]

    def begin(self, stream_id: int, floor_id: int, first_id: int, ts_event: int) -> list[Gap]:
        """The symbol begins, or begins anew, at `first_id`; what counted before lies below `floor_id`. The ids
        between, which nobody asked for, become an open gap of reason GAP_BEGIN, so that every id is accounted for.
        Returns what is new of it.

        So the beginning stays known: whoever repairs fetches those of its ids that were traded in the minute of
        the beginning, to make that minute whole, and then gives the rest up.

        A server that knows of nothing before (`floor_id` 0), where trades are stored that came before, is one whose
        table and journal are new: what was traded since the last of these is a gap like any other.
        """
        if floor_id >= first_id:
            return []
        found = []
        after = self._of(stream_id).last_below(first_id) + 1
        if floor_id == 0 < after < first_id:
            found = self.add_gap(Gap(stream_id, after, first_id - 1, ts_event, GAP_LOST))
        return found + self.add_gap(Gap(stream_id, floor_id, first_id - 1, ts_event, GAP_BEGIN))

    def give_up(self, gap: Gap) -> None:
        """The exchange cannot give those of the ids that are not stored; `gap.unfillable` tells why."""
        stream = self._of(gap.stream_id)
        for known in stream.fill(gap.first_id, gap.last_id):
            stream.add_gap(known._replace(unfillable=gap.unfillable))
        self.add_gap(gap)

    def missing(self, stream_id: int, first: int, last: int) -> list[Range]:
        """Ids of first..last that are neither stored nor in a gap, rising."""
        return self._of(stream_id).missing(first, last)

    def holes(self) -> list[tuple[int, int, int]]:
        """(stream id, first, last) of all ids between stored ones that are in no gap."""
        return [
            (stream_id, first, last)
            for stream_id, stream in self._streams.items()
            if len(stream.firsts) > 1
            for first, last in stream.missing(stream.firsts[0], stream.lasts[-1])
        ]

    def gaps(self, stream_id: int) -> list[Gap]:
        """The gaps of a symbol, by rising id."""
        return list(self._of(stream_id).gaps)

    def covered(self, stream_id: int) -> list[Range]:
        """The stored ids of a symbol, rising."""
        stream = self._of(stream_id)
        return list(zip(stream.firsts, stream.lasts, strict=True))

    def count_gaps(self) -> tuple[int, int]:
        """How many gaps are open and how many unfillable, of the latter those before a beginning left out: they are
        no loss."""
        streams = self._streams.values()
        return sum(stream.still_open for stream in streams), sum(stream.unfillable for stream in streams)

    def changes(self) -> CoverageChanges:
        """What changed since the last call."""
        covered, dissolved, gaps, filled = [], [], [], []
        for stream_id, stream in self._streams.items():
            if stream.touched:
                for first in stream.touched:
                    at = bisect_left(stream.firsts, first)
                    if at < len(stream.firsts) and stream.firsts[at] == first:
                        covered.append((stream_id, first, stream.lasts[at]))
                    else:
                        dissolved.append((stream_id, first))
                stream.touched.clear()
            if stream.gaps_touched:
                for first in stream.gaps_touched:
                    at = bisect_left(stream.gap_firsts, first)
                    if at < len(stream.gap_firsts) and stream.gap_firsts[at] == first:
                        gaps.append(stream.gaps[at])
                        stream.gaps_told.add(first)
                    elif first in stream.gaps_told:
                        filled.append((stream_id, first))
                        stream.gaps_told.remove(first)
                stream.gaps_touched.clear()
        return CoverageChanges(covered, dissolved, gaps, filled)


class _Stream:
    """One symbol: parallel lists, rising. `touched` are first ids of ranges that changed or are no more, `gaps_told`
    those of gaps that the history holds: one that shrinks id by id has many others in between. `still_open` and
    `unfillable` are what `Coverage.count_gaps` says."""

    __slots__ = (
        "firsts",
        "gap_firsts",
        "gaps",
        "gaps_told",
        "gaps_touched",
        "lasts",
        "still_open",
        "touched",
        "unfillable",
    )

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        self.gap_firsts: list[int] = []
        self.gaps: list[Gap] = []
        self.touched: set[int] = set()
        self.gaps_touched: set[int] = set()
        self.gaps_told: set[int] = set()
        self.still_open = self.unfillable = 0

    def _count(self, gaps: Iterable[Gap], change: int) -> None:
        for gap in gaps:
            if not gap.unfillable:
                self.still_open += change
            elif gap.reason != GAP_BEGIN:
                self.unfillable += change

    def holds(self, trade_id: int) -> bool:
        at = bisect_right(self.firsts, trade_id) - 1
        return at >= 0 and self.lasts[at] >= trade_id

    def last_below(self, trade_id: int) -> int:
        """The highest stored id below `trade_id`; -1 where there is none."""
        at = bisect_left(self.firsts, trade_id) - 1
        return min(self.lasts[at], trade_id - 1) if at >= 0 else -1

    def gap_at(self, trade_id: int) -> Gap | None:
        at = bisect_right(self.gap_firsts, trade_id) - 1
        return self.gaps[at] if at >= 0 and self.gaps[at].last_id >= trade_id else None

    def floor(self, trade_id: int, *, repair: bool = False) -> int:
        """The id after the highest one at or below `trade_id` that is stored or, but for a repair, in a gap; 0
        where there is none. Above `trade_id` where that one itself is covered."""
        floor = 0
        at = bisect_right(self.firsts, trade_id) - 1
        if at >= 0:
            floor = self.lasts[at] + 1
        if not repair:
            at = bisect_right(self.gap_firsts, trade_id) - 1
            if at >= 0:
                floor = max(floor, self.gaps[at].last_id + 1)
        return floor

    def highest_free(self, trade_id: int, count: int, repair: bool) -> list[Range]:
        found = []
        at = trade_id
        while count > 0 and at >= 0:
            floor = self.floor(at, repair=repair)
            if floor <= at:
                first = max(floor, at - count + 1)
                found.append((first, at))
                count -= at - first + 1
                at = first - 1
                continue
            gap = None if repair else self.gap_at(at)
            at = (gap.first_id if gap is not None else self.firsts[bisect_right(self.firsts, at) - 1]) - 1
        return found

    def missing(self, first: int, last: int) -> list[Range]:
        taken = []
        at = max(bisect_right(self.firsts, first) - 1, 0)
        while at < len(self.firsts) and self.firsts[at] <= last:
            taken.append((self.firsts[at], self.lasts[at]))
            at += 1
        at = max(bisect_right(self.gap_firsts, first) - 1, 0)
        while at < len(self.gaps) and self.gap_firsts[at] <= last:
            taken.append((self.gap_firsts[at], self.gaps[at].last_id))
            at += 1
        found = []
        for low, high in sorted(taken):
            if high < first:
                continue
            if low > first:
                found.append((first, low - 1))
            first = high + 1
        if first <= last:
            found.append((first, last))
        return found

    def cover(self, first: int, last: int) -> None:
        """Join first..last with the ranges that it overlaps or touches."""
        start = bisect_left(self.lasts, first - 1)
        end = bisect_right(self.firsts, last + 1)
        self.touched.update(self.firsts[start:end])
        if start < end:
            first = min(first, self.firsts[start])
            last = max(last, self.lasts[end - 1])
        self.firsts[start:end] = [first]
        self.lasts[start:end] = [last]
        self.touched.add(first)

    def add_gap(self, gap: Gap) -> Gap:
        at = bisect_left(self.gap_firsts, gap.first_id)
        self.gap_firsts.insert(at, gap.first_id)
        self.gaps.insert(at, gap)
        self.gaps_touched.add(gap.first_id)
        self._count((gap,), 1)
        return gap

    def fill(self, first: int, last: int) -> list[Gap]:
        """Take first..last out of the gaps; the parts that were taken out."""
        if not self.gaps or self.gaps[-1].last_id < first:
            return []
        start = max(bisect_right(self.gap_firsts, first) - 1, 0)
        if self.gaps[start].last_id < first:
            start += 1
        end = bisect_right(self.gap_firsts, last)
        hit = self.gaps[start:end]
        if not hit:
            return []
        left = []
        if hit[0].first_id < first:
            left.append(hit[0]._replace(last_id=first - 1))
        if hit[-1].last_id > last:
            left.append(hit[-1]._replace(first_id=last + 1))
        self.gaps_touched.update(gap.first_id for gap in (*hit, *left))
        self._count(hit, -1)
        self._count(left, 1)
        self.gaps[start:end] = left
        self.gap_firsts[start:end] = [gap.first_id for gap in left]
        return [
            gap._replace(first_id=max(gap.first_id, first), last_id=min(gap.last_id, last)) for gap in hit
        ]
