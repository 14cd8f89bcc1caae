"""The ticks beside missing ids against a plain look at all of them, and in how few reads they are found."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import accumulate
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.config import HistoryConfig
from tradeback.model import Tick
from tradeback.store.base import HistoryBatch
from tradeback.store.beside import search
from tradeback.store.history_sqlite import SqliteHistory

EPOCH = 1_700_000_000_000_000_000
MS = 1_000_000


def ticks_of(steps: list[tuple[int, int]]) -> list[Tick]:
    """Ticks so many ids and ms after the one before."""
    ids = accumulate(step for step, _ in steps)
    times = accumulate(pause for _, pause in steps)
    return [
        Tick(1, trade_id, 1, 1.0, 1.0, 0.0, 0.0, EPOCH + time * MS, 0)
        for trade_id, time in zip(ids, times, strict=True)
    ]


class Counting(SqliteHistory):
    """Counts how often it is asked."""

    asked = 0  # `some_tick_from` asks for ticks too

    def ticks(self, stream_id: int, start: int, end: int, limit: int | None = None) -> Iterator[Tick]:
        self.asked += 1
        return super().ticks(stream_id, start, end, limit)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0, 0, 1, 7, 5_000])), min_size=0, max_size=60),
    st.integers(0, 300),
    st.integers(0, 40),
)
def test_they_are_those_beside_the_ids(steps: list[tuple[int, int]], first: int, more: int) -> None:
    last = first + more
    ticks = [tick for tick in ticks_of(steps) if not first <= tick.trade_id <= last]
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(SqliteHistory(Path(folder) / "h.sqlite", HistoryConfig(), write=True)) as history,
    ):
        history.write(HistoryBatch(ticks=ticks))
        before, after = search(history, 1, first, last)
    assert before == max((tick for tick in ticks if tick.trade_id < first), default=None, key=lambda t: t[1])
    assert after == min((tick for tick in ticks if tick.trade_id > last), default=None, key=lambda t: t[1])


def test_a_few_reads_find_them_among_many(tmp_path: Path) -> None:
    ticks = ticks_of([(1, 3 + number % 5) for number in range(200_000)])
    missing = {120_001, 120_002}
    with closing(Counting(tmp_path / "h.sqlite", HistoryConfig(), write=True)) as history:
        history.write(HistoryBatch(ticks=[tick for tick in ticks if tick.trade_id not in missing]))
        before, after = search(history, 1, 120_001, 120_002)
        assert before is not None
        assert after is not None
        assert (before.trade_id, after.trade_id) == (120_000, 120_003)
        assert history.asked < 40
        history.asked = 0
        assert search(history, 1, 500_000, 500_001) == (ticks[-1], None)
        assert history.asked < 40
