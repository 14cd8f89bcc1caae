"""The data folder's disk is full for a while, under load: clients get all, and no id is lost from the books."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.test_server_kill import GAP, TRADE
from tests.conftest import fill
from tests.e2e.running import (
    Audit,
    ServerProcess,
    SimProcess,
    await_given_up,
    await_sums_of_ledger,
    journal_rows,
    quantity_decimals,
    stream_id_of,
    stream_ids,
)
from tests.reference.journal_ids import KIND_AT, KIND_BEGIN, Coverage
from tests.waiting import await_true
from tradeback.store.stats import read_stats

SYMBOLS = 8
RATE = 4_000
SEGMENT = {"JOURNAL_SEGMENT_BYTES": "128KiB", "JOURNAL_RETENTION_BYTES": "1GiB"}
UNWRITTEN = 5  # GapReason


@pytest.fixture
def disk(mounted: Callable[[str], Path]) -> Path:
    return mounted("64m")


def unwritten(server: ServerProcess) -> int:
    return int(server.control(type="status")["journal"]["unwritten_symbols"])


def settle(sim: SimProcess, server: ServerProcess) -> None:
    """The market stops, what waits is given up, and all of it is journaled."""
    sim.pause_and_drain()
    await_given_up(server)


def assert_all_accounted_for(disk: Path, sim: SimProcess) -> set[int]:
    """Every id up to the ledger's last is once a trade or in a gap. Returns the reasons of the gaps."""
    names = {number: name for name, number in stream_ids(disk).items()}
    coverage: dict[str, Coverage] = defaultdict(Coverage)
    reasons = set()
    for row in journal_rows(disk):
        if row[KIND_AT] in (TRADE, GAP, KIND_BEGIN):
            coverage[names[stream_id_of(row)]].add(row)
        if row[KIND_AT] == GAP:
            reasons.add(int.from_bytes(row[48:52], "little"))
    for name, ledger in sim.get("/sim/ledger").items():
        ids = coverage[name].traded | coverage[name].gaps
        assert ids == set(range(min(ids), ledger["last_id"] + 1)), name
    return reasons


@pytest.mark.timeout(400)
@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed"])
def test_a_full_disk_costs_clients_nothing_and_the_journal_only_details(disk: Path, killed: bool) -> None:
    with SimProcess("--symbols", str(SYMBOLS), "--rate", str(RATE), "--paused") as sim:
        symbols = sorted(sim.get("/sim/ledger"))
        carried = {"EXCHANGE_SYMBOLS": ",".join(symbols), **SEGMENT}
        server = ServerProcess(disk, sim, **carried)
        try:
            with Audit(server.ws_port, 5, symbols) as audit:
                server.await_subscribed(SYMBOLS)
                sim.get("/sim/resume")
                await_true(lambda: server.control(type="status")["journal"]["next_seq"] > 1000)
                fill(disk / "ballast")
                await_true(lambda: unwritten(server) == SYMBOLS)
                log = (disk / "server.log").read_text()
                assert "the journal has no room" in log
                assert str(disk / "sim" / "journal") in log
                assert "free some space" in log
                assert read_stats(disk / "sim" / "stats" / "server").values["journal_unwritten"].value > 0
                if not killed:
                    (disk / "ballast").unlink()
                    settle(sim, server)
                    await_sums_of_ledger(sim, audit, quantity_decimals(sim.rest_endpoint))
            if killed:
                server.kill()
                (disk / "ballast").unlink()
                server = ServerProcess(disk, sim, **carried)
                server.await_subscribed(SYMBOLS)
                traded = {name: row["count"] for name, row in sim.get("/sim/ledger").items()}
                await_true(lambda: all(row["count"] > traded[n] for n, row in sim.get("/sim/ledger").items()))
                settle(sim, server)
            else:
                assert "the journal has room again" in (disk / "server.log").read_text()
            assert server.stop() == 0
        finally:
            server.process.kill()
        reasons = assert_all_accounted_for(disk, sim)
        if not killed:
            assert reasons == {UNWRITTEN}
