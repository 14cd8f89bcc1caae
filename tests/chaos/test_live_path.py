"""From the exchange's socket to clients' sockets, through real processes: what arrives is what was traded."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Audit, Up, await_sums_of_ledger, quantity_decimals
from tests.scale import CHAOS

RATE = 5_000
SYMBOLS = 20
CLIENTS = 200 if CHAOS else 40
SECONDS = 120.0 if CHAOS else 6.0


def trade_under(
    folder: Path, disturb: Callable[[Up, Audit, float], None], *, seconds: float = SECONDS
) -> dict[str, Any]:
    """Clients subscribe while the market is paused; it runs, `disturb` acts, it pauses; then all must agree."""
    arguments = ["--sim-rate", str(RATE), "--sim-symbols", str(SYMBOLS), "--sim-paused"]
    with Up(folder, *arguments) as up:
        decimals = quantity_decimals(up.rest)
        with Audit(up.ws_port, CLIENTS, sorted(decimals)) as audit:
            up.await_subscribed(SYMBOLS)
            up.sim("/sim/resume")
            disturb(up, audit, time.monotonic() + seconds)
            up.pause_and_drain()
            await_sums_of_ledger(up, audit, decimals)
            status = up.control(type="status")
            assert sum(up.ledger(symbol)["count"] for symbol in decimals) > 100
        assert up.stop() == 0
    return status


def wait_until(moment: float) -> None:
    """The market runs by the clock, so its running time is the one thing here that is waited for by the clock."""
    time.sleep(max(0.0, moment - time.monotonic()))


@pytest.mark.timeout(400)
def test_volumes_equal_the_ledger(tmp_path: Path) -> None:
    trade_under(tmp_path, lambda up, audit, end: wait_until(end))


@pytest.mark.timeout(400)
def test_one_line_cut_and_faulty_makes_no_difference(tmp_path: Path) -> None:
    """The trade line is cut ten times, its messages repeated and reordered: the aggTrade line fills in."""

    def disturb(up: Up, audit: Audit, end: float) -> None:
        pause = (end - time.monotonic()) / 10
        for number in range(10):
            up.sim("/sim/fault", kind="repeat", stream="trade", count=20)
            up.sim("/sim/fault", kind="reorder", stream="trade", count=20)
            up.sim("/sim/fault", kind="cut", stream="trade", count=1)
            wait_until(end - (9 - number) * pause)
        up.await_subscribed(SYMBOLS)

    trade_under(tmp_path, disturb)


@pytest.mark.timeout(400)
def test_a_client_that_stops_reading_misses_nothing(tmp_path: Path) -> None:
    """It reads nothing for 30 s (a shorter time in the short form), then goes on: conflated, not lost."""
    silence = 30.0 if CHAOS else 4.0

    def disturb(up: Up, audit: Audit, end: float) -> None:
        audit.ask("stall 3")
        wait_until(time.monotonic() + silence)
        audit.ask("resume")
        wait_until(end)

    trade_under(tmp_path, disturb, seconds=silence + 2.0)
