"""What each process says of itself now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.api import ApiProcess
from tests.e2e.child import ReadyChild, logged
from tests.e2e.running import Audit, RecorderProcess, ServerProcess, SimProcess

SAFETY = 60.0


Line = dict[str, Any]


def line(child: ReadyChild, wanted: Callable[[Line], object]) -> Line:
    """The first line of performance of which `wanted` is true: one that was before may tell less."""
    deadline = time.monotonic() + SAFETY
    while True:
        for said in logged(child.log, event="performance"):
            if wanted(said):
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
            line(server, lambda said: said["messages_trade"] > 0 and said["records_sent"] > 0)
            said = line(server, lambda said: said["clients"] == 3 and said.get("recv_to_send_us"))
            p50, p95, p99 = said["recv_to_send_us"]
            assert 0 <= p50 <= p95 <= p99
            assert "lag_history" in line(recorder, lambda said: said["ticks"] > 0)
            api.ask("/api/v1/symbols")
            api.ask("/nowhere")
            said = line(api, lambda said: said.get("status_404"))
            assert said["status_404"] == 1
            assert 0 < said["p50_ms"] <= said["p99_ms"]
