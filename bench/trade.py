"""A trade through decode, table and journal, without sockets."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

from bench.build import extension
from bench.table import Effort, Goal, Row, compare
from tradeback._fast.journal import JournalWriter
from tradeback._fast.table import SymbolTable

SYMBOLS = 200
PASSES = 100  # of 4096 trades each
QUANTITY_PRECISION = 8
GOAL_NS = 200


def measure(effort: Effort) -> list[Row]:
    extension("micro")
    from bench.micro import Trades

    figures = []
    with tempfile.TemporaryDirectory(prefix="tradeback-bench-") as folder:
        table = SymbolTable.open(str(Path(folder) / "table"), "bench")
        try:
            for i in range(SYMBOLS):
                table.add(f"S{i:04}USDT", i + 1, QUANTITY_PRECISION)
            with JournalWriter.open(Path(folder) / "journal", "trades") as journal:
                trades = Trades(table, journal, SYMBOLS)
                for _ in range(effort.rounds):
                    passes = []
                    for _ in range(effort.of(PASSES, 2)):
                        if journal.needs_prepare:
                            journal.prepare()
                        passes.append(trades.pass_ns())
                    figures.append(median(passes))
        finally:
            table.close()
    goal = Goal(GOAL_NS, at_most=True, of_ratio=False)
    return [compare("a trade: decode, table, journal", "ns", figures, goal=goal)]
