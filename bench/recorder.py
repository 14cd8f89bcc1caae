"""How fast the recorder catches up: records of a journal into the history, as ticks, bars and ranges of ids."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from bench.build import BenchError
from bench.table import Effort, Goal, Row, compare
from tradeback._fast.journal import JournalWriter
from tradeback._fast.stats import Stats
from tradeback.config import HistoryConfig
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.history_sink import HistorySink
from tradeback.recorder.sinks import journal_end
from tradeback.store.history_sqlite import HISTORY_FILE, SqliteHistory

RECORDS = 200_000
RATE = 5_000  # trades a second of the market that is caught up with
PATIENCE_S = 300.0
PRECISION = 5
START_NS = 1_700_000_000 * 10**9
GOAL = Goal(30_000, at_most=False, of_ratio=False)


def measure(effort: Effort) -> list[Row]:
    rows: list[Row] = []
    for symbols in (50, 1_000):
        # Not in the folder for temporary files, which may lie in memory.
        with tempfile.TemporaryDirectory(prefix="recorder-", dir=Path(__file__).parent / "build") as folder:
            fill(Path(folder), effort.of(RECORDS, 2_000), symbols)
            figures = [stored_a_second(Path(folder), number) for number in range(effort.rounds)]
        rows.append(compare(f"caught up, {symbols} symbols", "records/s", figures, goal=GOAL))
    return rows


def fill(folder: Path, records: int, symbols: int) -> None:
    """A journal of single trades at RATE, of random symbols."""
    rng = random.Random(symbols)
    ids = [0] * (symbols + 1)
    with JournalWriter.open(folder / "journal", "bench") as journal:
        for number in range(records):
            if journal.needs_prepare:
                journal.prepare()
            stream_id = rng.randint(1, symbols)
            ids[stream_id] += 1
            journal.append_trade(
                stream_id=stream_id,
                price=100 + rng.randrange(100) / 100,
                qty=rng.randint(1, 10**PRECISION) / 10**PRECISION,
                trade_id=ids[stream_id],
                ts_event=START_NS + number * 10**9 // RATE,
                bid=99.99,
                ask=101.01,
            )


def stored_a_second(folder: Path, number: int) -> float:
    """Store the whole journal in a new history; records a second."""
    end = journal_end(folder / "journal")
    stats = Stats.in_memory(RECORDER_VALUES, RECORDER_HISTOGRAMS)
    path = folder / f"{number}-{HISTORY_FILE}"
    history = SqliteHistory(path, HistoryConfig(), write=True)
    sink = HistorySink(folder, stats, 0.04, history, lambda stream_id: PRECISION)
    began = time.monotonic()
    try:
        sink.start()
        while sink.places.get("journal", 0) < end:
            if sink.errors or time.monotonic() - began > PATIENCE_S:
                raise BenchError(f"the history sink did not catch up: {sink.error or 'it takes too long'}")
            time.sleep(0.001)
        return end / (time.monotonic() - began)
    finally:
        sink.stop()
        history.close()
        for left in folder.glob(f"{path.name}*"):
            left.unlink()
