"""What a recording holds, found out before any of it is used: its symbols, and the lines that are of no use."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tradeback.errors import ExchangeError
from tradeback.exchange.binance import BOOK_TICKER, STREAM_TYPES, TRADE, can_carry, time_to_ns
from tradeback.exchange.recording import recorded_lines, split_pair
from tradeback.model import SymbolInfo

USELESS_MAX = 10_000  # lines of no use: a file with more of them is no recording
TIME_APART_NS = 86_400 * 1_000_000_000  # a trade's own time and that of its receipt are never a day apart
STRAY_IDS = 100_000  # a trade id so far above the one before it and the one after it cannot be
ID_MAX = 2**63 - 1
DECIMALS_MAX = 18


@dataclass(slots=True)
class RecordedSymbol:
    """A symbol of a recording: the decimals that its prices and quantities have, and its first trade id."""

    price_decimals: int = 0
    quantity_decimals: int = 0
    first_id: int | None = None

    def info(self, name: str) -> SymbolInfo:
        """As the exchange would list it, as far as a recording tells."""
        return SymbolInfo(name, *split_pair(name), True, self.price_decimals, self.quantity_decimals)


@dataclass(slots=True)
class Scan:
    """`useless`: by its number, what is wrong with a line. `broken_off`: why the file could not be read to its end."""

    path: Path
    symbols: dict[str, RecordedSymbol] = field(default_factory=dict)
    useless: dict[int, str] = field(default_factory=dict)
    broken_off: str = ""

    def leave_out(self, number: int, reason: str) -> None:
        """A line is of no use. Raises ExchangeError where too many are."""
        self.useless[number] = reason
        if len(self.useless) > USELESS_MAX:
            raise _NoRecording(
                f"{self.path} is no recording: more than {USELESS_MAX:,} of its lines are no messages, "
                f"{self._first()}; nothing of it was stored"
            )

    def faults(self) -> str:
        """What is wrong with the recording, in a sentence; empty where nothing is."""
        told = []
        if self.useless:
            count = len(self.useless)
            told.append(
                f"{count:,} line{'s' if count > 1 else ''} of {self.path} held no message, {self._first()}"
            )
        if self.broken_off:
            told.append(self.broken_off)
        return "; ".join(told)

    def _first(self) -> str:
        number = min(self.useless)
        return f"the first is line {number}: {self.useless[number]}"


class _NoRecording(ExchangeError):
    """Too many lines are of no use."""


def scan_recording(path: Path, stop: threading.Event) -> Scan:
    """Read a recording once through, or until `stop`. ExchangeError where it cannot be read, or is none."""
    scan = Scan(path)
    strays = _Strays()
    try:
        for number, received, text in recorded_lines(path, scan.leave_out):
            if stop.is_set():
                break
            try:
                event = _event(text, int(received * 1e9))
            except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
                scan.leave_out(number, f"it holds no message of a stream ({error!r})")
                continue
            if event is None:
                continue
            symbol = scan.symbols.setdefault(event.symbol, RecordedSymbol())
            symbol.price_decimals = max(symbol.price_decimals, event.price_decimals)
            symbol.quantity_decimals = max(symbol.quantity_decimals, event.quantity_decimals)
            if event.last_id is not None:
                stray = strays.of(event.symbol, number, event.first_id, event.last_id)
                if stray is not None:
                    scan.leave_out(stray, "its trade id is far above the ones before and after it")
    except _NoRecording:
        raise
    except ExchangeError as error:
        if not scan.symbols:
            raise
        scan.broken_off = str(error)
    for name, symbol in scan.symbols.items():
        symbol.first_id = strays.first.get(name)
    return scan


class _Event(NamedTuple):
    """`last_id` is None for a quote."""

    symbol: str
    price_decimals: int
    quantity_decimals: int
    first_id: int = 0
    last_id: int | None = None


def _event(text: str, received_ns: int) -> _Event | None:
    """What a payload says; None where it is of no stream that is carried, or of a symbol that cannot be.

    Raises one of many errors where it is not what it says that it is.
    """
    message: Any = orjson.loads(text)
    data = message.get("data", message)
    kind = data.get("e", BOOK_TICKER if "u" in data else None) if isinstance(data, dict) else None
    if kind not in STREAM_TYPES or not can_carry(data["s"]):
        return None
    if kind == BOOK_TICKER:
        prices = max(_decimals(data[key]) for key in "ba")
        return _Event(data["s"], prices, max(_decimals(data[key]) for key in "BA"))
    if abs(time_to_ns(data["T"]) - received_ns) > TIME_APART_NS:
        raise ValueError(f"its trade time T, {data['T']}, is more than a day from its t, {received_ns / 1e9}")
    first, last = (data["t"], data["t"]) if kind == TRADE else (data["f"], data["l"])
    if type(first) is not int or type(last) is not int or not 0 <= first <= last <= ID_MAX:
        raise ValueError(f"{first!r} to {last!r} are no trade ids")
    if not (Decimal(data["p"]) > 0 and Decimal(data["q"]) > 0):
        raise ValueError(f"its price {data['p']} or quantity {data['q']} is not above 0")
    return _Event(data["s"], _decimals(data["p"]), _decimals(data["q"]), first, last)


def _decimals(text: str) -> int:
    exponent = Decimal(text).normalize().as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -DECIMALS_MAX:
        raise ValueError(f"{text} is no decimal of at most {DECIMALS_MAX} places")
    return max(-exponent, 0)


class _Strays:
    """Ids that cannot be: far above the one before and the one after. A cut leaves ids that stay up there.

    Taken for true, one would cover all that come after it, up to itself.
    """

    def __init__(self) -> None:
        self.first: dict[str, int] = {}
        self._latest: dict[str, list[tuple[int, int]]] = {}

    def of(self, symbol: str, number: int, first: int, last: int) -> int | None:
        """Takes the ids of line `number`; returns the number of the line before it whose id was a stray."""
        latest = self._latest.setdefault(symbol, [])
        stray = None
        if latest and all(
            latest[-1][1] - other > STRAY_IDS for other in (last, *(id_ for _, id_ in latest[:-1]))
        ):
            stray = latest.pop()[0]
        if not latest:
            self.first[symbol] = first
        latest.append((number, last))
        del latest[:-2]
        return stray
