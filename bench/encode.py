"""Encoding a frame of 50 records with its CRC, beside orjson on the same content."""

from __future__ import annotations

import time

import orjson

from bench.build import extension
from bench.table import Effort, Goal, Row, compare

NAME = "frame of 50 records"
PASSES = 200_000


def measure(effort: Effort) -> list[Row]:
    extension("micro")
    from bench.micro import frame_ns
    from tradeback._fast.batch import CRC32_METHOD

    ours, theirs = [], []
    for _ in range(effort.rounds):
        ours.append(frame_ns(effort.of(PASSES, 1000)))
        theirs.append(_orjson_ns(effort.of(PASSES // 20, 100)))
    name, goal = f"{NAME}, CRC by {CRC32_METHOD}", Goal(20, at_most=False)
    return [compare(name, "ns", ours, "orjson", theirs, goal, speedup=True)]


def _orjson_ns(passes: int) -> float:
    """The JSON of `FEATURE_BINARY_WEBSOCKET=false`: the same 50 updates as text."""
    records = [{"symbol": f"SYM{i}USDT", "price": 100.25 + i, "volume": 0.125} for i in range(50)]
    start = time.thread_time_ns()
    for turn in range(passes):
        records[turn % 50]["price"] = 100.25 + turn
        orjson.dumps({"type": "prices", "data": records})
    return (time.thread_time_ns() - start) / passes
