"""`tradeback backfill` as a process, and what it stored."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.e2e.running import SimProcess
from tests.servers.services import config_of, settings_of
from tradeback.errors import DataFolderError
from tradeback.model import MINUTE_NS, Bar
from tradeback.store.base import BackfillJob
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history
from tradeback.store.history_sqlite import HISTORY_FILE

TIMEOUT = 600.0


def backfill(folder: Path, sim: SimProcess, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tradeback", "backfill", *arguments, "--data-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings_of(folder), "EXCHANGE_REST_ENDPOINT": sim.rest_endpoint},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, and what it printed to both."""
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


def stored(folder: Path) -> tuple[list[BackfillJob], dict[str, list[Bar]]]:
    config = config_of(folder)
    catalog, history = open_catalog(config, create=False), open_history(config, write=False)
    try:
        names = {symbol.stream_id: symbol.name for symbol in catalog.symbols()}
        jobs = history.jobs()
        return jobs, {
            names[job.stream_id]: history.bars(job.stream_id, job.resolution, job.start, job.end)
            for job in jobs
        }
    finally:
        catalog.close()
        history.close()


def pages_done(folder: Path) -> int:
    """How far the jobs are together, in minutes; 0 while there is no history."""
    if not (folder / "sim" / HISTORY_FILE).exists():
        return 0
    config = config_of(folder)
    try:
        with closing(open_history(config, write=False)) as history:
            return sum(job.done_to - job.start for job in history.jobs()) // MINUTE_NS
    except DataFolderError:
        return 0  # it is being made


def await_more(folder: Path, before: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while pages_done(folder) <= before and process.poll() is None:
        assert time.monotonic() < deadline, "no page came"
        time.sleep(0.02)
