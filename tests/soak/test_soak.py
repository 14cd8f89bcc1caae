"""The short form of `make soak`: two minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import Load, soak


@pytest.mark.timeout(600)
def test_two_minutes_lose_nothing_and_nothing_grows(tmp_path: Path) -> None:
    load = Load(seconds=120, messages=1000, clients=100, warm_up=40, every=1, stay=30)
    measured = soak(tmp_path, load)
    print(measured.report())
    assert [series.row for series in measured.series() if series.grows] == []
