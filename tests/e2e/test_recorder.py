"""The recorder behind a real server and a simulated exchange: what is stored is what was traded."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.fake_clock import FakeClock
from tests.e2e.running import (
    RecorderProcess,
    ServerProcess,
    SimProcess,
    Up,
    ask_control,
    stream_ids,
    trade_and_drain,
)
from tests.servers.services import config_of, settings_of
from tradeback._fast.record import FLAGS
from tradeback.model import RESOLUTIONS, Tick
from tradeback.store.histories import open_history
from tradeback.store.history_sqlite import SqliteHistory

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
CARRIED = {"EXCHANGE_SYMBOLS": ",".join(SYMBOLS), "RECORDER_HISTORY_DAYS": "0"}
FOR_EVER = 2**63 - 1


@contextlib.contextmanager
def opened_history(folder: Path) -> Iterator[SqliteHistory]:
    config = config_of(folder)
    history = open_history(config, write=False)
    try:
        yield history
    finally:
        history.close()


def exchange_trades(sim: Any, symbol: str, first: int, last: int) -> dict[int, tuple[float, Decimal, int]]:
    """Price, quantity and ms of each trade that the exchange made, by id."""
    found: dict[int, tuple[float, Decimal, int]] = {}
    while first <= last:
        rows = sim("/api/v3/historicalTrades", symbol=symbol, fromId=first, limit=1000)
        assert rows, f"the exchange has no trades of {symbol} from {first} on"
        for row in rows:
            if row["id"] <= last:
                found[row["id"]] = (float(row["price"]), Decimal(row["qty"]), row["time"])
        first = rows[-1]["id"] + 1
    return found


def check_symbol(sim: Any, history: SqliteHistory, symbol: str, stream_id: int) -> int:
    """Every trade from the first stored one to the exchange's last is stored once, as it was made; bars are the
    exchange's. Returns how many records are stored."""
    ticks = list(history.ticks(stream_id, 0, FOR_EVER))
    last = sim("/sim/ledger", symbol=symbol)["last_id"]
    ((first, covered_to),) = history.covered()[stream_id]
    assert covered_to == last
    made = exchange_trades(sim, symbol, first, last)
    left = dict(made)
    # Those that stand for one id first: the others then stand for what is left below theirs.
    for tick in sorted(ticks, key=lambda tick: (tick.trade_count > 1, tick.trade_id)):
        check_tick(tick, left)
    assert not left, f"{symbol}: not stored: {sorted(left)[:10]}"
    check_bars(sim, history, symbol, stream_id, "1m", made[first][2] * 1_000_000)
    return len(ticks)


def check_tick(tick: Tick, left: dict[int, tuple[float, Decimal, int]]) -> None:
    ids = [tick.trade_id]
    if tick.flags & FLAGS["sparse"]:
        at = tick.trade_id - 1
        while len(ids) < tick.trade_count:
            if at in left:
                ids.append(at)
            at -= 1
    else:
        ids += range(tick.trade_id - tick.trade_count + 1, tick.trade_id)
    trades = [left.pop(number) for number in ids]
    assert {trade[0] for trade in trades} == {tick.price}
    assert float(sum(trade[1] for trade in trades)) == pytest.approx(tick.volume, rel=1e-15)
    assert tick.ts_event == trades[0][2] * 1_000_000


def check_bars(
    sim: Any, history: SqliteHistory, symbol: str, stream_id: int, resolution: str, start: int
) -> None:
    """The stored bars that open from `start` on, unix ns, against the exchange's own; the one in progress is one."""
    start -= start % RESOLUTIONS[resolution]
    stored = {bar.open_time // 1_000_000: bar for bar in history.bars(stream_id, resolution, start, FOR_EVER)}
    rows = sim("/api/v3/klines", symbol=symbol, interval=resolution, startTime=start // 1_000_000, limit=1000)
    theirs = {row[0]: row for row in rows if row[8]}
    assert stored.keys() == theirs.keys()
    for opened, row in theirs.items():
        bar = stored[opened]
        assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == tuple(map(float, row[1:6]))
        assert bar.trade_count == row[8]


def check_all(sim: Any, folder: Path) -> int:
    """Every carried symbol; returns how many records are stored."""
    ids = stream_ids(folder)
    with opened_history(folder) as history:
        return sum(check_symbol(sim, history, symbol, ids[symbol]) for symbol in SYMBOLS)


@pytest.mark.timeout(180)
def test_what_is_stored_is_what_was_traded(tmp_path: Path) -> None:
    with Up(tmp_path, "--sim-rate", "2000", "--sim-symbols", "10", environment=CARRIED) as up:
        up.await_subscribed(len(SYMBOLS))
        trade_and_drain(up.rest, 10_000)
        status = up.await_stored(repaired=True)
        assert check_all(up.sim, tmp_path) > 1_000
        deadline = time.monotonic() + 60
        while ask_control(tmp_path / "sim" / "recorder.sock", {"type": "status"})["backfill"]["pending"]:
            assert time.monotonic() < deadline, "the day's bars were never fetched"
            time.sleep(0.05)
        now = time.time_ns()
        with opened_history(tmp_path) as history:
            for symbol, resolution in itertools.product(SYMBOLS, RESOLUTIONS):
                check_bars(up.sim, history, symbol, stream_ids(tmp_path)[symbol], resolution, now)
        assert (status["errors"], status["gaps"]) == ([], {"open": 0, "unfillable": 0})
        assert up.stop() == 0
    assert "Traceback" not in (tmp_path / "up.log").read_text()


@pytest.mark.timeout(120)
def test_a_second_recorder_is_refused(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, None) as first:
        second = subprocess.run(
            [sys.executable, "-m", "tradeback", "recorder", "--data-dir", str(tmp_path)],
            capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, **settings_of(tmp_path), **SIM_EXCHANGE},
        )  # fmt: skip
        assert second.returncode == 1
        assert re.search(rf"is being written by process {first.process.pid}: stop that one", second.stderr)
        assert first.stop() == 0
    # The lock ends with its process, also where that is killed.
    with RecorderProcess(tmp_path, None) as recorder:
        recorder.kill()
    with RecorderProcess(tmp_path, None):
        pass


@pytest.mark.timeout(180)
def test_a_recorder_that_comes_late_and_a_server_that_is_killed(tmp_path: Path) -> None:
    with SimProcess("--rate", "2000", "--symbols", "10", "--paused") as sim:
        with ServerProcess(tmp_path, sim, **CARRIED) as server:
            server.await_subscribed(len(SYMBOLS))
            trade_and_drain(sim.rest_endpoint, 4_000)
            with RecorderProcess(tmp_path, sim, **CARRIED) as recorder:
                recorder.await_stored()
                first = check_all(sim.get, tmp_path)
                server.kill()
                with ServerProcess(tmp_path, sim, **CARRIED) as again:
                    again.await_subscribed(len(SYMBOLS))
                    trade_and_drain(sim.rest_endpoint, 4_000)
                    recorder.await_stored()
                    assert check_all(sim.get, tmp_path) > first
                    assert recorder.stop() == 0
        assert "Traceback" not in (tmp_path / "recorder.log").read_text()


@pytest.mark.timeout(240)
def test_a_recorder_that_is_killed_ten_times_under_load(tmp_path: Path) -> None:
    """Lifetimes end anywhere: while it starts, reads, writes, or waits."""
    lifetimes = random.Random(5)
    with (
        SimProcess("--rate", "2000", "--symbols", "10") as sim,
        ServerProcess(tmp_path, sim, **CARRIED) as server,
    ):
        server.await_subscribed(len(SYMBOLS))
        for _ in range(10):
            with RecorderProcess(tmp_path, sim, **CARRIED) as recorder:
                time.sleep(lifetimes.uniform(0.0, 0.5))
                recorder.kill()
        with RecorderProcess(tmp_path, sim, **CARRIED) as recorder:
            sim.pause_and_drain()
            recorder.await_stored(repaired=True)
            assert check_all(sim.get, tmp_path) > 1_000
            assert recorder.stop() == 0
    assert "Traceback" not in (tmp_path / "recorder.log").read_text()


@pytest.mark.timeout(180)
def test_a_recorder_that_is_there_first_and_cannot_reach_the_exchange_stores_all_the_same(
    tmp_path: Path,
) -> None:
    with (
        SimProcess("--rate", "2000", "--symbols", "10", "--paused") as sim,
        # To it, the exchange's REST interface is nowhere.
        RecorderProcess(tmp_path, None) as recorder,
        ServerProcess(tmp_path, sim, **CARRIED) as server,
    ):
        server.await_subscribed(len(SYMBOLS))
        trade_and_drain(sim.rest_endpoint, 3_000)
        status = recorder.await_stored()
        assert status["ticks"] > 300
        assert recorder.stop() == 0
        assert check_all(sim.get, tmp_path) > 300


@pytest.mark.timeout(240)
def test_what_retention_took_from_a_recorder_that_was_away_comes_from_the_exchange(tmp_path: Path) -> None:
    small = {"JOURNAL_SEGMENT_BYTES": "64KiB", "JOURNAL_RETENTION_BYTES": "128KiB"}
    with (
        SimProcess("--rate", "10000", "--symbols", "10", "--paused") as sim,
        ServerProcess(tmp_path, sim, **CARRIED, **small) as server,
    ):
        server.await_subscribed(len(SYMBOLS))
        with RecorderProcess(tmp_path, sim, **CARRIED, **small) as recorder:
            trade_and_drain(sim.rest_endpoint, 2_000)
            recorder.await_stored()
            assert recorder.stop() == 0
        trade_and_drain(sim.rest_endpoint, 60_000)
        with RecorderProcess(tmp_path, sim, **CARRIED, **small) as recorder:
            deadline = time.monotonic() + 120
            while "they become gaps" not in recorder.said():
                assert time.monotonic() < deadline, recorder.said()
                time.sleep(0.05)
            assert re.search(r"is no longer in the journal .* raise JOURNAL_RETENTION_BYTES", recorder.said())
            recorder.await_stored(repaired=True)
            check_all(sim.get, tmp_path)
            assert recorder.stop() == 0


@pytest.mark.timeout(180)
def test_the_uptime_goes_by_no_clock_that_jumps(tmp_path: Path) -> None:
    with (
        FakeClock(tmp_path) as clock,
        SimProcess("--paused") as sim,
        ServerProcess(tmp_path, sim, **CARRIED, **clock.environment) as server,
        RecorderProcess(tmp_path, sim, **CARRIED, **clock.environment) as recorder,
    ):
        for ahead in (-86_400, 86_400):
            clock.jump(ahead)
            for process in (server, recorder):
                assert 0 <= process.control(type="status")["uptime"] < 3_600
        clock.jump(0)
        assert (recorder.stop(), server.stop()) == (0, 0)


@pytest.mark.timeout(180)
def test_nothing_is_fetched_before_the_exchange_told_its_limits(tmp_path: Path) -> None:
    """It is slow with its list; meanwhile a backfill that was begun waits, for its requests have a weight."""
    asked: list[str] = []
    told = threading.Event()
    fetched = threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urllib.parse.urlsplit(self.path).path.rpartition("/")[2]
            asked.append(path)
            if path == "exchangeInfo":
                told.wait(60)
            else:
                fetched.set()
            with urllib.request.urlopen(sim.rest_endpoint + self.path) as answer:
                body = answer.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quietly."""

    with (
        SimProcess("--symbols", "3", "--paused") as sim,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as slow,
    ):
        thread = threading.Thread(target=slow.serve_forever)
        thread.start()
        try:
            with ServerProcess(tmp_path, sim, **CARRIED) as server:
                assert server.stop() == 0  # it leaves a catalog
            rest = {"EXCHANGE_REST_ENDPOINT": f"http://127.0.0.1:{slow.server_port}"}
            with RecorderProcess(tmp_path, sim, **CARRIED, **rest) as recorder:
                job = {"symbols": ["BTCUSDT"], "resolutions": ["1d"], "days": 3}
                assert len(recorder.control(type="backfill", **job)["jobs"]) == 1
                assert not fetched.wait(2.0)
                told.set()
                assert fetched.wait(60)
                assert asked[0] == "exchangeInfo"
                assert recorder.stop() == 0
        finally:
            told.set()
            slow.shutdown()
            thread.join()
