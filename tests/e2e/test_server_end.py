"""How a server ends: in which order its files go to the disk."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

from tests.e2e.running import ServerProcess, SimProcess
from tradeback._fast.tablefile import TableReader

SAFETY = 60.0


def test_the_journal_is_closed_before_the_table_is_marked_clean(tmp_path: Path) -> None:
    """The lock of the journal is the last that its `close` gives up."""
    with SimProcess("--symbols", "3", "--rate", "2000") as sim, ServerProcess(tmp_path, sim) as server:
        lock = os.open(tmp_path / "sim" / "journal" / "lock", os.O_RDWR)
        table = TableReader.open(str(tmp_path / "sim" / "table"))
        try:
            assert table.writer_pid == server.process.pid
            server.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + SAFETY
            while table.writer_pid:
                assert time.monotonic() < deadline, "the server never closed its table"
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            table.close()
            os.close(lock)
