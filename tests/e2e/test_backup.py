"""A copy that was made in the middle of trading is a whole one: what was missed since is fetched, and nothing is stored
twice."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.test_recorder import assert_stored_is_traded, until_all_trade
from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, await_given_up
from tests.servers.services import settings_of
from tests.waiting import await_true
from tradeback._fast.journal import JournalBegin, JournalCursor
from tradeback.store.history_sqlite import HISTORY_FILE

SYMBOLS = 5
SAFETY = 60.0


def backup(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tradeback", "backup", "--data-dir", str(folder), str(target)]
    environment = {**os.environ, **settings_of(folder), **SIM_EXCHANGE}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.embedded("it copies the files of the embedded stores; services have backups of their own")
@pytest.mark.timeout(300)
def test_a_copy_made_while_all_runs_goes_on_where_it_was_made(tmp_path: Path) -> None:
    lost, restored = tmp_path / "lost", tmp_path / "restored"
    for folder in (lost, restored):
        folder.mkdir()
    market = (
        "--symbols",
        str(SYMBOLS),
        "--rate",
        "3000",
        "--no-history",
        "--weight-limit",
        "1000000",
        "--paused",
    )
    # Segments so small that several are begun while they are copied.
    small = {"JOURNAL_SEGMENT_BYTES": "64KiB"}
    with SimProcess(*market) as sim:
        small["EXCHANGE_SYMBOLS"] = ",".join(sim.get("/sim/ledger"))
        with ServerProcess(lost, sim, **small) as server, RecorderProcess(lost, sim):
            server.await_subscribed(SYMBOLS)
            sim.get("/sim/resume")
            for number in range(5):
                until_all_trade(sim)
                done = backup(lost, tmp_path / f"copy{number}")
                assert done.returncode == 0, done.stderr
                assert done.stdout.startswith("sim: ")
            until_all_trade(sim)
            server.kill()
        shutil.rmtree(lost)
        (tmp_path / "copy4").rename(restored / "sim")
        with ServerProcess(restored, sim, **small) as server, RecorderProcess(restored, sim) as recorder:
            server.await_subscribed(SYMBOLS)
            until_all_trade(sim)
            sim.pause_and_drain()
            await_given_up(server)
            status = recorder.await_stored(repaired=True)
            assert status["gaps"] == {"open": 0, "unfillable": 0}
            with JournalCursor.open(restored / "sim" / "journal") as cursor:
                begun = [record.stream_id for record in cursor if isinstance(record, JournalBegin)]
            # None began anew: then what was missed, but for the last minute, would not be asked for.
            assert len(begun) == len(set(begun)) == SYMBOLS
            assert_stored_is_traded(restored, sim, 1)
    assert "Traceback" not in (restored / "server.log").read_text() + (restored / "recorder.log").read_text()


def test_what_cannot_be_copied_is_a_sentence(tmp_path: Path) -> None:
    done = backup(tmp_path / "nowhere", tmp_path / "copy")
    assert done.returncode == 1
    assert "There is nothing at" in done.stderr
    (tmp_path / "sim").mkdir()
    (tmp_path / "copy").mkdir()
    done = backup(tmp_path, tmp_path / "copy")
    assert done.returncode == 1
    assert "is there already" in done.stderr
    (tmp_path / "sim" / "history.sqlite").write_bytes(b"no database" * 100)
    done = backup(tmp_path, tmp_path / "other")
    assert done.returncode == 1
    assert "could not be copied" in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_backup_that_was_ended_is_none(tmp_path: Path, signum: signal.Signals) -> None:
    folder, target = tmp_path / "data", tmp_path / "copy"
    (folder / "sim").mkdir(parents=True)
    # Somebody writes into the history all the time, so that it cannot be copied yet.
    with closing(sqlite3.connect(folder / "sim" / HISTORY_FILE, isolation_level=None)) as writer:
        writer.execute("CREATE TABLE some (one)")
        writer.execute("BEGIN EXCLUSIVE")
        command = [sys.executable, "-m", "tradeback", "backup", "--data-dir", str(folder), str(target)]
        process = subprocess.Popen(command, env={**os.environ, "TRADEBACK_EXCHANGE": "sim"})
        parts = await_true(lambda: list(tmp_path.glob(".copy.*.part/*")), "it copies", SAFETY)
        process.send_signal(signum)
        if signum == signal.SIGKILL:
            assert process.wait(SAFETY) == -signum
        writer.execute("COMMIT")
    assert process.wait(SAFETY) in (128 + signum, -signum)
    assert not target.exists()
    assert parts[0].exists() == (signum == signal.SIGKILL)
    assert backup(folder, target).returncode == 0
    assert (target / HISTORY_FILE).exists()
