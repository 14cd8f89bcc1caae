"""Klines out of the ledger's one-minute bars: REST rows of twelve columns, and the kline streams."""

from __future__ import annotations

from typing import Any

import orjson

from tradeback.exchange.sim.ledger import MINUTE_MS, Ledger, MinuteBar, SymbolLedger
from tradeback.exchange.sim.messages import text
from tradeback.exchange.sim.streams import Stream, StreamHub

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


class KlineStreams:
    """The `kline_<interval>` streams: the bar in progress every so often, and once more when closed."""

    def __init__(self, hub: StreamHub, ledger: Ledger) -> None:
        self._hub = hub
        self._ledger = ledger
        # Stream -> open time of the bar last told of, its number of trades then.
        self._told: dict[str, tuple[int, int]] = {}

    def tell(self, now_ms: int) -> None:
        """Queue what is due on the streams that somebody carries."""
        carried = [
            stream for stream in self._hub.streams.values() if stream.wanted and "@kline_" in stream.name
        ]
        for stream in carried:
            symbol, _, interval = stream.name.partition("@kline_")
            ledger = self._ledger.symbols.get(symbol.upper())
            if ledger is not None and interval in INTERVALS_MS:
                self._tell(stream, ledger, interval, now_ms)
        self._told = {stream.name: self._told[stream.name] for stream in carried if stream.name in self._told}

    def _tell(self, stream: Stream, ledger: SymbolLedger, interval: str, now_ms: int) -> None:
        length = INTERVALS_MS[interval]
        opened, trades = self._told.get(stream.name, (0, 0))
        bars = newest(ledger.bars, length, opened)
        for start, bar in bars.items():
            closed = start + length <= now_ms
            if start > opened or bar.trades != trades or closed:
                ms = _message(ledger.symbol, interval, start, length, bar, closed, now_ms, 1)
                us = _message(ledger.symbol, interval, start, length, bar, closed, now_ms, 1_000)
                self._hub.send(stream, ms, us)
                # A closed bar is told of once: from then on only later ones count.
                opened, trades = (start + length, 0) if closed else (start, bar.trades)
        self._told[stream.name] = (opened, trades)


def newest(bars: dict[int, MinuteBar], interval_ms: int, since: int) -> dict[int, MinuteBar]:
    """Bars of an interval that opened at `since` or later; with `since` 0 the newest alone."""
    minutes: dict[int, MinuteBar] = {}
    for minute in reversed(bars):
        since = since or minute - minute % interval_ms
        if minute < since:
            break
        minutes[minute] = bars[minute]
    return merged(dict(reversed(minutes.items())), interval_ms)


def _message(
    symbol: str, interval: str, opened: int, length: int, bar: MinuteBar, closed: bool, now_ms: int, unit: int
) -> bytes:
    body = {
        "t": opened * unit,
        "T": (opened + length) * unit - 1,
        "s": symbol,
        "i": interval,
        "f": bar.first_id,
        "L": bar.last_id,
        "o": text(bar.open),
        "c": text(bar.close),
        "h": text(bar.high),
        "l": text(bar.low),
        "v": text(bar.volume),
        "n": bar.trades,
        "x": closed,
        "q": text(bar.quote_volume // 100_000_000),
        "V": text(bar.taker_volume),
        "Q": text(bar.taker_quote // 100_000_000),
        "B": "0",
    }
    return orjson.dumps({"e": "kline", "E": now_ms * unit, "s": symbol, "k": body})
