"""What was away for long and comes back: a process that got no time, a late recorder, a memory that is lost."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.test_recorder import assert_stored_is_traded, until_all_trade
from tests.e2e.logins import Logins
from tests.e2e.running import (
    RecorderProcess,
    ServerProcess,
    SimProcess,
    await_given_up,
    journal_rows,
    stream_id_of,
    stream_ids,
)
from tests.reference.journal_ids import KIND_AT, KIND_BEGIN, KIND_TRADE
from tests.waiting import await_true
from tradeback.store.stats import read_stats

MUTE_LIMIT = 5.0  # longer than the exchange may be held up itself by a busy machine
SYMBOL = "ETHUSDT"


def counted(folder: Path, name: str) -> int:
    return read_stats(folder / "sim" / "stats" / "server").values[name].value


def test_a_server_that_was_held_up_reads_what_came_meanwhile(tmp_path: Path) -> None:
    with SimProcess("--symbols", "3", "--rate", "300") as sim:
        carried = {"EXCHANGE_SYMBOLS": ",".join(sim.get("/sim/ledger"))}
        with ServerProcess(tmp_path, sim, EXCHANGE_MUTE_LIMIT=f"{MUTE_LIMIT}s", **carried) as server:
            server.await_subscribed(3)
            await_true(lambda: counted(tmp_path, "messages_trade") > 0, "a trade")
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(MUTE_LIMIT + 1)
            server.process.send_signal(signal.SIGCONT)
            sim.pause_and_drain()
            await_given_up(server)
            assert counted(tmp_path, "feed_disconnects") == 0
            assert counted(tmp_path, "gaps") == 0


def test_what_is_on_a_watchlist_begins_not_anew_where_the_recorder_comes_late(tmp_path: Path) -> None:
    """Only the recorder knows watchlists: a server that starts without it carries none of their symbols."""
    with SimProcess("--symbols", "5", "--rate", "300") as sim:
        settings = {"EXCHANGE_LINGER": "0s"}
        with ServerProcess(tmp_path, sim, **settings) as server:
            logins = Logins(tmp_path)
            user = logins.user("alice")
            logins.accounts.watch(user.id, SYMBOL)
            with RecorderProcess(tmp_path, sim):
                server.await_subscribed(1)
                await_true(lambda: counted(tmp_path, "journal_records") > 10, "records")
            server.kill()
        wanted = stream_ids(tmp_path)[SYMBOL]
        last = sim.ledger(SYMBOL)["last_id"]
        with ServerProcess(tmp_path, sim, **settings) as server:
            # A turn of its loop is behind this answer: what it would have forgotten is forgotten now.
            server.control(type="status")
            await_true(lambda: sim.ledger(SYMBOL)["last_id"] > last + 10, "trades")
            before = len(journal_rows(tmp_path))
            with RecorderProcess(tmp_path, sim) as recorder:
                server.await_subscribed(1)
                await_true(
                    lambda: any(row[KIND_AT] == KIND_TRADE for row in journal_rows(tmp_path)[before:]),
                    "a trade",
                )
                sim.pause_and_drain()
                await_given_up(server)
                status = recorder.await_stored(repaired=True)
        logins.close()
    begun = [stream_id_of(row) for row in journal_rows(tmp_path) if row[KIND_AT] == KIND_BEGIN]
    assert begun == [wanted]
    assert counted(tmp_path, "gap_trades") > 10
    assert status["gaps"] == {"open": 0, "unfillable": 0}


@pytest.mark.embedded("its files are deleted")
def test_a_server_without_table_and_journal_goes_on_where_the_history_ends(tmp_path: Path) -> None:
    market = ("--symbols", "3", "--rate", "2000", "--no-history", "--weight-limit", "1000000", "--paused")
    with SimProcess(*market) as sim:
        carried = {"EXCHANGE_SYMBOLS": ",".join(sim.get("/sim/ledger"))}
        for _ in range(2):
            with (
                ServerProcess(tmp_path, sim, **carried) as server,
                RecorderProcess(tmp_path, sim) as recorder,
            ):
                server.await_subscribed(3)
                sim.get("/sim/resume")
                until_all_trade(sim)
                sim.pause_and_drain()
                await_given_up(server)
                status = recorder.await_stored(repaired=True)
                assert status["gaps"] == {"open": 0, "unfillable": 0}
                assert_stored_is_traded(tmp_path, sim, 0)
            shutil.rmtree(tmp_path / "sim" / "journal")
            (tmp_path / "sim" / "table").unlink()
            sim.get("/sim/resume")
            until_all_trade(sim)
