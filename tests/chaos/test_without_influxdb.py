"""InfluxDB is gone while the market goes on: clients hear all, and when it comes back all of it is stored."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.test_recorder import assert_stored_is_traded, until_all_trade
from tests.conftest import private
from tests.e2e.running import (
    Audit,
    RecorderProcess,
    ServerProcess,
    SimProcess,
    await_sums_of_ledger,
    quantity_decimals,
)
from tests.scale import CHAOS
from tests.servers.influx import InfluxServer
from tests.servers.services import give

SECONDS = 600.0 if CHAOS else 5.0
SYMBOLS = 20
RATE = 5000
CLIENTS = 20


def behind(recorder: RecorderProcess) -> int:
    """How many records the history has still to store; 0 while it does not know that it cannot."""
    (history,) = [one for one in recorder.control(type="status")["sinks"] if one["name"] == "history"]
    return int(history["journals"]["journal"]["lag"]) if history["error"] else 0


@pytest.mark.timeout(int(SECONDS) + 500)
def test_nothing_is_lost_while_influxdb_is_away(tmp_path: Path) -> None:
    market = ("--symbols", str(SYMBOLS), "--rate", str(RATE), "--paused", "--no-history")
    with private(InfluxServer, tmp_path / "influx") as influx, SimProcess(*market) as sim:
        give(tmp_path, {**influx.environment, "INFLUX_TIMEOUT": "10s"})
        names = list(sim.get("/sim/ledger"))
        with (
            ServerProcess(tmp_path, sim, EXCHANGE_SYMBOLS=",".join(names)) as server,
            RecorderProcess(tmp_path, sim) as recorder,
        ):
            server.await_subscribed(SYMBOLS)
            with Audit(server.ws_port, CLIENTS, names[:3]) as clients:
                sim.get("/sim/resume")
                until_all_trade(sim)
                influx.kill()
                began = time.monotonic()
                while time.monotonic() < began + SECONDS:  # so long it is away: that is what is tried
                    time.sleep(1)
                    assert recorder.process.poll() is None
                # Of the messages half are trades, of which a busy machine makes fewer in that time.
                deadline = began + SECONDS + 120
                while (missing := behind(recorder)) <= SECONDS * RATE / 10:
                    assert time.monotonic() < deadline, f"{missing} records only were not stored"
                    time.sleep(0.1)
                influx.start()
                back = time.monotonic()
                until_all_trade(sim)
                sim.pause_and_drain()
                decimals = quantity_decimals(sim.rest_endpoint)
                await_sums_of_ledger(sim, clients, {name: decimals[name] for name in names[:3]})
            status = recorder.await_stored(repaired=True)
            took = time.monotonic() - back
            print(f"{missing:,} records were not stored after {SECONDS:g} s, and {took:.1f} s later all were")
            assert status["gaps"] == {"open": 0, "unfillable": 0}
            assert_stored_is_traded(tmp_path, sim, SECONDS)
            assert recorder.stop() == 0
            assert server.stop() == 0
    for name in ("server", "recorder"):
        assert "Traceback" not in (tmp_path / f"{name}.log").read_text()
