from __future__ import annotations

import struct

from tradeback._fast.record import (
    BEGIN_FORMAT,
    FLAGS,
    GAP_FORMAT,
    JOURNAL_FORMAT,
    LAYOUT,
    REASONS,
    UNFILLABLE,
    WIRE_FORMAT,
)
from tradeback.model import UNFILLABLE_TEXTS


def test_formats_have_the_sizes_that_the_compiler_gives() -> None:
    assert struct.calcsize(JOURNAL_FORMAT) == LAYOUT["journal_record_bytes"] == 64
    assert struct.calcsize(GAP_FORMAT) == LAYOUT["gap_record_bytes"] == 64
    assert struct.calcsize(BEGIN_FORMAT) == LAYOUT["begin_record_bytes"] == 64
    assert struct.calcsize(WIRE_FORMAT) == LAYOUT["wire_record_bytes"] == 18


def test_names_stand_for_values_that_differ() -> None:
    assert FLAGS == {"buyer_maker": 1, "aggregate": 2, "sparse": 4, "late": 8, "repair": 16}
    assert sorted(REASONS.values()) == list(range(1, 9))
    assert set(UNFILLABLE.values()) == set(UNFILLABLE_TEXTS)
