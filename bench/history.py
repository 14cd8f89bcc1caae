"""The history in SQLite: ticks written beside a bare executemany, and bars read while another process writes."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median

from bench.build import BenchError
from bench.programs import LOAD_CORE, SERVER_CORE, module, pin
from bench.table import Effort, Goal, Row, Skipped, compare
from bench.writer import BATCH, DAY, RATE, configured, random_ticks
from tradeback.model import RESOLUTIONS, Bar, Tick
from tradeback.store.base import History, HistoryBatch
from tradeback.store.histories import open_history
from tradeback.store.history_sqlite import HISTORY_FILE

TICKS = 200_000
TURN = 10  # batches that one writes before it is the other's turn
BARE = "INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

BARS = 1_000
READ_SYMBOLS = 20
READ_EVERY_S = 0.002
EVER = (0, 2**63 - 1)
READS = {"1m": "1000 bars: p99", "1h": "1000 bars of 1h: p99"}

WRITE_GOAL = Goal(0.9, at_most=False)
READ_GOAL = Goal(2, at_most=True)


def measure(effort: Effort) -> list[Row]:
    ours, theirs = [], []
    ticks = random_ticks(effort.of(TICKS, 10_000))
    for _ in range(effort.rounds):
        with _folder() as folder:
            mine, bare = write_rates(folder, ticks)
        ours.append(mine)
        theirs.append(bare)
    rows: list[Row] = [compare("ticks written", "rows/s", ours, "executemany", theirs, WRITE_GOAL)]
    with _folder() as folder, _pinned():
        fill(folder)
        for resolution, name in READS.items():
            beside, alone, rates = [], [], []
            for _ in range(effort.rounds):
                busy, unloaded, rate = read_p99s_us(folder, resolution, effort)
                beside.append(busy)
                alone.append(unloaded)
                rates.append(rate)
            if min(rates) < 0.9 * RATE and not effort.quick:
                reason = f"the writer came to {min(rates):,.0f} ticks a second, not to {RATE:,}: the machine is busy"
                rows.append(Skipped(name, reason))
            else:
                rows.append(compare(name, "us", beside, "unloaded", alone, READ_GOAL))
    return rows


def write_rates(folder: Path, ticks: list[Tick]) -> tuple[float, float]:
    """Rows a second of History.write and of a bare executemany, in turn, each into a file of its own."""
    batches = [ticks[first : first + BATCH] for first in range(0, len(ticks), BATCH)]
    open_history(configured(folder / "bare"), write=True).close()
    path = folder / "bare" / "sim" / HISTORY_FILE
    spent = [0.0, 0.0]
    with (
        closing(open_history(configured(folder / "ours"), write=True)) as history,
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA synchronous = NORMAL")

        def write(turn: list[list[Tick]]) -> None:
            whole = [HistoryBatch(ticks=part, places={"journal": part[-1].trade_id}) for part in turn]
            begin = time.perf_counter()
            for part in whole:
                history.write(part)
            spent[0] += time.perf_counter() - begin

        def write_bare(turn: list[list[Tick]]) -> None:
            whole = [[(t[0], t[7], *t[1:7], t[8]) for t in part] for part in turn]
            begin = time.perf_counter()
            for part in whole:
                connection.execute("BEGIN")
                connection.executemany(BARE, part)
                connection.execute("COMMIT")
            spent[1] += time.perf_counter() - begin

        orders = cycle([(write, write_bare), (write_bare, write)])
        for first in range(0, len(batches), TURN):
            for job in next(orders):
                job(batches[first : first + TURN])
    return len(ticks) / spent[0], len(ticks) / spent[1]


def fill(folder: Path) -> None:
    """BARS bars of each resolution that is read, up to where the writer begins."""
    with closing(open_history(configured(folder), write=True)) as history:
        for resolution in READS:
            length = RESOLUTIONS[resolution]
            bars = [Bar(DAY - n * length, 1.0, 2.5, 0.5, 1.25, 0.12345, 100 + n) for n in range(1, BARS + 1)]
            for stream_id in range(1, READ_SYMBOLS + 1):
                history.write_bars(stream_id, resolution, bars)


def read_p99s_us(folder: Path, resolution: str, effort: Effort) -> tuple[float, float, float]:
    """The p99 of a read beside the writer, and of one while it pauses, each measured several times in turn; and
    the ticks a second that the writer came to."""
    times: dict[str, list[float]] = {"go": [], "pause": []}
    with (
        module("bench.writer", folder, core=LOAD_CORE) as writer,
        closing(open_history(configured(folder), write=False)) as history,
    ):
        writer.hear()
        rates = []
        for _ in range(effort.of(5, 1)):
            for command, taken in times.items():
                rates.append(writer.ask(command)["rate"])
                taken += read_times(history, resolution, effort.seconds / 4)
    return p99_us(times["go"]), p99_us(times["pause"]), median(rates[1::2])


def read_times(history: History, resolution: str, seconds: float) -> list[float]:
    """Seconds to read the newest BARS bars, of one symbol after the other."""
    times = []
    streams = cycle(range(1, READ_SYMBOLS + 1))
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        bars = history.bars(next(streams), resolution, *EVER, BARS)
        times.append(time.perf_counter() - begin)
        if len(bars) != BARS:
            raise BenchError(f"The history gave {len(bars)} bars, not {BARS}.")
        time.sleep(READ_EVERY_S)
    return times


def p99_us(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100] * 1e6


@contextmanager
def _folder() -> Iterator[Path]:
    # Not in the folder for temporary files, which may lie in memory.
    parent = Path(__file__).parent / "build"
    with tempfile.TemporaryDirectory(prefix="history-", dir=parent) as folder:
        yield Path(folder)


@contextmanager
def _pinned() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    pin(SERVER_CORE)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
