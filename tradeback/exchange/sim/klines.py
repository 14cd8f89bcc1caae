"""Klines out of the ledger's one-minute bars and the history before them: REST rows, and the kline streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import orjson

from tradeback.exchange.sim.history import History
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
        into.absorb(bar)
    return out


def kline_rows(
    ledger: SymbolLedger,
    interval: str,
    start_ms: int | None,
    end_ms: int | None,
    limit: int,
    history: History | None = None,
) -> list[list[Any]]:
    """Rows by rising open time: from the start where one is given, else the newest."""
    length = INTERVALS_MS[interval]
    bars = ledger.bars if length == MINUTE_MS else merged(ledger.bars, length)
    if history is not None:
        bars = with_joint(bars, ledger.symbol, length, history)
    made = [
        (opened, bar)
        for opened, bar in bars.items()
        if (start_ms is None or opened >= start_ms) and (end_ms is None or opened <= end_ms)
    ]
    before: Iterator[tuple[int, MinuteBar]] = iter(())
    if history is not None:
        until = history.end_ms if end_ms is None else end_ms
        before = history.bars(ledger.symbol, length, start_ms or 0, until, newest_first=start_ms is None)
    if start_ms is not None:
        found = list(islice(before, limit))
        found += made[: limit - len(found)]
    else:
        made = made[-limit:]
        found = [*reversed(list(islice(before, limit - len(made)))), *made]
    return [_row(opened, length, bar) for opened, bar in found]


def with_joint(
    bars: dict[int, MinuteBar], symbol: str, interval_ms: int, history: History
) -> dict[int, MinuteBar]:
    """Bars of the ledger, of which the first may have begun before the exchange was started."""
    opened = history.end_ms - history.end_ms % interval_ms
    before = history.joint(symbol, interval_ms)
    if before is None:
        return bars
    whole = replace(before)
    made = bars.get(opened)
    if made is not None:
        whole.absorb(made)
        # Ids step by one: those of the trades before the start are the ones below the first that was made.
        whole.first_id = max(made.last_id - whole.trades + 1, 0)
    return {opened: whole, **{time: bar for time, bar in bars.items() if time != opened}}


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

    def __init__(self, hub: StreamHub, ledger: Ledger, history: History | None) -> None:
        self._hub = hub
        self._ledger = ledger
        self._history = history
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
        history = self._history
        if history is not None and history.end_ms - history.end_ms % length in bars:
            bars = with_joint(bars, ledger.symbol, length, history)
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
