"""A recording in place of the synthetic market: messages go out on the streams they were recorded on.

The ledger holds what the recording holds: single trades where it has them, aggTrades where it has those. An
aggTrade with `f` = `l` is one trade; `derive_trades` makes a trade line of these.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tradeback.errors import ExchangeError
from tradeback.exchange.recording import read_recording, split_pair
from tradeback.exchange.sim.ledger import Ledger
from tradeback.exchange.sim.messages import to_units
from tradeback.exchange.sim.rest import SymbolRow, symbol_row


@dataclass(frozen=True, slots=True)
class ReplayEvent:
    """One message: receive time in unix seconds, stream, type (`trade`, `depthUpdate`, ...), payload."""

    received: float
    stream: str
    kind: str
    payload: bytes
    data: dict[str, Any]


class Quote(NamedTuple):
    update: int
    bid: int
    bid_qty: int
    ask: int
    ask_qty: int


class Execution(NamedTuple):
    """A trade (`agg_id` None) or an aggTrade, in the ledger's units."""

    agg_id: int | None
    first: int
    last: int
    price: int
    quantity: int
    time_us: int
    maker: bool


class Replay:
    """A recording file. Opening it reads it once through, for the symbols and their precision."""

    def __init__(self, path: Path, exchange_info: Path | None = None, *, derive_trades: bool = False) -> None:
        self.path = path
        self._derive = derive_trades
        self.messages = 0
        self.streams: set[str] = set()
        self._has_trades: set[str] = set()
        self._has_aggs: set[str] = set()
        precision: dict[str, list[int]] = {}
        for event in self._read():
            self.messages += 1
            self.streams.add(event.stream)
            symbol = event.data.get("s")
            if not isinstance(symbol, str):
                continue
            places = precision.setdefault(symbol, [0, 0])
            if event.kind == "trade":
                self._has_trades.add(symbol)
            elif event.kind == "aggTrade":
                self._has_aggs.add(symbol)
            for column, keys in ((0, ("p", "b", "a")), (1, ("q", "B", "A"))):
                for key in keys:
                    value = event.data.get(key)
                    if isinstance(value, str) and event.kind in ("trade", "aggTrade", "bookTicker"):
                        places[column] = max(places[column], _decimals(value))
        known = {} if exchange_info is None else _read_exchange_info(exchange_info)
        self.symbols = {
            symbol: known.get(symbol) or _derived_row(symbol, *places)
            for symbol, places in sorted(precision.items())
        }

    def __iter__(self) -> Iterator[ReplayEvent]:
        """Every message of the file, and after an aggTrade of one trade that trade where they are derived."""
        for event in self._read():
            yield event
            if self._derive and event.kind == "aggTrade" and event.data["f"] == event.data["l"]:
                yield _derived_trade(event)

    def enter(self, event: ReplayEvent, ledger: Ledger) -> None:
        """Enter a message in the ledger."""
        made = _made(event)
        if made is None:
            return
        of = ledger.of(event.data["s"])
        if isinstance(made, Quote):
            of.last_quote = (made.update, made.bid, made.bid_qty, made.ask, made.ask_qty)
            return
        agg_id, first, last, price, quantity, time_us, maker = made
        if agg_id is None:
            if event.data["s"] in self._has_trades and first > of.last_single:
                ledger.keep_trade(of, first, time_us, price, quantity, maker)
                if event.data["s"] not in self._has_aggs:
                    of.count(first, last, time_us, price, quantity, maker)
        elif agg_id > of.last_agg:
            ledger.add_agg_trade(of, agg_id, time_us, price, quantity, maker, first, last)
            of.count(first, last, time_us, price, quantity, maker)
            if first == last and event.data["s"] not in self._has_trades:
                ledger.keep_trade(of, first, time_us, price, quantity, maker)

    def _read(self) -> Iterator[ReplayEvent]:
        for number, (received, text) in enumerate(read_recording(self.path), 1):
            payload = text.encode()
            try:
                message = orjson.loads(payload)
                event = _event(received, payload, message)
                _made(event)
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise ExchangeError(
                    f"line {number} of {self.path} holds no stream message: {error!r}; remove the line"
                ) from error
            yield event


def _event(received: float, payload: bytes, message: dict[str, Any]) -> ReplayEvent:
    if "stream" not in message:
        kind = message.get("e") or "bookTicker"
        return ReplayEvent(received, f"{message['s'].lower()}@{kind}", kind, payload, message)
    stream, data = message["stream"], message["data"]
    head = b'{"stream":"' + stream.encode() + b'","data":'
    inner = payload[len(head) : -1] if payload.startswith(head) else orjson.dumps(data)
    return ReplayEvent(received, stream, data.get("e") or stream.partition("@")[2], inner, data)


def _made(event: ReplayEvent) -> Quote | Execution | None:
    """What a message says, in the ledger's units; KeyError, TypeError or ValueError where it says nothing."""
    data = event.data
    if event.kind == "bookTicker":
        return Quote(int(data["u"]), *(to_units(data[key]) for key in ("b", "B", "a", "A")))
    if event.kind not in ("trade", "aggTrade"):
        return None
    price, quantity, time_us = to_units(data["p"]), to_units(data["q"]), _microseconds(data["T"])
    if event.kind == "trade":
        return Execution(None, int(data["t"]), int(data["t"]), price, quantity, time_us, bool(data["m"]))
    return Execution(
        int(data["a"]), int(data["f"]), int(data["l"]), price, quantity, time_us, bool(data["m"])
    )


def _derived_trade(event: ReplayEvent) -> ReplayEvent:
    data = event.data
    names = ("e", "E", "s", "t", "p", "q", "T", "m", "M")
    values = ("trade", data["E"], data["s"], data["f"], data["p"], data["q"], data["T"], data["m"], data["M"])
    trade = dict(zip(names, values, strict=True))
    return ReplayEvent(event.received, f"{data['s'].lower()}@trade", "trade", orjson.dumps(trade), trade)


def _microseconds(value: int) -> int:
    return value * 1_000 if value < 100_000_000_000_000 else value


def _decimals(text: str) -> int:
    return len(text.partition(".")[2].rstrip("0"))


def _derived_row(symbol: str, price_decimals: int, quantity_decimals: int) -> SymbolRow:
    return symbol_row(symbol, *split_pair(symbol), _smallest(price_decimals), _smallest(quantity_decimals))


def _smallest(decimals: int) -> str:
    return f"{10.0**-decimals:.8f}"


def _read_exchange_info(path: Path) -> dict[str, SymbolRow]:
    try:
        body = path.read_bytes()
        rows = orjson.loads(gzip.decompress(body) if path.suffix == ".gz" else body)["symbols"]
        return {row["symbol"]: SymbolRow(row["symbol"], row) for row in rows}
    except (OSError, EOFError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ExchangeError(f"{path} holds no answer of /api/v3/exchangeInfo: {error!r}") from error
