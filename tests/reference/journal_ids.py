"""What journal records cover, read from the records alone: what FLAG_SPARSE means, in plain Python."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tradeback._fast.record import GAP_FORMAT, JOURNAL_FORMAT

KIND_AT = 58
AGGREGATE, SPARSE, LATE = 2, 4, 8


@dataclass
class Coverage:
    """Feed it every record of one stream id in the journal's order; no id may be covered twice."""

    traded: set[int] = field(default_factory=set)
    gaps: set[int] = field(default_factory=set)
    precision: int = 0
    units: int = 0

    def add(self, record: bytes) -> set[int]:
        """Take one record; returns the ids that it stands for."""
        if record[KIND_AT] == 2:
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
        self.traded |= ids
        self.units += round(quantity * 10**self.precision)
        return ids
