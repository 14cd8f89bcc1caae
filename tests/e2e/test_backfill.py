"""`tradeback backfill` as a process: Ctrl-C, kills, a recorder that does it; against a simulated exchange."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.e2e.running import STOP_TIMEOUT, RecorderProcess, SimProcess
from tests.scale import CHAOS
from tradeback.config import Config
from tradeback.errors import DataFolderError
from tradeback.model import MINUTE_NS, Bar
from tradeback.store.base import BackfillJob
from tradeback.store.catalog import open_catalog
from tradeback.store.history_sqlite import HISTORY_FILE, open_history

# The thirty days of fifty symbols that are promised, and a short form.
SYMBOLS, DAYS = (50, 30) if CHAOS else (8, 2)
TIMEOUT = 600.0


def backfill(folder: Path, sim: SimProcess, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tradeback", "backfill", *arguments, "--data-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TRADEBACK_EXCHANGE": "sim", "EXCHANGE_REST_ENDPOINT": sim.rest_endpoint},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, and what it printed to both."""
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


def stored(folder: Path) -> tuple[list[BackfillJob], dict[str, list[Bar]]]:
    config = Config.model_validate({"data": {"folder": folder}, "exchange": {"name": "sim"}})
    catalog, history = open_catalog(config, create=False), open_history(config, write=False)
    try:
        names = {symbol.stream_id: symbol.name for symbol in catalog.symbols()}
        jobs = history.jobs()
        return jobs, {
            names[job.stream_id]: history.bars(job.stream_id, job.resolution, job.start, job.end)
            for job in jobs
        }
    finally:
        catalog.close()
        history.close()


def pages_done(folder: Path) -> int:
    """How far the jobs are together, in minutes; 0 while there is no history."""
    if not (folder / "sim" / HISTORY_FILE).exists():
        return 0
    config = Config.model_validate({"data": {"folder": folder}, "exchange": {"name": "sim"}})
    try:
        with closing(open_history(config, write=False)) as history:
            return sum(job.done_to - job.start for job in history.jobs()) // MINUTE_NS
    except DataFolderError:
        return 0  # it is being made


def await_more(folder: Path, before: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while pages_done(folder) <= before and process.poll() is None:
        assert time.monotonic() < deadline, "no page came"
        time.sleep(0.02)


def test_it_goes_on_over_ctrl_c_and_kills(tmp_path: Path) -> None:
    with SimProcess("--symbols", str(SYMBOLS), "--rate", "0") as sim:
        names = [row["symbol"] for row in sim.get("/api/v3/exchangeInfo")["symbols"]]
        arguments = (*names, "--days", str(DAYS))
        for signum in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
            before = pages_done(tmp_path)
            process = backfill(tmp_path, sim, *arguments)
            await_more(tmp_path, before, process)
            process.send_signal(signum)
            code, out, err = ended(process)
            if signum == signal.SIGINT and code == 130:
                assert "the same command goes on where this one was" in err
            else:
                assert code in (-signum, 0), err
            assert pages_done(tmp_path) >= before
        code, out, err = ended(backfill(tmp_path, sim, *arguments))
        assert code == 0, err
        assert f"{SYMBOLS} symbols" in out
        assert f"{SYMBOLS} of {SYMBOLS} symbols" in err
        jobs, bars = stored(tmp_path)
        assert len(jobs) == SYMBOLS
        assert all(job.done and not job.error for job in jobs)
        for name in (names[0], names[-1]):
            job = jobs[names.index(name)]
            rows = sim.get(
                "/api/v3/klines", symbol=name, interval="1m", startTime=job.start // 10**6, limit=1000
            )
            expected = [
                Bar(
                    row[0] * 10**6,
                    *(float(row[column]) for column in (1, 2, 3, 4, 5)),
                    row[8],
                )
                for row in rows
            ]
            assert bars[name][: len(rows)] == expected
        again = ended(backfill(tmp_path, sim, *arguments))
        assert again[0] == 0


def test_what_cannot_be_done_is_told_in_a_sentence(tmp_path: Path) -> None:
    with SimProcess("--symbols", "3", "--rate", "0") as sim:
        code, _, err = ended(backfill(tmp_path, sim, "BTCUSD"))
        assert code == 1
        assert err.startswith("Error: BTCUSD: no such symbol in the catalog of sim; did you mean BTCUSDT")
        code, _, err = ended(backfill(tmp_path, sim, "BTCUSDT", "--resolution", "7m"))
        assert code == 2
        assert "'1m', '5m', '15m', '1h', '4h', '1d', 'all'" in err
        assert ended(backfill(tmp_path, sim, "BTCUSDT", "--days", "-1"))[0] == 2
    code, _, err = ended(backfill(tmp_path, sim, "BTCUSDT"))
    assert code == 1
    assert "cannot be reached" in err
    assert "EXCHANGE_REST_ENDPOINT" in err


def test_a_recorder_that_runs_does_it(tmp_path: Path) -> None:
    with SimProcess("--symbols", "3", "--rate", "0") as sim:
        first = ended(backfill(tmp_path, sim, "ETHUSDT", "--days", "0"))
        assert first[0] == 0, first
        with RecorderProcess(tmp_path, sim) as recorder:
            code, out, err = ended(backfill(tmp_path, sim, "btcusdt", "--days", "1", "--resolution", "all"))
            assert code == 0, err
            assert out.startswith("1 symbol, ")
            state = recorder.control(type="progress")
            mine = [job for job in state["jobs"] if job["symbol"] == "BTCUSDT"]
            assert len(mine) == 6
            assert all(job["done_to"] >= job["end"] for job in mine)
            code, _, err = ended(backfill(tmp_path, sim, "NOSUCH"))
            assert (code, "NOSUCH: no such symbol" in err) == (1, True)
            refused = recorder.control(type="backfill", symbols=["BTCUSDT"], resolutions=["1w"], days=1)
            assert refused["type"] == "error"


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    with SimProcess("--symbols", "20", "--rate", "0") as sim:
        names = [row["symbol"] for row in sim.get("/api/v3/exchangeInfo")["symbols"]]
        long = backfill(tmp_path, sim, *names, "--days", "90")
        try:
            await_more(tmp_path, 0, long)
            code, _, err = ended(backfill(tmp_path, sim, "BTCUSDT"))
            assert code == 1
            assert f"process {long.pid}" in err
        finally:
            long.kill()
            long.communicate(timeout=STOP_TIMEOUT)
