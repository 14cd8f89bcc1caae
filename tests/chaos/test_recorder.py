"""A market under which server, recorder, exchange connections, disk and clock fail: what is stored is what was traded.

The seed of a run is printed; `TRADEBACK_SEED` repeats one. `make chaos` runs for ten minutes instead of one.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.disturbances import Disturbed
from tests.chaos.test_server_kill import await_given_up
from tests.e2e.fake_clock import FakeClock
from tests.e2e.running import SimProcess, stream_ids
from tests.e2e.test_recorder import FOR_EVER, opened_history
from tests.reference.ledger import bar_differences, bars_of, read_ledger, tick_differences
from tests.scale import CHAOS
from tradeback.model import RESOLUTIONS

SECONDS = 600.0 if CHAOS else 60.0
SYMBOLS = 20
RATE = 5_000
DISK = "2g" if CHAOS else "300m"
SAFETY = 120.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, which can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def until_all_trade(sim: SimProcess) -> None:
    """Wait until every symbol was traded again: what was missed before is then known as missing."""
    counts = {name: row["count"] for name, row in sim.get("/sim/ledger").items()}
    deadline = time.monotonic() + SAFETY
    while any(row["count"] <= counts[name] for name, row in sim.get("/sim/ledger").items()):
        assert time.monotonic() < deadline, "a symbol was not traded again"
        time.sleep(0.05)


@pytest.mark.timeout(int(SECONDS) + 500)
def test_what_is_stored_is_what_was_traded_whatever_fails(disk: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("TRADEBACK_SEED") or random.randrange(2**32))
    print(f"seed {seed}")
    market = ("--symbols", str(SYMBOLS), "--rate", str(RATE), "--seed", str(seed), "--paused", "--no-history")
    tolerant = ("--weight-limit", "1000000", "--max-attempts", "1000000")
    with (
        SimProcess(*market, *tolerant) as sim,
        FakeClock(tmp_path) as clock,
        Disturbed(disk, sim, clock, random.Random(seed)) as disturbed,
    ):
        disturbed.server.await_subscribed(SYMBOLS)
        sim.get("/sim/resume")
        try:
            disturbed.disturb(SECONDS)
        finally:
            print("\n".join(disturbed.done))
        disturbed.calm()
        disturbed.server.await_subscribed(SYMBOLS)
        until_all_trade(sim)
        sim.pause_and_drain()
        await_given_up(disturbed.server)
        status = disturbed.recorder.await_stored(repaired=True)
        disturbed.assert_alive()
        assert status["gaps"] == {"open": 0, "unfillable": 0}
        assert_stored_is_traded(disk, sim)
        assert disturbed.recorder.stop() == 0
        assert disturbed.server.stop() == 0
    for log in ("server.log", "recorder.log"):
        assert "Traceback" not in (disk / log).read_text()


def assert_stored_is_traded(folder: Path, sim: SimProcess) -> None:
    ids = stream_ids(folder)
    total = records = 0
    with opened_history(folder) as history:
        covered = history.covered()
        for name in sorted(sim.get("/sim/ledger")):
            trades = read_ledger(sim.get, name)
            stream_id = ids[name]
            assert covered[stream_id] == [(trades[0].trade_id, trades[-1].trade_id)], name
            ticks = list(history.ticks(stream_id, 0, FOR_EVER))
            assert tick_differences(ticks, trades) == [], name
            for resolution, length in RESOLUTIONS.items():
                stored = history.bars(stream_id, resolution, 0, FOR_EVER)
                assert bar_differences(stored, bars_of(trades, length)) == [], (name, resolution)
            total += len(trades)
            records += len(ticks)
    print(f"{total} trades of {len(ids)} symbols in {records} records")
    assert total > SECONDS * 100
