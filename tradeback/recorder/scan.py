"""What a recording holds, found out before any of it is used: its symbols, and the lines that are of no use."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from tradeback._fast.decode import DECODED_MALFORMED, DECODED_UNUSUAL, decode
from tradeback._fast.record import EVENTS
from tradeback.errors import ExchangeError
from tradeback.exchange.binance import can_carry, canonical_message
from tradeback.exchange.recording import recorded_lines, split_pair
from tradeback.model import SymbolInfo

if TYPE_CHECKING:
    from tradeback._fast.decode import DecodedEvent

USELESS_MAX = 10_000  # lines of no use: a file with more of them is no recording
TIME_APART_NS = 86_400 * 1_000_000_000  # a trade's own time and that of its receipt are never a day apart
STRAY_IDS = 100_000  # a trade id so far above the one before it and the one after it cannot be
STRAY = "its trade id is far above those around it"
ID_MAX = 2**63 - 1
SYMBOLS_MAX = 65_535
REASON_MAX = 200  # characters of what is wrong with a line, which may be long itself


@dataclass(slots=True)
class RecordedSymbol:
    """A symbol of a recording: the decimals that its prices and quantities have, and its first trade id."""

    price_decimals: int = 0
    quantity_decimals: int = 0
    first_id: int | None = None

    def widen(self, price_decimals: int, quantity_decimals: int) -> None:
        """Take over the decimals of another event."""
        self.price_decimals = max(self.price_decimals, price_decimals)
        self.quantity_decimals = max(self.quantity_decimals, quantity_decimals)

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
    untold: int = 0

    def leave_out(self, number: int, reason: str) -> None:
        """A line is of no use. Raises ExchangeError where too many are."""
        self.tell(number, reason)
        if self.untold:
            raise _NoRecording(
                f"{self.path} is no recording: more than {USELESS_MAX:,} of its lines are no messages, "
                f"{self._first()}; nothing of it was stored"
            )

    def tell(self, number: int, reason: str) -> None:
        """A line turned out to be of no use when it was used."""
        if number in self.useless or len(self.useless) < USELESS_MAX:
            self.useless[number] = reason[:REASON_MAX]
        else:
            self.untold += 1

    def seen(self, name: str) -> RecordedSymbol:
        """The symbol of this name. Raises ExchangeError where there are more than a catalog can hold."""
        if name not in self.symbols and len(self.symbols) == SYMBOLS_MAX:
            raise _NoRecording(
                f"{self.path} is no recording of an exchange: it has more than {SYMBOLS_MAX:,} symbols; nothing of "
                "it was stored"
            )
        return self.symbols.setdefault(name, RecordedSymbol())

    def faults(self) -> str:
        """What is wrong with the recording, in a sentence; empty where nothing is."""
        told = []
        if self.useless:
            count = len(self.useless) + self.untold
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
                event = _event(text.encode(), int(received * 1e9))
            except (ExchangeError, ValueError) as error:
                scan.leave_out(number, str(error))
                continue
            if event is None:
                continue
            symbol = scan.seen(event["symbol"])
            if event["kind"] == EVENTS["quote"]:
                symbol.widen(
                    _decimals(event["bid"], event["ask"]), _decimals(event["bid_qty"], event["ask_qty"])
                )
                continue
            symbol.widen(_decimals(event["price"]), _scale(event["qty_mantissa"], event["qty_scale"]))
            stray = strays.of(event["symbol"], number, event["first_id"], event["last_id"])
            if stray is not None:
                scan.leave_out(stray, STRAY)
    except _NoRecording:
        raise
    except ExchangeError as error:
        if not scan.symbols:
            raise
        scan.broken_off = str(error)
    for stray in strays.last():
        scan.leave_out(stray, STRAY)
    for name, symbol in scan.symbols.items():
        symbol.first_id = strays.first.get(name)
    return scan


def _event(payload: bytes, received_ns: int) -> DecodedEvent | None:
    """The event of a payload; None where it has none, or one of a symbol that cannot be carried.

    ValueError or ExchangeError where it is not what it says that it is.
    """
    event = decode(payload)
    if event == DECODED_UNUSUAL:
        canonical = canonical_message(payload)
        if canonical is None:
            return None
        event = decode(canonical)
    if event == DECODED_MALFORMED:
        raise ValueError("no event can be had from its payload")
    if isinstance(event, int) or not can_carry(event["symbol"]):
        return None
    if event["kind"] == EVENTS["quote"]:
        return event
    if abs(event["ts_event"] - received_ns) > TIME_APART_NS:
        traded, received = (datetime.fromtimestamp(ns / 1e9, UTC) for ns in (event["ts_event"], received_ns))
        raise ValueError(
            f"it was traded at T, {traded}, and received at t, {received}: more than a day apart"
        )
    if not event["first_id"] <= event["last_id"] <= ID_MAX:
        raise ValueError(f"{event['first_id']} to {event['last_id']} are no trade ids")
    if not (0 < event["price"] < inf and event["qty_mantissa"] > 0):
        raise ValueError(f"its price, {event['price']}, or its quantity, {event['qty']}, cannot be")
    return event


def _decimals(*numbers: float) -> int:
    """The most decimals that any of the numbers has for which the doubles stand."""
    exponents = (Decimal(repr(number)).normalize().as_tuple().exponent for number in numbers)
    return max(0, *(-exponent for exponent in exponents if isinstance(exponent, int)))


def _scale(mantissa: int, scale: int) -> int:
    """Decimals of mantissa / 10**scale without trailing zeros."""
    while scale and mantissa % 10 == 0:
        mantissa, scale = mantissa // 10, scale - 1
    return scale


class _Strays:
    """Ids that cannot be: far above the one before and the one after. Behind a cut of the line they stay up there.

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

    def last(self) -> list[int]:
        """Numbers of the lines at the end that are far above, with nothing behind them that is so too."""
        return [
            latest[1][0]
            for latest in self._latest.values()
            if len(latest) == 2 and latest[1][1] - latest[0][1] > STRAY_IDS
        ]
