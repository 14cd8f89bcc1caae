"""The table: a trade from the event to the mapped row, and a row read as other processes do."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from time import thread_time_ns

from bench.build import extension
from bench.table import Effort, Goal, Row, compare
from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import TableReader

SYMBOLS = 200
ROUNDS = 200  # trades of each symbol in a pass
PASSES = 20
READS = 100_000
QUANTITY_PRECISION = 5
APPLY_GOAL = Goal(40, at_most=True, of_ratio=False)


def measure(effort: Effort) -> list[Row]:
    """Both figures."""
    extension("micro")
    from bench.micro import applied_ns

    applied, read = [], []
    with tempfile.TemporaryDirectory(prefix="tradeback-bench-") as folder:
        path = str(Path(folder) / "table")
        table = SymbolTable.open(path, "bench")
        for i in range(SYMBOLS):
            table.add(f"S{i:04}USDT", i + 1, QUANTITY_PRECISION)
        # Each place of the kept quantities is touched once before it counts.
        next_id = 1 + 1024
        applied_ns(table, SYMBOLS, 1024, 1)
        reader = TableReader.open(path)
        for _ in range(effort.rounds):
            passes = []
            for _ in range(effort.of(PASSES, 2)):
                passes.append(applied_ns(table, SYMBOLS, ROUNDS, next_id))
                next_id += ROUNDS
            applied.append(median(passes))
            read.append(_read_ns(reader, effort.of(READS, 1000)))
        reader.close()
        table.close()
    return [
        compare("table: apply and publish", "ns", applied, goal=APPLY_GOAL),
        compare("table: read a row from Python", "ns", read),
    ]


def _read_ns(reader: TableReader, reads: int) -> float:
    read = reader.read
    begin = thread_time_ns()
    for _ in range(reads):
        read(7)
    return (thread_time_ns() - begin) / reads
