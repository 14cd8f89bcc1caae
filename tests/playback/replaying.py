"""A recording, replayed into a data folder without a recorder."""

from __future__ import annotations

from pathlib import Path

from tradeback._fast.journal import JournalCursor, JournalGap, JournalTrade
from tradeback.config import JournalConfig
from tradeback.model import Symbol
from tradeback.recorder.replay import Replay, ReplayReport

SMALL = JournalConfig(segment_bytes=64 << 10, retention_bytes=1 << 30)


def catalog_of(replay: Replay) -> list[Symbol]:
    """The recording's own symbols, stream ids from 1 on by name."""
    return [Symbol(info, stream_id) for stream_id, info in enumerate(replay.listing([]), 1)]


def replayed(path: Path, folder: Path, config: JournalConfig = SMALL) -> ReplayReport:
    replay = Replay(path)
    return replay.run(folder, "sim", catalog_of(replay), config)


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
