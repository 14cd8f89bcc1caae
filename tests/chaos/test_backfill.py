"""`tradeback backfill` over Ctrl-C and kills: what was fetched stays, and the same command goes on."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.e2e.backfilling import await_more, backfill, ended, pages_done, stored
from tests.e2e.running import SimProcess
from tests.scale import CHAOS
from tradeback.model import Bar

# The thirty days of fifty symbols that are promised, and a short form.
SYMBOLS, DAYS = (50, 30) if CHAOS else (8, 2)


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
