"""The control message `seed`: volumes of the day for the server's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.playback.test_ingest import ingest_of
from tests.unit.test_ingest import T0_MS, trade
from tradeback.errors import ProtocolError
from tradeback.server.seeding import seed

DAY = T0_MS // 86_400_000
UNIT = 10**8


def volume(symbol: str = "BTCUSDT", **fields: Any) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "day": DAY,
        "units": 7 * UNIT,
        "cum_units": 0,
        "quantity_precision": 8,
        **fields,
    }


def test_those_that_are_for_the_table_as_it_is_are_taken(tmp_path: Path) -> None:
    with ingest_of(tmp_path, ["BTCUSDT", "ETHUSDT"]) as ingest:
        ingest.take(trade(1), T0_MS * 10**6, 1)
        both = [volume(), volume("ETHUSDT"), volume("NOSUCH"), volume(day=DAY - 1)]
        assert seed(ingest.table, ingest, {"volumes": both}) == {"type": "seeded", "taken": 1}
        # One of the seven was counted after the moment that was told of.
        assert ingest.table.state(0)["day_units"] == 8 * UNIT
        assert ingest.table.state(1)["day_units"] == 0
        assert seed(ingest.table, ingest, {"volumes": []}) == {"type": "seeded", "taken": 0}


def test_nothing_is_published_that_the_journal_lacks(tmp_path: Path) -> None:
    with ingest_of(tmp_path, ["BTCUSDT"], segment_bytes=4096 + 64 * 2) as ingest:
        for number in range(1, 4):
            ingest.take(trade(number), T0_MS * 10**6, number)
        assert ingest.unwritten_symbols == 1
        assert seed(ingest.table, ingest, {"volumes": [volume()]}) == {"type": "seeded", "taken": 0}
        assert ingest.table.state(0)["day_units"] == 3 * UNIT


@pytest.mark.parametrize(
    "volumes",
    [
        None,
        {},
        ["BTCUSDT"],
        [volume(symbol=1)],
        [volume(day="2024-01-01")],
        [volume(units=-1)],
        [volume(units=2**63)],
        [volume(units=1.5)],
        [volume(cum_units=None)],
        [volume(quantity_precision=True)],
        [{"symbol": "BTCUSDT"}],
    ],
)
def test_anything_else_is_refused_with_what_is_expected(tmp_path: Path, volumes: object) -> None:
    with (
        ingest_of(tmp_path, ["BTCUSDT"]) as ingest,
        pytest.raises(ProtocolError, match="seed takes volumes: a list of objects with symbol"),
    ):
        seed(ingest.table, ingest, {"volumes": volumes})
