from __future__ import annotations

import struct

from tradeback._fast.record import GAP_FORMAT, JOURNAL_FORMAT, LAYOUT, WIRE_FORMAT


def test_formats_have_the_sizes_that_the_compiler_gives() -> None:
    assert struct.calcsize(JOURNAL_FORMAT) == LAYOUT["journal_record_bytes"] == 64
    assert struct.calcsize(GAP_FORMAT) == LAYOUT["gap_record_bytes"] == 64
    assert struct.calcsize(WIRE_FORMAT) == LAYOUT["wire_record_bytes"] == 18
