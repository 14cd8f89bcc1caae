"""The current price: one model for the table's row, the cache and REST, also about midnight."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import TableReader
from tradeback.model import DAY_NS, Price

TRADE = 1
NOON = 20_000 * DAY_NS + DAY_NS // 2
MIDNIGHT = 20_001 * DAY_NS


@pytest.mark.parametrize(
    ("now_ns", "volume"),
    [
        (NOON, 2.5),
        (MIDNIGHT - 1, 2.5),
        (MIDNIGHT, 0.0),
        (MIDNIGHT + 7 * DAY_NS, 0.0),
        # Our clock is behind the exchange's.
        (NOON - DAY_NS, 2.5),
    ],
)
def test_the_volume_is_that_of_the_day_in_which_it_is_read(
    tmp_path: Path, now_ns: int, volume: float
) -> None:
    table = SymbolTable.open(str(tmp_path / "table"), "sim")
    slot = table.add("X", 1, 2)
    table.take(TRADE, "X", 7, 7, price=8.0, mantissa=25, scale=1, ts_event=NOON, recv_ns=NOON + 5)
    table.publish_slot(slot, 1)
    with closing(TableReader.open(str(tmp_path / "table"))) as reader:
        row = reader.read(1)
    table.close()
    assert row is not None
    expected = Price(8.0, None, None, volume, NOON, NOON + 5)
    assert Price.of_row(row, now_ns) == expected
    assert Price.of_row(row, NOON).at(now_ns) == expected
