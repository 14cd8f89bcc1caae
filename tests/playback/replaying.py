"""A recording, replayed into a data folder: by the recorder, or without one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from tradeback._fast.journal import JournalCursor, JournalGap, JournalTrade
from tradeback.config import Config, JournalConfig
from tradeback.recorder.replay import Replay, ReplayReport
from tradeback.store.catalog import SqlCatalog, open_catalog

SMALL = JournalConfig(segment_bytes=64 << 10, retention_bytes=1 << 30)


def catalog_in(folder: Path) -> SqlCatalog:
    """The catalog of a data folder; close it."""
    return open_catalog(
        Config.model_validate({"data": {"folder": folder.parent}, "exchange": {"name": folder.name}})
    )


def replayed(
    path: Path,
    folder: Path,
    config: JournalConfig = SMALL,
    stop: threading.Event | None = None,
    **options: Any,
) -> ReplayReport:
    """Replay into `folder`, a data folder of one exchange."""
    with closing(catalog_in(folder)) as catalog:
        return Replay(path, stop).run(folder, folder.name, catalog, config, **options)


def run_recorder(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`tradeback recorder` with its output, after its end."""
    return subprocess.run(
        [sys.executable, "-m", "tradeback", "recorder", "--data-dir", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "TRADEBACK_EXCHANGE": "sim", **environment},
    )


def record_replay(path: Path, folder: Path) -> Config:
    """A recording through the whole of `tradeback recorder --replay`; the configuration that finds its stores."""
    done = run_recorder("--replay", str(path), "--exit-at-end", folder=folder)
    if done.returncode != 0:
        raise AssertionError(f"the recorder ended with {done.returncode}: {done.stdout}")
    return Config.model_validate({"data": {"folder": folder}, "exchange": {"name": "sim"}})


def symbols_in(folder: Path) -> dict[int, str]:
    """Names by stream id."""
    with closing(catalog_in(folder)) as catalog:
        return {symbol.stream_id: symbol.name for symbol in catalog.symbols()}


def records(folder: Path) -> list[bytes]:
    """Every record of the journal, without the checksum, which depends on its place."""
    rows = []
    with JournalCursor.open(folder / "journal") as cursor:
        while cursor.available():
            _, data = cursor.read_bytes(5_000)
            rows += [data[at : at + 60] for at in range(0, len(data), 64)]
    return rows


def trades(folder: Path) -> list[JournalTrade]:
    with JournalCursor.open(folder / "journal") as cursor:
        return [record for record in cursor if isinstance(record, JournalTrade)]


def gaps(folder: Path) -> list[tuple[int, int, int]]:
    """Stream id, first and last id of each gap."""
    with JournalCursor.open(folder / "journal") as cursor:
        return [
            (record.stream_id, record.first_id, record.last_id)
            for record in cursor
            if isinstance(record, JournalGap)
        ]
