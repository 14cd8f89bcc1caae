"""Bars of real data: equal to the exchange's own, and coarser ones equal to a sum in decimals, to the last digit."""

from __future__ import annotations

import csv
import gzip
import random
from decimal import Decimal
from pathlib import Path

import pytest

from tests.reference.bars import DecimalBar, as_decimals, decimal_fold
from tradeback.config import Config
from tradeback.model import RESOLUTIONS, Bar
from tradeback.store.history_sqlite import open_history

MONTH = "klines_btcusdt_1m_202412.csv.gz"
PAGE = 1_000  # rows in one answer of the exchange
EVER = 2**62


@pytest.fixture(scope="module")
def month(recordings: Path) -> list[DecimalBar]:
    """The exchange's 1m bars of a month, as it wrote them."""
    with gzip.open(recordings / MONTH, "rt", newline="") as file:
        return [
            DecimalBar(
                int(row["open_time"]) * 1_000_000,
                *(Decimal(row[name]) for name in ("open", "high", "low", "close", "volume")),
                int(row["count"]),
            )
            for row in csv.DictReader(file)
        ]


def as_stored(bar: DecimalBar) -> Bar:
    return Bar(bar.open_time, *map(float, bar[1:6]), bar.trade_count)


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "pages in any order"])
def test_the_coarser_bars_of_a_month_equal_a_sum_in_decimals(
    month: list[DecimalBar], tmp_path: Path, shuffled: bool
) -> None:
    config = Config.model_validate({"data": {"folder": tmp_path}, "exchange": {"name": "sim"}})
    pages = [month[at : at + PAGE] for at in range(0, len(month), PAGE)]
    if shuffled:
        random.Random(1).shuffle(pages)
    history = open_history(config, write=True)
    try:
        for page in pages:
            assert history.write_bars(1, "1m", [as_stored(bar) for bar in page]) == len(page)
        for resolution, length in RESOLUTIONS.items():
            stored = [as_decimals(bar) for bar in history.bars(1, resolution, 0, EVER)]
            assert stored == decimal_fold(month, length), resolution
            assert sum(bar.volume for bar in stored) == sum(bar.volume for bar in month)
    finally:
        history.close()
    assert len(month) == 41_761
