"""A trade through decode, table and journal, without sockets."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from time import monotonic_ns

from bench.build import extension
from bench.table import Effort, Goal, Row, compare
from tradeback._fast.fanout import FanOut
from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import JournalWriter
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable

NAME = "a trade: decode, table, journal"
SYMBOLS = 200
PASSES = 100  # of 4096 trades each
QUANTITY_PRECISION = 8
GOAL = Goal(200, at_most=True, of_ratio=False)


def measure(effort: Effort) -> list[Row]:
    extension("micro")
    from bench.micro import Trades

    figures = []
    with tempfile.TemporaryDirectory(prefix="tradeback-bench-") as folder:
        table = SymbolTable.open(str(Path(folder) / "table"), "bench")
        for i in range(SYMBOLS):
            table.add(f"S{i:04}USDT", i + 1, QUANTITY_PRECISION)
        with JournalWriter.open(Path(folder) / "journal", "trades") as journal:
            stats = Stats.in_memory()
            fanout = FanOut(table, stats)
            trades = Trades(Ingest(table, journal, fanout, stats), SYMBOLS)
            for _ in range(effort.rounds):
                passes = []
                for _ in range(effort.of(PASSES, 2)):
                    if journal.needs_prepare:
                        journal.prepare()
                    fanout.flush(monotonic_ns(), 1_000_000)
                    passes.append(trades.pass_ns())
                figures.append(median(passes))
            del trades, fanout
        table.close()
    return [compare(NAME, "ns", figures, goal=GOAL)]
