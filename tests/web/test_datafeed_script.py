"""datafeed.js under what the charting library asks of it, on real servers, over a midnight at which every bar ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import ApiProcess
from tests.e2e.fake_clock import FakeClock
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, await_given_up
from tests.servers.server import free_port
from tests.web.driven import Driven
from tests.web.node import PATIENCE_S

SYMBOL = "BTCUSDT"
NAMES = {"1": "1m", "5": "5m", "15": "15m", "60": "1h", "240": "4h", "1D": "1d"}
DAY_S = 86400
LOADED_S = 3600.0  # before midnight, while everything starts
WATCHED_S = 4.0  # before midnight, with the charts open


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClock]:
    """The clock of all processes that are started: before midnight."""
    with FakeClock(tmp_path) as clock:
        for name, value in clock.environment.items():
            monkeypatch.setenv(name, value)
        clock.jump(before_midnight(LOADED_S))
        yield clock


# Always the same one, also where the real clock passes it meanwhile.
MIDNIGHT = (time.time() // DAY_S + 1) * DAY_S


def before_midnight(seconds: float) -> float:
    """How far ahead a clock is that is so long before that midnight."""
    return MIDNIGHT - seconds - time.time()


def begins_a_day(bar: dict[str, Any]) -> bool:
    return bool(bar["time"] % (1000 * DAY_S) == 0)


def await_report(feed: Driven, fits: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the charts are as they should be."""
    deadline = time.monotonic() + PATIENCE_S
    while not fits((report := feed.ask("report"))["charts"]):
        assert time.monotonic() < deadline, report
        time.sleep(0.1)


def await_trades(sim: SimProcess, count: int) -> None:
    """Wait until so many trades were made."""
    deadline = time.monotonic() + PATIENCE_S
    while (made := sim.get("/sim/ledger", symbol=SYMBOL)["count"]) < count:
        assert time.monotonic() < deadline, f"{made} trades were made, not {count}"
        time.sleep(0.05)


def differing(api: ApiProcess, charts: dict[str, Any]) -> dict[str, Any]:
    """What the charts show otherwise than REST, by resolution: the bar shown, and REST's."""
    found: dict[str, Any] = {}
    for resolution, chart in charts.items():
        shown = [{**bar, "time": bar["time"] // 1000} for bar in chart["bars"]]
        asked = f"resolution={NAMES[resolution]}&from={shown[0]['time']}"
        stored = api.get(f"/api/v1/symbols/{SYMBOL}/bars?{asked}")["bars"]
        if shown != stored:
            pairs = zip(shown, stored, strict=False)
            found[resolution] = (len(shown), len(stored), [pair for pair in pairs if pair[0] != pair[1]][:2])
    return found


def await_equal(api: ApiProcess, feed: Driven) -> dict[str, Any]:
    """Wait until every chart shows REST's bars, the one in progress included; returns the charts."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        report = feed.ask("report")
        charts: dict[str, Any] = report["charts"]
        found = differing(api, charts)
        if not found:
            return charts
        assert time.monotonic() < deadline, f"{found}, failures {report['failures']}"
        time.sleep(0.2)


def test_live_bars_are_those_of_rest(tmp_path: Path, clock: FakeClock) -> None:
    symbols = {"EXCHANGE_SYMBOLS": SYMBOL}
    with (
        SimProcess("--symbols", "5", "--rate", "300") as sim,
        ServerProcess(tmp_path, sim, **symbols) as server,
        RecorderProcess(tmp_path, sim) as recorder,
        ApiProcess(tmp_path, WS_PORT=str(server.ws_port)) as api,
        Driven("charts.mjs", f"{api.address}/api/v1", SYMBOL) as feed,
    ):
        server.await_subscribed(1)
        recorder.control(type="status")
        clock.jump(before_midnight(WATCHED_S))
        assert feed.ask("open") == list(NAMES)
        await_report(feed, lambda charts: all(begins_a_day(chart["bars"][-1]) for chart in charts.values()))
        feed.ask("older")
        await_report(feed, lambda charts: all(chart["ticks"] > 10 for chart in charts.values()))
        sim.pause_and_drain()
        recorder.await_stored()
        charts = await_equal(api, feed)
        assert all(chart["ticks"] > 10 for chart in charts.values()), charts
        # Over midnight nothing had to be loaded again.
        assert {chart["resets"] for chart in charts.values()} == {0}
        assert feed.ask("end") == {}
        assert feed.stop() == 0


def test_bars_of_an_outage_come_from_rest(tmp_path: Path) -> None:
    with (
        SimProcess("--symbols", "5", "--rate", "300") as sim,
        # On a port that the kernel gives to no other while no server listens on it.
        ServerProcess(tmp_path, sim, EXCHANGE_SYMBOLS=SYMBOL, WS_PORT=str(free_port())) as server,
        RecorderProcess(tmp_path, sim) as recorder,
        ApiProcess(tmp_path, WS_PORT=str(server.ws_port)) as api,
        Driven("charts.mjs", f"{api.address}/api/v1", SYMBOL) as feed,
    ):
        server.await_subscribed(1)
        feed.ask("open")
        server.kill()
        before = sim.get("/sim/ledger", symbol=SYMBOL)["count"]
        await_trades(sim, before + 100)
        with ServerProcess(tmp_path, sim, EXCHANGE_SYMBOLS=SYMBOL, WS_PORT=str(server.ws_port)) as second:
            second.await_subscribed(1)
            # Each chart is told that what it keeps may be of no use, once it is connected again.
            await_report(feed, lambda charts: all(chart["resets"] for chart in charts.values()))
            await_trades(sim, before + 300)
            sim.pause_and_drain()
            await_given_up(second)
            recorder.await_stored(repaired=True)
            feed.ask("reset")
            await_equal(api, feed)
            assert feed.stop() == 0
