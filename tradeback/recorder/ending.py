"""When the recorder ends by itself: once the journal's writer is gone and every sink has stored all there is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from tradeback._fast.journal import LOCK_NAME
from tradeback.config import JournalConfig
from tradeback.errors import DataFolderError
from tradeback.recorder.replay import Replay, ReplayReport
from tradeback.recorder.sinks import JOURNALS, Sink, journal_end
from tradeback.store.base import Catalog

LOOK_EVERY = 0.05


def has_writer(folder: Path) -> bool:
    """Whether a process writes the journal in `folder` now."""
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataFolderError(f"{folder / LOCK_NAME} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def all_is_stored(folder: Path, sinks: Sequence[Sink]) -> bool:
    """Whether every sink has committed what the journals of the data folder hold now."""
    ends = {journal: journal_end(folder / journal) for journal in JOURNALS}
    return all(sink.places.get(journal, 0) >= end for sink in sinks for journal, end in ends.items())


async def journal_ended(folder: Path, sinks: Sequence[Sink]) -> None:
    """Return when nobody writes the journal any more and all of it is stored.

    In this order: what was written before the writer was gone is seen by the look at the journal's end.
    """
    while has_writer(folder / "journal") or not all_is_stored(folder, sinks):
        await asyncio.sleep(LOOK_EVERY)


async def replay_ended(
    path: Path, folder: Path, exchange: str, catalog: Catalog, config: JournalConfig, sinks: Sequence[Sink]
) -> ReplayReport:
    """Replay a recording, and return when all of it is stored; one that is cancelled ends the replay first."""
    stop = threading.Event()

    def replay() -> ReplayReport:
        return Replay(path, stop).run(
            folder,
            exchange,
            catalog,
            config,
            read_to=lambda: min(sink.places.get("journal", 0) for sink in sinks),
        )

    replaying = asyncio.create_task(asyncio.to_thread(replay), name="replay")
    try:
        report = await asyncio.shield(replaying)
    finally:
        stop.set()
        await asyncio.gather(replaying, return_exceptions=True)
    await journal_ended(folder, sinks)
    return report
