"""The oracle of the decoder: what a message of the exchange means, in plain Python and as slowly as it likes.

It says what the compiled decoder and its slow path say together: `resolve` puts those two together.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, DecimalException
from fractions import Fraction
from typing import Any

from tradeback._fast.decode import (
    DECODED_MALFORMED,
    DECODED_OTHER,
    DECODED_SHUTDOWN,
    DECODED_UNUSUAL,
    decode,
)
from tradeback.errors import ExchangeError
from tradeback.exchange.binance import canonical_message

EMPTY: dict[str, Any] = {
    "kind": 0,
    "flags": 0,
    "symbol": "",
    "id": 0,
    "first_id": 0,
    "last_id": 0,
    "ts_event": 0,
    "ts_sent": 0,
    "price": 0.0,
    "qty": 0.0,
    "qty_mantissa": 0,
    "qty_scale": 0,
    "bid": 0.0,
    "bid_qty": 0.0,
    "ask": 0.0,
    "ask_qty": 0.0,
}
KINDS = {"trade": 1, "aggTrade": 2, "bookTicker": 3}


class Refused(Exception):
    """The message is malformed."""


class Pairs(list[tuple[str, Any]]):
    """An object as it is written."""

    def one(self, key: str) -> Any:
        found = [value for name, value in self if name == key]
        if len(found) != 1:
            raise Refused(f"{key} comes {len(found)} times")
        return found[0]

    def last(self, key: str) -> Any:
        found = [value for name, value in self if name == key]
        return found[-1] if found else None

    def count(self, key: str) -> int:  # type: ignore[override]
        return sum(name == key for name, _ in self)


class Number:
    def __init__(self, text: str) -> None:
        self.text = text


def _constant(name: str) -> None:
    raise ValueError(name)


def decode_reference(data: bytes) -> dict[str, Any] | int:
    """The event, or DECODED_OTHER, DECODED_SHUTDOWN, DECODED_MALFORMED."""
    try:
        message = json.loads(
            data.decode(),
            object_pairs_hook=Pairs,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_constant,
        )
    except (ValueError, RecursionError):
        return DECODED_MALFORMED
    try:
        return _message(message)
    except Refused:
        return DECODED_MALFORMED


def _message(message: Any) -> dict[str, Any] | int:
    if not isinstance(message, Pairs):
        return DECODED_OTHER
    stream, payload = None, message
    if message.count("stream"):
        stream = message.one("stream")
        if not isinstance(stream, str) or message.count("data") > 1:
            raise Refused("envelope")
        payload = message.last("data")
    promised = None
    if stream and "@" in stream and not stream.startswith("!"):
        promised = KINDS.get(stream[stream.index("@") + 1 :])
    if not isinstance(payload, Pairs):
        if promised:
            raise Refused("no payload")
        return DECODED_OTHER

    if payload.count("e") > 1:
        raise Refused("two kinds")
    name = payload.last("e")
    if isinstance(name, str) and name == "serverShutdown":
        return DECODED_SHUTDOWN
    if stream and stream.startswith("!"):
        return DECODED_OTHER
    kind = KINDS.get(name) if isinstance(name, str) else None
    if not payload.count("e") and payload.count("u"):
        kind = 3
    if kind is None:
        if promised:
            raise Refused("promised")
        return DECODED_OTHER
    if stream is not None and promised != kind:
        raise Refused("another kind")

    symbol = payload.last("s")
    if not isinstance(symbol, str) or symbol == "":
        raise Refused("symbol")
    if len(symbol) > 50 or set(symbol) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"):
        return DECODED_OTHER
    if stream is not None and stream.split("@", 1)[0] != symbol.lower():
        raise Refused("another symbol")
    payload.one("s")
    event = {**EMPTY, "kind": kind, "symbol": symbol}
    if kind == 3:
        event["id"] = _id(payload.one("u"))
        for field, key in (("bid", "b"), ("bid_qty", "B"), ("ask", "a"), ("ask_qty", "A")):
            event[field] = _decimal(payload.one(key), exact=False)[0]
        return event
    maker = payload.one("m")
    if maker is not True and maker is not False:
        raise Refused("maker")
    event["flags"] = int(maker)
    event["ts_sent"], event["ts_event"] = _ns(payload.one("E")), _ns(payload.one("T"))
    event["id"] = _id(payload.one("t" if kind == 1 else "a"))
    event["first_id"] = event["id"] if kind == 1 else _id(payload.one("f"))
    event["last_id"] = event["id"] if kind == 1 else _id(payload.one("l"))
    event["price"] = _decimal(payload.one("p"), exact=False)[0]
    event["qty"], event["qty_mantissa"], event["qty_scale"] = _decimal(payload.one("q"), exact=True)
    return event


def _id(value: Any) -> int:
    if not isinstance(value, Number) or not value.text.isdigit() or len(value.text) > 19:
        raise Refused("id")
    if int(value.text) >= 1 << 63:
        raise Refused("id beyond 63 bits")
    return int(value.text)


def _ns(value: Any) -> int:
    time = _id(value)
    ns = time * 10**6 if time < 10**14 else time * 10**3 if time < 10**17 else time
    if ns >= 1 << 63:
        raise Refused("time")
    return ns


def _decimal(text: Any, exact: bool) -> tuple[float, int, int]:
    """The double, and the digits and places as written where they fit, else without trailing zeros."""
    if not isinstance(text, str) or not text.isascii() or len(text) > 1000:
        raise Refused("decimal")
    if not re.fullmatch(r"\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text):
        raise Refused("decimal")
    if re.fullmatch(r"\d+(\.\d+)?", text) and len(text) <= 64:
        places = len(text.partition(".")[2])
        digits = int(text.replace(".", ""))
        if not exact or (digits < 1 << 64 and places <= 18):
            return float(text), digits, places
    try:
        value = Decimal(text)
    except DecimalException as error:
        raise Refused("decimal") from error
    if not value:
        return 0.0, 0, 0
    if abs(value.adjusted()) > 100:
        raise Refused("too large or too small")
    fraction = Fraction(value)
    places = next((n for n in range(120) if (fraction * 10**n).denominator == 1), None)
    if places is None:
        raise Refused("too many places")
    digits = int(fraction * 10**places)
    whole = str(digits // 10**places)
    if len(whole) + (1 + places if places else 0) > 64:
        raise Refused("too long")
    if exact and (places > 18 or digits >= 1 << 64):
        raise Refused("quantity does not fit")
    return float(text), digits, places


def resolve(data: bytes, padding: bytes = b"") -> dict[str, Any] | int:
    """What the product makes of a message: the compiled decoder, then the slow path where it asks."""
    found: Any = decode(data, padding)
    if found != DECODED_UNUSUAL:
        return found  # type: ignore[no-any-return]
    try:
        again = canonical_message(data)
    except ExchangeError:
        return DECODED_MALFORMED
    if again is None:
        return DECODED_OTHER
    second: Any = decode(again)
    if second in (DECODED_UNUSUAL, DECODED_MALFORMED, DECODED_OTHER):
        raise AssertionError(f"the slow path made {again!r} of {data!r}: {second}")
    return second  # type: ignore[no-any-return]
