"""Recordings made for a test: the lines of a file as `tradeback record` writes them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.reference.faulty_lines import LineEvent

EPOCH = 1_617_566_591.0  # unix seconds of a recording's first message


def trade(symbol: str, trade_id: int, price: str, quantity: str, at: float, **changed: object) -> str:
    """The payload of a single trade that was made at `at`, unix seconds."""
    ms = int(at * 1000)
    data: dict[str, object] = {"e": "trade", "E": ms, "s": symbol, "t": trade_id, "p": price, "q": quantity}
    return _enveloped(symbol, "trade", {**data, "T": ms, "m": True, "M": True, **changed})


def agg_trade(
    symbol: str, first: int, last: int, price: str, quantity: str, at: float, **changed: object
) -> str:
    """The payload of an aggTrade that stands for the trades `first` to `last`."""
    ms = int(at * 1000)
    data: dict[str, object] = {"e": "aggTrade", "E": ms, "s": symbol, "a": first, "p": price, "q": quantity}
    return _enveloped(
        symbol, "aggTrade", {**data, "f": first, "l": last, "T": ms, "m": True, "M": True, **changed}
    )


def _enveloped(symbol: str, kind: str, data: dict[str, object]) -> str:
    message = {"stream": f"{symbol.lower()}@{kind}", "data": data}
    return json.dumps(message, separators=(",", ":"))


def line(at: float, payload: str) -> str:
    """One line of a recording, received at `at`."""
    return json.dumps({"t": at, "m": payload}) + "\n"


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(lines))
    return path


def market_lines(symbol: str, events: list[LineEvent], precision: int) -> list[str]:
    """What two faulty lines bring of a market, as a recording."""
    lines = []
    for event in events:
        made, arrived = EPOCH + event.made / 1000, EPOCH + event.arrival / 1000
        whole, fraction = divmod(event.units, 10**precision)
        quantity = f"{whole}.{fraction:0{precision}d}"
        if event.single:
            payload = trade(symbol, event.first, "1.5", quantity, made)
        else:
            payload = agg_trade(symbol, event.first, event.last, "1.5", quantity, made)
        lines.append(line(arrived, payload))
    return lines
