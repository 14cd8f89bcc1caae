"""`tradeback backfill` as a process: what it refuses, and a recorder that does it; against a simulated exchange."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.backfilling import await_more, backfill, ended
from tests.e2e.child import STOP_TIMEOUT
from tests.e2e.running import RecorderProcess, SimProcess


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
