"""What each process says of itself now and then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson

from tests.e2e.api import ApiProcess
from tests.e2e.child import ReadyChild
from tests.e2e.running import Audit, RecorderProcess, ServerProcess, SimProcess

SAFETY = 60.0


def line(child: ReadyChild, field: str) -> dict[str, Any]:
    """The first line of performance in which that field is above 0."""
    deadline = time.monotonic() + SAFETY
    while True:
        for raw in child.log.read_bytes().splitlines(keepends=True):
            if raw.startswith(b"{") and raw.endswith(b"\n"):
                said: dict[str, Any] = orjson.loads(raw)
                if said["event"] == "performance" and said.get(field):
                    return said
        assert time.monotonic() < deadline, child.said()
        time.sleep(0.05)


def test_each_process_tells_what_it_did(tmp_path: Path) -> None:
    often = {"LOG_PERFORMANCE": "200ms"}
    with SimProcess("--symbols", "2", "--rate", "500") as sim:
        names = sorted(sim.get("/sim/ledger"))
        with (
            ServerProcess(tmp_path, sim, EXCHANGE_SYMBOLS=",".join(names), **often) as server,
            RecorderProcess(tmp_path, sim, **often) as recorder,
            ApiProcess(tmp_path, **often) as api,
            Audit(server.ws_port, 3, names),
        ):
            said = line(server, "recv_to_send_us")
            assert said["clients"] == 3
            assert line(server, "records_sent")["messages_trade"] > 0
            p50, p95, p99 = said["recv_to_send_us"]
            assert 0 <= p50 <= p95 <= p99
            assert "lag_history" in line(recorder, "ticks")
            api.ask("/api/v1/symbols")
            api.ask("/nowhere")
            said = line(api, "status_404")
            assert said["status_404"] == 1
            assert 0 < said["p50_ms"] <= said["p99_ms"]
