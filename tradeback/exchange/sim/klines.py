"""Klines out of the ledger's one-minute bars, as REST rows of twelve columns."""

from __future__ import annotations

from typing import Any

from tradeback.exchange.sim.ledger import MINUTE_MS, MinuteBar, SymbolLedger
from tradeback.exchange.sim.messages import text

INTERVALS_MS = {
    "1m": 1 * MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "2h": 120 * MINUTE_MS,
    "4h": 240 * MINUTE_MS,
    "6h": 360 * MINUTE_MS,
    "8h": 480 * MINUTE_MS,
    "12h": 720 * MINUTE_MS,
    "1d": 1_440 * MINUTE_MS,
}


def merged(bars: dict[int, MinuteBar], interval_ms: int) -> dict[int, MinuteBar]:
    """Bars of a coarser interval by open time. Minutes must be in order."""
    out: dict[int, MinuteBar] = {}
    for minute, bar in bars.items():
        opened = minute - minute % interval_ms
        into = out.get(opened)
        if into is None:
            into = out[opened] = MinuteBar(bar.open, bar.high, bar.low, bar.close, first_id=bar.first_id)
        into.high = max(into.high, bar.high)
        into.low = min(into.low, bar.low)
        into.close = bar.close
        into.volume += bar.volume
        into.quote_volume += bar.quote_volume
        into.trades += bar.trades
        into.taker_volume += bar.taker_volume
        into.taker_quote += bar.taker_quote
        into.last_id = bar.last_id
    return out


def kline_rows(
    ledger: SymbolLedger, interval: str, start_ms: int | None, end_ms: int | None, limit: int
) -> list[list[Any]]:
    """Rows by rising open time: from the start where one is given, else the newest."""
    interval_ms = INTERVALS_MS[interval]
    bars = ledger.bars if interval_ms == MINUTE_MS else merged(ledger.bars, interval_ms)
    times = [
        opened
        for opened in bars
        if (start_ms is None or opened >= start_ms) and (end_ms is None or opened <= end_ms)
    ]
    times = times[:limit] if start_ms is not None else times[-limit:]
    return [_row(opened, interval_ms, bars[opened]) for opened in times]


def _row(opened: int, interval_ms: int, bar: MinuteBar) -> list[Any]:
    return [
        opened,
        text(bar.open),
        text(bar.high),
        text(bar.low),
        text(bar.close),
        text(bar.volume),
        opened + interval_ms - 1,
        text(bar.quote_volume // 100_000_000),
        bar.trades,
        text(bar.taker_volume),
        text(bar.taker_quote // 100_000_000),
        "0",
    ]
