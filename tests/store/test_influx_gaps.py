"""Gaps as points: what a reader without the recorder's folder knows of them is what the recorder's book says."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.influx import InfluxServer
from tests.store.conftest import influx_history, sqlite_config
from tests.store.test_history import DAY, MINUTE_NS, tick
from tradeback.errors import HistoryError
from tradeback.model import Gap
from tradeback.recorder.coverage import Coverage
from tradeback.store.base import History, HistoryBatch
from tradeback.store.history_influx import InfluxHistory
from tradeback.store.history_sqlite import HISTORY_FILE
from tradeback.store.influx import Influx

MILLION = 1_000_000


def elsewhere(history: History, folder: Path, server: InfluxServer) -> InfluxHistory:
    """The same history, on a machine without the recorder's folder."""
    assert isinstance(history, InfluxHistory)
    config = sqlite_config(folder, **server.environment)
    return InfluxHistory(
        Influx(config.database.influx),
        history._exchange,
        lambda stream_id: f"SYMBOL{stream_id}",
        dict,
        config.history,
        None,
        write=False,
    )


def batch(coverage: Coverage, **fields: Any) -> HistoryBatch:
    changes = coverage.changes()
    return HistoryBatch(
        covered=changes.covered,
        dissolved=changes.dissolved,
        gaps=changes.gaps,
        filled=changes.filled,
        places={"journal": 1},
        **fields,
    )


@contextmanager
def cut_off(folder: Path) -> Iterator[None]:
    """Within it points are written, and the book takes nothing."""
    with closing(sqlite3.connect(folder / "sim" / HISTORY_FILE, isolation_level=None)) as other:
        other.execute("CREATE TRIGGER cut BEFORE INSERT ON places BEGIN SELECT RAISE(ABORT, 'cut off'); END")
        with pytest.raises(ValueError, match="cut off"):
            yield
        other.execute("DROP TRIGGER cut")


def test_a_gap_shrinks_is_split_and_vanishes(influx_server: InfluxServer, tmp_path: Path) -> None:
    coverage = Coverage({})
    open_one = influx_history(influx_server)
    with (
        closing(open_one(tmp_path)) as history,
        closing(elsewhere(history, tmp_path, influx_server)) as reader,
    ):

        def stored(change: Callable[[], object]) -> list[Gap]:
            change()
            history.write(batch(coverage))
            assert reader.gaps(1) == history.gaps(1) == coverage.gaps(1)
            return reader.gaps(1)

        at = DAY + 17  # not even a millisecond
        assert stored(lambda: coverage.add_gap(Gap(1, 10, 10 + 3 * MILLION, at, 2))) == [
            Gap(1, 10, 10 + 3 * MILLION, at, 2)
        ]
        # Parts of one time and of ids that are equal but for millions.
        assert len(stored(lambda: coverage.add_trade(1, 9 + MILLION))) == 2
        assert len(stored(lambda: coverage.add_trade(1, 9 + 2 * MILLION))) == 3
        gone = Gap(1, 0, 10 + 3 * MILLION, at + 5, 3, 'it said "no" \\ and meant it, = ')
        assert len(stored(lambda: coverage.give_up(gone))) == 4
        assert reader.gaps(1, open_only=True) == []
        assert [gap.first_id for gap in reader.gaps(1, first_id=11, limit=1)] == [10 + MILLION]
        assert reader.gaps(2) == []
        assert stored(lambda: coverage.add_trade(1, 10 + 3 * MILLION, 11 + 3 * MILLION, repair=True)) == []


def test_what_lies_between_the_gaps_counts_as_stored(influx_server: InfluxServer, tmp_path: Path) -> None:
    coverage = Coverage({})
    # The oldest and the newest two are of one millisecond, in which points do not rise with their ids.
    numbers = [999_999, 1_000_000, 1_000_001, 1_000_010, 1_999_999, 2_000_000]
    ticks = [tick(n, DAY + n // 3 * 1_000_000_000) for n in numbers]
    ticks[1] = ticks[1]._replace(ts_event=ticks[0].ts_event)
    ticks[5] = ticks[5]._replace(ts_event=ticks[4].ts_event)
    ticks[0] = ticks[0]._replace(trade_count=5)
    for each in ticks:
        coverage.add_trade(1, each.trade_id, each.trade_count)
    for hole in coverage.holes():
        coverage.add_gap(Gap(*hole, DAY, 2))
    open_one = influx_history(influx_server)
    with (
        closing(open_one(tmp_path)) as history,
        closing(elsewhere(history, tmp_path, influx_server)) as reader,
    ):
        assert reader.covered(1) == {}
        history.write(batch(coverage, ticks=ticks))
        assert reader.covered(1) == history.covered(1) == {1: coverage.covered(1)}
        assert len(coverage.covered(1)) == 3
        assert reader.covered(2) == history.covered(2) == {}


def test_a_batch_that_was_cut_off_leaves_no_gap_behind(influx_server: InfluxServer, tmp_path: Path) -> None:
    """Its gaps are points and not in the book; the records are read again, in other batches than before."""
    open_one = influx_history(influx_server)
    with (
        closing(open_one(tmp_path)) as history,
        closing(elsewhere(history, tmp_path, influx_server)) as reader,
    ):
        history.write(HistoryBatch(gaps=[Gap(1, 5, 6, DAY, 2)], places={"journal": 1}))
        wider = HistoryBatch(
            gaps=[Gap(1, 20, 30, DAY, 2)], filled=[(1, 5)], ticks=[tick(40, DAY)], places={"journal": 9}
        )
        with cut_off(tmp_path):
            history.write(wider)
        assert [gap.first_id for gap in reader.gaps(1)] == [20]
        history.write(HistoryBatch(gaps=[Gap(1, 24, 30, DAY, 2)], places={"journal": 5}))
        assert [gap.first_id for gap in reader.gaps(1)] == [5, 24]
        assert reader.gaps(1) == history.gaps(1)


def test_gaps_of_before_there_were_points_become_points(influx_server: InfluxServer, tmp_path: Path) -> None:
    open_one = influx_history(influx_server)
    with (
        closing(open_one(tmp_path)) as history,
        closing(elsewhere(history, tmp_path, influx_server)) as reader,
    ):
        assert isinstance(history, InfluxHistory)
        known = [Gap(1, n, n + 5, DAY, 2) for n in range(0, 5_000, 10)]
        history._book.write(HistoryBatch(gaps=known, places={"journal": 1}))
        history.write(HistoryBatch(ticks=[tick(5_000, DAY)]))
        assert reader.gaps(1) == known
    with (
        closing(open_one(tmp_path)) as history,
        closing(elsewhere(history, tmp_path, influx_server)) as reader,
    ):
        history.write(HistoryBatch(filled=[(1, 10)], gaps=[Gap(2, 0, 0, DAY, 2)]))
        assert reader.gaps(1) == [gap for gap in known if gap.first_id != 10]
        assert len(reader.gaps(2)) == 1


def test_without_a_symbol_gaps_are_the_recorders(influx_server: InfluxServer, tmp_path: Path) -> None:
    open_one = influx_history(influx_server)
    with (
        closing(open_one(tmp_path)) as history,
        closing(elsewhere(history, tmp_path, influx_server)) as reader,
    ):
        for ask in (reader.gaps, reader.covered):
            with pytest.raises(HistoryError, match="ask on the recorder's machine"):
                ask()


ids = st.integers(0, 40).map(lambda n: n % 10 + n // 10 * MILLION)
steps = st.lists(
    st.tuples(st.sampled_from(["gap", "trade", "give up", "store", "cut off", "open again"]), ids, ids),
    max_size=25,
)


@given(steps)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_what_happens_to_gaps(
    influx_server: InfluxServer, taken: list[tuple[str, int, int]]
) -> None:
    open_one = influx_history(influx_server)
    with TemporaryDirectory() as name:
        folder = Path(name)
        history = open_one(folder)
        reader = elsewhere(history, folder, influx_server)
        coverage = Coverage(history.covered(), history.gaps())
        for number, (what, a, b) in enumerate(taken):
            first, last = sorted((a, b))
            at = DAY + number // 4 * MINUTE_NS
            if what == "gap":
                coverage.add_gap(Gap(1, first, last, at, 2))
            elif what == "trade":
                coverage.add_trade(1, last, repair=True)
            elif what == "give up":
                coverage.give_up(Gap(1, first, last, at, 3, "no"))
            elif what == "store":
                history.write(batch(coverage))
                assert reader.gaps(1) == history.gaps(1) == coverage.gaps(1)
            else:
                if what == "cut off":
                    with cut_off(folder):
                        history.write(batch(coverage))
                else:
                    history.close()
                    history = open_one(folder)
                coverage = Coverage(history.covered(), history.gaps())
        history.write(batch(coverage))
        assert reader.gaps(1) == history.gaps(1) == coverage.gaps(1)
        reader.close()
        history.close()
