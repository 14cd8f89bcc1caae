"""The exchange's clock, as a simulated exchange tells it to a process whose own clock jumps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.fake_clock import FakeClock
from tests.e2e.running import SimProcess

PROGRAM = """
import asyncio, sys, time
from tradeback.exchange.clock import ExchangeClock
from tradeback.exchange.rest import ExchangeRest

async def main():
    async with ExchangeRest(sys.argv[1]) as rest:
        clock = ExchangeClock(rest)
        for line in sys.stdin:
            await clock.ask()
            print(clock.now_ns(), flush=True)

asyncio.run(main())
"""
HOUR = 3_600
"""Far more than a test takes."""


def test_our_own_clock_does_not_matter(tmp_path: Path) -> None:
    with SimProcess("--paused") as sim, FakeClock(tmp_path) as clock:
        clock.jump(-30 * 24 * HOUR)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, sim.rest_endpoint],
            env={**os.environ, **clock.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process, process.stdin, process.stdout:
            for ahead in (-30 * 24 * HOUR, 0, 24 * HOUR, -HOUR):
                clock.jump(ahead)
                process.stdin.write("now\n")
                process.stdin.flush()
                told = int(process.stdout.readline().split()[0])
                theirs = sim.get("/api/v3/time")["serverTime"] * 1_000_000
                assert 0 <= theirs - told < HOUR * 10**9
