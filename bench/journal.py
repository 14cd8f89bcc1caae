"""An append to the journal, by itself and beside a disk that is kept busy."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.build import BenchError, extension
from bench.table import Effort, Figure, Goal, Row, compare
from tradeback._fast.journal import JournalWriter

RECORDS = 20_000  # of a pass
PASSES = 60
PAUSE_NS = 50_000  # 20,000 a second
PREPARE_EVERY_S = 0.01
GOAL = Goal(40, at_most=True, of_ratio=False)
BUSY = "append beside a busy disk"

DISK_WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
data = os.urandom(8 << 20)
os.write(1, b"x")
while True:
    os.pwrite(fd, data, 0)
    os.fsync(fd)
"""


def measure(effort: Effort) -> list[Row]:
    extension("micro")
    from bench.micro import append_ns, append_times

    figures = []
    # Not in the folder for temporary files, which may lie in memory.
    with tempfile.TemporaryDirectory(prefix="journal-", dir=Path(__file__).parent / "build") as folder:
        with JournalWriter.open(Path(folder) / "alone", "bench", retention_bytes=1 << 28) as journal:
            for _ in range(effort.rounds):
                passes = []
                for _ in range(effort.of(PASSES, 2)):
                    if journal.needs_prepare:
                        journal.prepare()
                    passes.append(append_ns(journal, RECORDS))
                figures.append(median(passes))
        with (
            JournalWriter.open(Path(folder) / "busy", "bench", retention_bytes=1 << 28) as journal,
            _preparing(journal),
            _busy_disk(Path(folder) / "ballast"),
        ):
            seconds = effort.rounds * effort.seconds
            times = sorted(append_times(journal, int(seconds * 1e9) // PAUSE_NS, PAUSE_NS))
    return [
        compare("append", "ns", figures, goal=GOAL),
        Figure(f"{BUSY}: median", times[len(times) // 2], "ns"),
        Figure(f"{BUSY}: p99.9", times[len(times) * 999 // 1000], "ns"),
        Figure(f"{BUSY}: longest", times[-1], "ns"),
    ]


@contextmanager
def _preparing(journal: JournalWriter) -> Iterator[None]:
    ended = threading.Event()

    def prepare() -> None:
        while not ended.wait(PREPARE_EVERY_S):
            if journal.needs_prepare:
                journal.prepare()

    thread = threading.Thread(target=prepare)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _busy_disk(path: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", DISK_WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        if writer.stdout is None:
            raise BenchError("The disk writer has no output.")
        writer.stdout.read(1)
        try:
            yield
        finally:
            writer.kill()
