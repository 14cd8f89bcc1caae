"""A data folder that was lost while InfluxDB was kept: what was stored is known, and nothing counts twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.influx import InfluxServer
from tests.store.conftest import OpenHistory, influx_history, sqlite_config
from tests.store.test_history import DAY, DAY_NS, EVER, minute, tick
from tradeback._fast.journal import JournalBegin, JournalGap, JournalTrade, Record
from tradeback._fast.record import FLAGS, REASONS
from tradeback._fast.stats import Stats
from tradeback.errors import HistoryError
from tradeback.model import Bar, EnigmaLevel
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.history_sink import HistorySink
from tradeback.store.base import History, HistoryBatch
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history
from tradeback.store.history_sqlite import HISTORY_FILE

MILLION = 1_000_000


def trade(number: int, *, at: int | None = None, stream_id: int = 1, **fields: int) -> Record:
    ts_event = DAY + number * 100 * MILLION if at is None else at
    count, flags = fields.get("count", 1), fields.get("flags", 0)
    return JournalTrade(number, stream_id, number, count, 100.0 + number, 0.5, 0.0, 0.0, ts_event, 0, flags)


def gap(first: int, last: int, stream_id: int = 1) -> Record:
    return JournalGap(0, stream_id, first, last, last - first + 1, DAY, REASONS["timeout"], 0)


def record(history: History, folder: Path, records: Sequence[Record]) -> HistorySink:
    sink = HistorySink(
        folder, Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS), 0.005, history, lambda _: 5
    )
    sink.open()
    sink.take("journal", list(records))
    sink.commit({"journal": len(records)})
    return sink


def lose(folder: Path) -> None:
    for file in (folder / "sim").glob(f"{HISTORY_FILE}*"):
        file.unlink()


def test_the_bar_in_progress_goes_on_and_no_trade_counts_twice(
    influx_server: InfluxServer, tmp_path: Path
) -> None:
    open_one = influx_history(influx_server)
    with closing(open_one(tmp_path)) as history:
        # 20 and 21 were still on their way when the folder was lost.
        record(history, tmp_path, [trade(n) for n in (*range(1, 20), *range(22, 31))])
        (whole,) = history.bars(1, "1m", *EVER)
    lose(tmp_path)
    with closing(open_one(tmp_path)) as history:
        # It begins anew at 41; meanwhile 29 to 35 are fetched, and 20 comes late.
        record(
            history,
            tmp_path,
            [
                JournalBegin(0, 1, 41, 0, DAY + 41 * 100 * MILLION, 0),
                *(trade(n) for n in (*range(41, 101), *range(29, 36), 20)),
            ],
        )
        assert history.covered() == {1: [(1, 20), (22, 35), (41, 100)]}
        assert [(each.first_id, each.last_id) for each in history.gaps(1)] == [(0, 0), (21, 21), (36, 40)]
        (bar,) = history.bars(1, "1m", *EVER)
        stored = [each.trade_id for each in history.ticks(1, *EVER)]
        assert stored == [*range(1, 21), *range(22, 36), *range(41, 101)]
        assert bar.trade_count == len(stored) > whole.trade_count
        assert bar.volume == 0.5 * len(stored)
        assert (bar.open, bar.low) == (whole.open, whole.low)


def test_what_is_known_of_gaps_and_extremes_is_known_again(
    influx_server: InfluxServer, tmp_path: Path
) -> None:
    """And what is of no use stays out: symbols that nobody knows, sparse ids in more than one piece."""
    open_one = influx_history(influx_server)
    old = [tick(n, DAY - DAY_NS + n * 1_000 * MILLION, price=50.0 + n) for n in range(10, 60)]
    with closing(open_one(tmp_path)) as history:
        history.write_bars(1, "1d", [Bar(DAY - 900 * DAY_NS, 9_000.0, 9_999.0, 9_000.0, 9_000.0, 1.0, 1)])
        history.write_bars(2, "1m", [minute(0, price=7.0)])
        history.write_enigma([EnigmaLevel(3, DAY, 5.0, 0.5, 8.0, 2.0)])
        record(history, tmp_path, [])
        history.write(HistoryBatch(ticks=old, covered=[(1, 10, 59)], places={"journal": 0}))
        record(
            history,
            tmp_path,
            [
                *(gap(n, n + 4) for n in (60, 1_000, 5 * MILLION)),
                *(trade(n) for n in (999, 1_005, 1_006)),
                gap(65, 998),
                trade(15, stream_id=4),
                trade(20, stream_id=4, count=5, flags=FLAGS["sparse"]),
                trade(30, stream_id=4, count=2, flags=FLAGS["sparse"]),
                gap(21, 28, stream_id=4),
                trade(5, stream_id=5),
            ],
        )
        before = {
            "covered": history.covered(),
            "gaps": history.gaps(),
            "extremes": [history.extremes(stream_id) for stream_id in range(1, 7)],
        }
    lose(tmp_path)
    with closing(open_one(tmp_path)) as history:
        after = {
            "covered": history.covered(),
            "gaps": history.gaps(),
            "extremes": [history.extremes(stream_id) for stream_id in range(1, 7)],
        }
        assert history.places() == {}
        # Levels tell extremes of before there were bars.
        assert before["extremes"][2] is None
        assert after["extremes"][2] == (8.0, 2.0)
        before["extremes"][2] = (8.0, 2.0)
        assert after == before
    with closing(open_one(tmp_path)) as history:
        history.write(HistoryBatch(places={"journal": 5}))
        history.write_bars(6, "1d", [Bar(DAY, 1.0, 1.0, 1.0, 1.0, 1.0, 1)])
        assert history.covered() == before["covered"]


def test_points_wait_for_the_symbols_that_they_are_of(influx_server: InfluxServer, tmp_path: Path) -> None:
    influx_server.make_bucket("waiting")
    settings = {**influx_server.environment, "INFLUX_BUCKET": "waiting"}
    writer = influx_history(influx_server)(tmp_path / "lost", INFLUX_BUCKET="waiting")
    with closing(writer):
        writer._exchange = "sim"  # type: ignore[attr-defined]
        writer.write(HistoryBatch(ticks=[tick(7, DAY)]))
    config = sqlite_config(tmp_path, **settings)
    open_catalog(config).close()
    with closing(open_history(config, write=True)) as history:
        for ask in (history.covered, history.places, history.gaps, lambda: history.extremes(1)):
            with pytest.raises(
                HistoryError, match="has the history of 1 symbols, and the catalog has no symbols"
            ):
                ask()


def test_a_book_that_there_is_is_believed(own_influx_server: InfluxServer, tmp_path: Path) -> None:
    open_one: OpenHistory = influx_history(own_influx_server)
    with closing(open_one(tmp_path)) as history:
        history.write(
            HistoryBatch(ticks=[tick(1, DAY), tick(9, DAY)], covered=[(1, 1, 1)], places={"journal": 1})
        )
    own_influx_server.kill()
    with closing(open_one(tmp_path)) as history:
        assert history.covered() == {1: [(1, 1)]}
    lose(tmp_path)
    with closing(open_one(tmp_path)) as history, pytest.raises(HistoryError, match="cannot be reached"):
        history.covered()


events = st.lists(st.tuples(st.sampled_from(["trades", "gap", "late"]), st.integers(1, 30)), max_size=12)


@given(events, st.integers(1, 20))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_came_is_known_again(
    influx_server: InfluxServer, taken: list[tuple[str, int]], seconds: int
) -> None:
    """One trade each `seconds`, so that some are of long ago; of what is neither stored nor a gap nothing is old."""
    records: list[Record] = []
    number = 0
    late: list[int] = []
    for what, count in taken:
        numbers = range(number + 1, number + count + 1)
        number += count
        if what == "gap":
            records.append(gap(numbers[0], numbers[-1]))
            late.append(numbers[len(numbers) // 2])
        else:
            records += [trade(n, at=DAY + n * seconds * 1_000 * MILLION) for n in numbers]
            if what == "late" and late:
                records.append(
                    trade(late[-1], at=DAY + late.pop() * seconds * 1_000 * MILLION, flags=FLAGS["repair"])
                )
    open_one = influx_history(influx_server)
    with TemporaryDirectory() as name:
        folder = Path(name)
        with closing(open_one(folder)) as history:
            record(history, folder, records)
            before = (history.covered(), history.gaps(), history.extremes(1))
        lose(folder)
        with closing(open_one(folder)) as history:
            assert (history.covered(), history.gaps(), history.extremes(1)) == before
