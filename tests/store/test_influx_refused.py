"""Points that InfluxDB refuses: they are told and counted, and hold up nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.servers.influx import InfluxServer
from tests.store.conftest import influx_history, sqlite_config
from tests.store.test_history import DAY, DAY_NS, EVER, minute, tick
from tradeback._fast.journal import JournalTrade, Record
from tradeback._fast.stats import Stats
from tradeback.errors import HistoryError
from tradeback.model import Bar, Tick
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.history_sink import HistorySink
from tradeback.store import influx as influx_module
from tradeback.store.base import History, HistoryBatch
from tradeback.store.influx import Influx

WEEK = 7 * DAY_NS  # of one shard
PAST_ALL = 2**63 - 1  # InfluxDB keeps this time for itself
REFUSES = "InfluxDB refuses points: they are not stored, all others are. Its reason says what to mend"


@pytest.fixture(autouse=True)
def _told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test takes so long that it is told again."""
    assert influx_module.REFUSED_TOLD_EVERY == 60.0
    monkeypatch.setattr(influx_module, "REFUSED_TOLD_EVERY", 3600.0)


@pytest.fixture
def bucket(influx_server: InfluxServer, request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings that name a bucket of this test's own: types of fields hold for all who write to one."""
    influx_server.make_bucket(request.node.name)
    return {"INFLUX_BUCKET": request.node.name}


def stored(history: History) -> list[int]:
    return [each.trade_id for each in history.ticks(1, *EVER)]


def test_a_point_that_cannot_be_read_holds_up_no_other(
    influx_server: InfluxServer, bucket: dict[str, str], tmp_path: Path
) -> None:
    """A 400: nothing of that request was stored."""
    with closing(influx_history(influx_server)(tmp_path, **bucket)) as history, capture_logs() as logs:
        stats = Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS)
        sink = HistorySink(tmp_path, stats, 0.005, history, lambda _: 5, bars=False)
        sink.open()
        times = {3: PAST_ALL - 3, 70: PAST_ALL - 70}
        trades: list[Record] = [
            JournalTrade(n, 1, n, 1, 100.0, 0.5, 0.0, 0.0, times.get(n, DAY + n * 1_000_000), 0, 0)
            for n in range(1, 100)
        ]
        for _ in range(2):
            sink.take("journal", trades)
            sink.commit({"journal": 100})
            sink.open()
        assert history.places() == {"journal": 100}
        assert stored(history) == [n for n in range(1, 100) if n not in times]
        assert history.refused == 2  # the second time they were known
    (told,) = [each for each in logs if each["event"] == REFUSES]
    assert told["log_level"] == "error"
    assert told["refused"] == 2
    assert told["point"].startswith("trades,exchange=")
    assert ",sequence=3i," in told["point"]
    assert "time outside range" in told["reason"]


@pytest.mark.parametrize("others", [1, 40])
def test_a_field_of_another_type_holds_up_no_other_measurement_and_no_other_week(
    influx_server: InfluxServer, bucket: dict[str, str], tmp_path: Path, others: int
) -> None:
    """A 422: of that shard the others were stored. Another program wrote prices as text in one week."""
    config = sqlite_config(tmp_path, **influx_server.environment | bucket)
    with closing(Influx(config.database.influx)) as influx:
        influx.write(b'trades,exchange=theirs price="dear" %d\n' % (DAY + WEEK))
    weeks = [DAY + n * WEEK for n in (0, 1, 2)]
    ticks = [
        tick(week * others + n + 1, weeks[week] + n * 1_000_000) for week in (0, 1, 2) for n in range(others)
    ]
    kept = [each for each in ticks if not weeks[1] <= each.ts_event < weeks[2]]
    written = [minute(0), minute(8 * 1_440)]  # of another measurement
    with closing(influx_history(influx_server)(tmp_path, **bucket)) as history, capture_logs() as logs:
        history.write(HistoryBatch(ticks=ticks, minutes=[(1, bar) for bar in written], places={"journal": 1}))
        assert history.places() == {"journal": 1}
        assert list(history.ticks(1, *EVER)) == kept
        assert history.bars(1, "1m", *EVER) == written
        assert history.bars(1, "1h", *EVER) != []
        assert history.refused == others
        history.write(HistoryBatch(ticks=ticks))
        assert history.refused == 2 * others
    (told,) = [each for each in logs if each["event"] == REFUSES]  # not again so soon
    assert told["refused"] == others
    assert "field type conflict" in told["reason"]


def test_what_is_older_than_the_bucket_keeps_holds_up_nothing(
    influx_server: InfluxServer, tmp_path: Path
) -> None:
    influx_server.make_bucket("short", retention_s=3_600)
    now = time.time_ns() // 1_000_000_000 * 1_000_000_000
    old = [tick(n, now - 2 * 3_600_000_000_000 + n) for n in (1, 2, 3)]
    new = [tick(n, now - 60_000_000_000 + n) for n in (4, 5)]
    days = [Bar(now - now % DAY_NS - n * DAY_NS, 1.0, 1.0, 1.0, 1.0, 1.0, 1) for n in range(500, 2, -1)]
    with closing(influx_history(influx_server)(tmp_path, INFLUX_BUCKET="short")) as history:
        history.write(HistoryBatch(ticks=[*old, *new, *old]))
        assert stored(history) == [4, 5]
        assert history.refused == 6
        history.write_bars(1, "1d", days)
        assert history.refused == 6 + len(days)


@pytest.mark.parametrize(
    "body", ["<html>400 The plain HTTP request was sent to HTTPS port</html>", '{"code": "invalid"}', "[]"]
)
def test_a_400_that_concerns_no_line_is_no_reason_to_pass_over_any(tmp_path: Path, body: str) -> None:
    """Such as that of a proxy: what was to be written waits."""
    with answering(400, body) as url:
        config = sqlite_config(tmp_path, INFLUX_URL=url)
        with closing(Influx(config.database.influx)) as influx:
            with pytest.raises(HistoryError, match="refuses \\(400"):
                influx.write(b"trades price=1.0 1\ntrades price=2.0 2\n")
            assert influx.refused == 0


def test_the_bad_ones_are_found_wherever_they_are(
    influx_server: InfluxServer, bucket: dict[str, str], tmp_path: Path
) -> None:
    """First, last, beside each other, alone, and of very different lengths."""
    with closing(influx_history(influx_server)(tmp_path, **bucket)) as history:
        refused = 0
        for number, bad in enumerate(({0}, {15}, {7, 8}, {0, 15}, set(range(16)), set(range(1, 16)))):
            ticks: Sequence[Tick] = [
                tick(16 * number + n, PAST_ALL - 16 * number - n)
                if n in bad
                else tick(16 * number + n, DAY + n * 1_000_000, price=1 / 3)
                for n in range(16)
            ]
            history.write(HistoryBatch(ticks=ticks))
            refused += len(bad)
            assert history.refused == refused
            assert set(stored(history)) >= {16 * number + n for n in range(16) if n not in bad}
        assert len(stored(history)) == 6 * 16 - refused


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A stranger's server, which answers every request alike."""

    class Stranger(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
