"""What journal records cover, read from the records alone: what FLAG_SPARSE and RECORD_BEGIN mean, in plain Python."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tradeback._fast.record import BEGIN_FORMAT, GAP_FORMAT, JOURNAL_FORMAT

KIND_AT = 58
AGGREGATE, SPARSE, LATE = 2, 4, 8
KIND_TRADE, KIND_GAP, KIND_BEGIN = 1, 2, 4


@dataclass
class Coverage:
    """Feed it every record of one stream id in the journal's order; no id may be covered twice."""

    traded: set[int] = field(default_factory=set)
    gaps: set[int] = field(default_factory=set)
    begins: list[tuple[int, int]] = field(default_factory=list)
    precision: int = 0
    units: int = 0

    def missing(self) -> set[int]:
        """Ids that are in no record although they counted: above a beginning, below the next one or the highest."""
        ids = self.traded | self.gaps
        counted: set[int] = set()
        ends = [floor for _, floor in self.begins[1:]] + [max(ids, default=-1) + 1]
        for (first, _), end in zip(self.begins, ends, strict=True):
            counted |= set(range(first, end))
        return counted - ids

    def add(self, record: bytes) -> set[int]:
        """Take one record; returns the ids that it stands for."""
        if record[KIND_AT] == KIND_BEGIN:
            begin, floor, _, _, _, _, _ = struct.unpack(BEGIN_FORMAT, record)
            highest = max(self.traded | self.gaps, default=-1)
            assert floor == highest + 1, "ids between two beginnings that are in no record"
            assert begin >= floor
            self.begins.append((begin, floor))
            return set()
        # A trade or a gap: a symbol's first record says where it begins.
        assert self.begins, "ids before the symbol began"
        if record[KIND_AT] == KIND_GAP:
            first, _, _, _, last, _, _, count, _, _, _, _ = struct.unpack(GAP_FORMAT, record)
            ids = set(range(first, last + 1))
            assert len(ids) == count
            assert not ids & (self.traded | self.gaps), "a gap over ids that are covered"
            self.gaps |= ids
            return ids
        _, quantity, _, _, last, _, _, count, _, _, flags, _ = struct.unpack(JOURNAL_FORMAT, record)
        if flags & SPARSE:
            ids = set()
            at = last
            while len(ids) < count:
                if at not in self.traded and at not in self.gaps:
                    ids.add(at)
                at -= 1
        else:
            ids = set(range(last - count + 1, last + 1))
        assert not ids & (self.traded | self.gaps), "ids that are covered twice"
        assert min(ids) >= self.begins[-1][1] or max(ids) < self.begins[-1][1], "ids across a beginning"
        self.traded |= ids
        self.units += round(quantity * 10**self.precision)
        return ids
