"""What is InfluxDB's own: a server that is killed, hangs or refuses, and a reader without the recorder's folder."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.servers.influx import InfluxServer
from tests.store.conftest import influx_history, sqlite_config
from tests.store.test_catalog import BTC
from tests.store.test_history import DAY, DAY_NS, EVER, minute, minutes, tick
from tradeback._fast.journal import JournalTrade, Record
from tradeback._fast.stats import Stats
from tradeback.errors import DataFolderError, HistoryError, UnknownSymbolError
from tradeback.model import Gap
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.history_sink import HistorySink
from tradeback.store.base import HistoryBatch
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history
from tradeback.store.history_influx import InfluxHistory
from tradeback.store.history_sqlite import HISTORY_FILE
from tradeback.store.influx import (
    WEEKS_AT_ONCE,
    WRITE_BYTES,
    Influx,
    _requests,
    escape_tag,
    nanoseconds,
)


def test_a_server_that_was_killed_is_written_to_again(
    own_influx_server: InfluxServer, tmp_path: Path
) -> None:
    open_one = influx_history(own_influx_server)
    with closing(open_one(tmp_path / "data")) as history:
        history.write(HistoryBatch(ticks=[tick(1, 1_000_000)], places={"journal": 1}))
        own_influx_server.kill()
        batch = HistoryBatch(
            ticks=[tick(2, 2_000_000)], minutes=[(1, minute(0))], covered=[(1, 1, 2)], places={"journal": 2}
        )
        for _ in range(2):
            with pytest.raises(
                HistoryError, match=r"cannot be reached or does not answer.*correct INFLUX_URL"
            ):
                history.write(batch)
        assert (history.places(), history.covered()) == ({"journal": 1}, {})
        for ask in (history.check, lambda: history.bars(1, "1m", *EVER)):
            with pytest.raises(HistoryError, match="cannot be reached") as told:
                ask()
            assert told.value.away
        own_influx_server.start()
        history.check()
        history.write(batch)
        assert [each.trade_id for each in history.ticks(1, *EVER)] == [1, 2]
        assert history.bars(1, "1m", *EVER) == [minute(0)]
        assert history.places() == {"journal": 2}


def test_a_server_that_hangs_costs_the_timeout(own_influx_server: InfluxServer, tmp_path: Path) -> None:
    opened = influx_history(own_influx_server)
    with closing(opened(tmp_path / "data", INFLUX_TIMEOUT="200ms")) as history:
        own_influx_server.halt()
        try:
            with pytest.raises(HistoryError, match="does not answer"):
                history.write(minutes(minute(0)))
        finally:
            own_influx_server.go_on()
    with closing(opened(tmp_path / "data")) as history:
        history.write(minutes(minute(0)))
        assert history.bars(1, "5m", *EVER) != []


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("INFLUX_TOKEN", "wrong", "401.*INFLUX_TOKEN"),
        ("INFLUX_BUCKET", "nowhere", "404.*INFLUX_BUCKET"),
        ("INFLUX_ORG", "nobody", "404.*INFLUX_ORG"),
    ],
)
def test_what_is_configured_wrongly_is_named(
    influx_server: InfluxServer, tmp_path: Path, setting: str, value: str, said: str
) -> None:
    config = sqlite_config(tmp_path, **influx_server.environment | {setting: value})
    influx = Influx(config.database.influx)
    with pytest.raises(HistoryError, match=said) as told:
        influx.write(b"trades price=1.0 1\n")
    assert "token-of-the-tests" not in str(told.value)
    influx.close()


def test_a_text_is_never_part_of_a_query(influx_server: InfluxServer, tmp_path: Path) -> None:
    config = sqlite_config(tmp_path, **influx_server.environment)
    names = {1: 'X") |> drop(columns: ["_value"]) //', 2: "A,B=C Dü"}
    history = InfluxHistory(
        Influx(config.database.influx), "odd", names.__getitem__, dict, config.history, None, write=False
    )
    writer = influx_history(influx_server)(tmp_path)
    assert isinstance(writer, InfluxHistory)
    writer._exchange, writer._symbol_of = "odd", names.__getitem__
    for stream_id in names:
        writer.write(HistoryBatch(ticks=[tick(stream_id, 5_000_000, stream_id=stream_id)]))
    for stream_id in names:
        assert [each.trade_id for each in history.ticks(stream_id, *EVER)] == [stream_id]
    history.close()
    writer.close()


def test_without_the_recorders_folder_points_are_read_and_places_are_not(
    influx_server: InfluxServer, tmp_path: Path
) -> None:
    config = sqlite_config(tmp_path, **influx_server.environment)
    history = InfluxHistory(
        Influx(config.database.influx),
        "elsewhere",
        lambda _: "BTCUSDT",
        dict,
        config.history,
        None,
        write=False,
    )
    assert history.bars(1, "1h", *EVER) == []
    for ask in (history.places, history.covered, history.gaps, history.jobs):
        with pytest.raises(HistoryError, match="ask on the recorder's machine"):
            ask()
    history.close()


# What stopped a recorder for ever: one symbol that the catalog had lost held up all others.
UNKNOWN_BESIDE_KNOWN = HistoryBatch(
    ticks=[tick(1, 1, stream_id=1), tick(9, 9, stream_id=7)],
    minutes=[(1, minute(0)), (7, minute(0))],
    gaps=[Gap(7, 10, 12, DAY, 1)],
)


def test_the_configuration_chooses_it_and_the_catalog_names_the_symbols(
    influx_server: InfluxServer, tmp_path: Path
) -> None:
    config = sqlite_config(tmp_path, **influx_server.environment)
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([BTC])
    with closing(open_history(config, write=True)) as history:
        assert isinstance(history, InfluxHistory)
        with capture_logs() as lines:
            history.write(UNKNOWN_BESIDE_KNOWN)
            history.write(UNKNOWN_BESIDE_KNOWN)
        told = [line["stored_as"] for line in lines if "does not know" in line["event"]]
        assert told == ["#7"]  # once
        assert [one.trade_id for one in history.ticks(1, *EVER)] == [1]
        assert [one.trade_id for one in history.ticks(7, *EVER)] == [9]
        assert [bar.open_time for bar in history.bars(7, "1m", *EVER)] == [DAY]
    with closing(open_history(config, write=False)) as history:
        assert [one.trade_id for one in history.ticks(1, *EVER)] == [1]
        with pytest.raises(UnknownSymbolError, match="stream id 7"):
            next(history.ticks(7, *EVER))
    with closing(open_history(sqlite_config(tmp_path), write=False)) as history:
        assert not isinstance(history, InfluxHistory)


@pytest.mark.parametrize("name", ["A\\", "A\nB"])
def test_a_name_that_cannot_be_a_tag(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a tag"):
        escape_tag(name)


def test_a_request_is_of_some_weeks_and_some_megabytes() -> None:
    """InfluxDB makes a shard for each week, and gives up a request after 10 s: on a busy machine years took longer."""
    pieces = [b"m v=1 %d\n" % (DAY + n * DAY_NS) for n in range(1_000)]
    pieces[100] = b""
    pieces[500] *= 3 * WRITE_BYTES // len(pieces[500])
    requests = list(_requests(iter(pieces)))
    assert b"".join(requests) == b"".join(pieces)
    assert len(requests) <= 1_000 / 7 / (WEEKS_AT_ONCE - 1) + 5
    for request in requests:
        assert request.endswith(b"\n")
        assert len(request) <= WRITE_BYTES
        times = [int(line.rsplit(b" ")[-1]) for line in request.splitlines()]
        assert max(times) - min(times) <= WEEKS_AT_ONCE * 7 * DAY_NS
    assert list(_requests([])) == list(_requests([b"", b""])) == []


def test_times_of_influxdb() -> None:
    assert nanoseconds("1970-01-01T00:00:00Z") == 0
    assert nanoseconds("2023-11-14T22:13:20.000000123Z") == 1_700_000_000_000_000_123
    assert nanoseconds("1677-09-21T00:12:43.145224194Z") == -(2**63) + 2
    assert nanoseconds("2262-04-11T23:47:16.854775806Z") == 2**63 - 2


def test_what_is_read_while_it_is_written_is_whole(influx_server: InfluxServer, tmp_path: Path) -> None:
    """InfluxDB shows a point's fields one by one."""
    open_one = influx_history(influx_server)
    written = [tick(n, DAY + n * 1_000_000, price=100.0 + n % 7) for n in range(6_000)]
    with closing(open_one(tmp_path)) as history, closing(open_one(tmp_path, write=False)) as reader:

        def write() -> None:
            for first in range(0, len(written), 20):
                history.write(
                    HistoryBatch(
                        ticks=written[first : first + 20], minutes=[(1, minute(0, 1 + first, price=9_000.0))]
                    )
                )

        writing = threading.Thread(target=write)
        writing.start()
        seen = 0
        while writing.is_alive():
            ticks = list(reader.ticks(1, *EVER))
            assert set(ticks) <= set(written)
            assert len(ticks) >= seen
            seen = len(ticks)
            assert len(reader.bars(1, "1m", *EVER)) <= 1
            assert len(reader.bars(1, "1h", *EVER)) <= 1
            newest = reader.newest_tick(1)
            assert newest == 0 or newest in {each.ts_event for each in written}
        writing.join()
        assert list(reader.ticks(1, *EVER)) == written
        assert reader.bars(1, "1m", *EVER) == [minute(0, 5_981, price=9_000.0)]


def test_a_batch_that_was_cut_off_counts_once_in_its_bars(
    influx_server: InfluxServer, tmp_path: Path
) -> None:
    """Its points are there, the places are not: the recorder reads the same trades again."""
    trades: list[Record] = [
        JournalTrade(n, 1, n, 1, 100.0, 0.5, 0.0, 0.0, DAY + n * 1_000_000, 0, 0) for n in range(1, 6)
    ]
    with closing(influx_history(influx_server)(tmp_path)) as history:
        stats = Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS)
        sink = HistorySink(tmp_path, stats, 0.005, history, lambda _: 5)
        sink.open()
        sink.take("journal", trades[:2])
        sink.commit({"journal": 3})
        sink.take("journal", trades[2:4])
        with closing(sqlite3.connect(tmp_path / "sim" / HISTORY_FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DataFolderError, match="locked"):
                sink.commit({"journal": 5})
        assert [each.trade_id for each in history.ticks(1, *EVER)] == [1, 2, 3, 4]
        assert sink.open() == {"journal": 3}
        sink.take("journal", trades[2:])
        sink.commit({"journal": 6})
        (bar,) = history.bars(1, "1m", *EVER)
        assert (bar.trade_count, bar.volume) == (5, 2.5)
