"""The line that each process logs now and then: what it did since the last one, from its own mapped counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from tradeback.errors import TradebackError
from tradeback.store.stats import Reading, read_stats

US_NS = 1_000

log = structlog.get_logger(__name__)


async def tell_performance(
    path: Path, every: float, *, counted: Sequence[str], levels: Sequence[str], times: Sequence[str]
) -> None:
    """Log a line every so many seconds until cancelled; 0: none. `counted` are counters, told as what was added since
    the last line, `levels` gauges, and `times` histograms, whose p50, p95 and p99 of that time are told in us. Where
    they cannot be read, as without a descriptor to spare, that line is left out."""
    before, since = read_stats(path), time.monotonic()
    while every:
        await asyncio.sleep(every)
        try:
            now, at = read_stats(path), time.monotonic()
        except (OSError, TradebackError) as error:
            log.warning("what this process did cannot be told at the moment", reason=str(error))
            continue
        added = {name: now.values[name].value - before.values[name].value for name in counted}
        log.info(
            "performance",
            seconds=round(at - since, 1),
            **added,
            **{name: now.values[name].value for name in levels},
            **{f"{name}_us": _percentiles(now, before, name) for name in times},
        )
        before, since = now, at


def _percentiles(now: Reading, before: Reading, name: str) -> list[int] | None:
    """p50, p95 and p99 of what was measured between two readings, in us; None where nothing was."""
    newer, older = now.histograms[name], before.histograms[name]
    buckets = tuple(new - old for new, old in zip(newer.buckets, older.buckets, strict=True))
    found = replace(newer, buckets=buckets)
    told = (found.p50, found.p95, found.p99)
    return None if None in told else [ns // US_NS for ns in told if ns is not None]
