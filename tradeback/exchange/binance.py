"""Binance spot: its endpoints, stream names and limits, and the slow path of the decoder.

Source: the exchange's published API documentation, state of July 2026. Its REST answers: `rows.py`.

A payload, as the exchange lays it out (prices and quantities are strings, ids and times integers):

    trade       e kind, E sent, s symbol, t trade id, p price, q quantity, T time, m buyer is maker, M ignored
                (before June 2024 also b and a, the orders' ids)
    aggTrade    e, E, s, a its own id, p, q, f first and l last trade id, T, m, M: one order's trades
    bookTicker  u update id, s, b and B best bid and its size, a and A best ask and its size; no e, E, T
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tradeback.errors import ExchangeError

# Bases in the order in which they are tried; the market-data ones need no account.
WS_ENDPOINTS: Final = ("wss://data-stream.binance.vision", "wss://stream.binance.com:9443")
REST_ENDPOINTS: Final = ("https://data-api.binance.vision", "https://api.binance.com")
REST_FULL_ENDPOINT: Final = "https://api.binance.com"  # the only one that has historicalTrades
RAW_PATH: Final = "/ws"
COMBINED_PATH: Final = "/stream"

# Streams of a symbol.
TRADE: Final = "trade"
AGG_TRADE: Final = "aggTrade"
BOOK_TICKER: Final = "bookTicker"
STREAM_TYPES: Final = (TRADE, AGG_TRADE, BOOK_TICKER)

CONNECTION_LIFETIME_S: Final = 24 * 3600
MESSAGES_PER_SECOND: Final = 5  # to the exchange, a connection; PING, PONG and JSON all count
STREAMS_PER_CONNECTION: Final = 1024
CONNECTION_ATTEMPTS: Final = 300  # an IP, within
CONNECTION_ATTEMPTS_WINDOW_S: Final = 300
PING_INTERVAL_S: Final = 20  # the exchange pings
PONG_TIMEOUT_S: Final = 60

REST_PATHS: Final = {
    "ping": "/api/v3/ping",
    "time": "/api/v3/time",
    "exchangeInfo": "/api/v3/exchangeInfo",
    "klines": "/api/v3/klines",
    "aggTrades": "/api/v3/aggTrades",
    "historicalTrades": "/api/v3/historicalTrades",
    "trades": "/api/v3/trades",
    "ticker/24hr": "/api/v3/ticker/24hr",
    "ticker/price": "/api/v3/ticker/price",
    "ticker/bookTicker": "/api/v3/ticker/bookTicker",
}
# Weight of one request for one symbol, and of one for all symbols where that may be asked.
REST_WEIGHTS: Final = {
    "ping": 1,
    "time": 1,
    "exchangeInfo": 20,
    "klines": 2,
    "aggTrades": 4,
    "historicalTrades": 25,
    "trades": 25,
    "ticker/24hr": 2,
    "ticker/price": 2,
    "ticker/bookTicker": 2,
}
REST_WEIGHTS_ALL: Final = {"ticker/24hr": 80, "ticker/price": 4, "ticker/bookTicker": 4}
REST_WEIGHT_LIMIT_1M: Final = 6000  # an IP a minute; exchangeInfo tells the one in force
REST_WEIGHT_HEADER: Final = "X-MBX-USED-WEIGHT-1M"
REST_RETRY_HEADER: Final = "Retry-After"  # seconds, with 429 (back off) and 418 (banned)
REST_TIMEOUT_S: Final = 10
REST_ROWS_MAX: Final = 1000  # of klines, aggTrades, historicalTrades, trades in one answer
INTERVALS: Final = ("1m", "5m", "15m", "1h", "4h", "1d")

# What Trade-Back can carry: the decoder, `symbolsmap.symbol` and the wire agree on it.
SYMBOL_MAX_BYTES: Final = 50
_SYMBOL: Final = re.compile(r"[A-Z0-9._-]{1,50}", re.ASCII)

_DECIMAL: Final = re.compile(r"\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_PLAIN: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)
_DECIMAL_MAX: Final = 64
_SCALE_MAX: Final = 18
_ID_MAX: Final = 2**63 - 1
_NS_MAX: Final = 2**63 - 1
_MANTISSA_MAX: Final = 2**64 - 1


def can_carry(symbol: str) -> bool:
    """Whether Trade-Back can carry a symbol: 1 to 50 of A-Z, 0-9, dot, dash and underscore."""
    return _SYMBOL.fullmatch(symbol) is not None


def stream_name(symbol: str, stream_type: str) -> str:
    """`btcusdt@trade` for BTCUSDT and `trade`."""
    return f"{symbol.lower()}@{stream_type}"


def time_to_ns(time: int) -> int:
    """Unix ns of a time in ms (below 10**14), us (below 10**17) or ns, as the decoder tells them apart.

    ValueError where int64 ns do not reach: below 0, or after April 2262.
    """
    ns = time * (1_000_000 if time < 10**14 else 1_000 if time < 10**17 else 1)
    if not 0 <= ns <= _NS_MAX:
        raise ValueError(f"the time {time} lies outside 1970 to 2262")
    return ns


def canonical_message(data: bytes) -> bytes | None:
    """The slow path: a message that the decoder called unusual, rewritten so that the decoder takes it.

    Gives a raw trade, aggTrade, bookTicker or serverShutdown in the exchange's usual layout; None where the
    message is none of them, or is about a symbol that Trade-Back cannot carry.
    Raises ExchangeError where it is malformed: no JSON, a needed key missing, doubled or of another type,
    a stream name that contradicts its payload, a decimal that is negative or does not fit.
    """
    # The standard library's parser and not orjson: orjson silently takes the last of two equal keys.
    try:
        message = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_Members,
            parse_int=_whole,
            parse_float=_NoInteger,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise _malformed(data, f"is no JSON ({error})") from error
    if not isinstance(message, _Members):
        return None
    try:
        return _canonical(message)
    except _Malformed as error:
        raise _malformed(data, str(error)) from error


class _Malformed(Exception):
    """What is wrong with a message; becomes an ExchangeError that shows the message."""


def _malformed(data: bytes, what: str) -> ExchangeError:
    return ExchangeError(
        f"a message of the exchange {what}: {data[:200]!r}{'...' if len(data) > 200 else ''}; it is dropped, "
        "and the ids it carried become a gap that is filled from REST"
    )


class _Members(dict[str, Any]):
    """A JSON object that knows which of its keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.doubled: set[str] = set()
        if len(self) < len(pairs):
            for key, _ in pairs:
                (self.doubled if key in seen else seen).add(key)

    def need(self, key: str) -> Any:
        if key not in self:
            raise _Malformed(f"has no {key!r}")
        if key in self.doubled:
            raise _Malformed(f"has {key!r} twice")
        return self[key]


class _NoInteger(str):
    """A number that is no integer from 0 to 2**63 - 1: valid JSON, and no value that any event has."""


def _whole(text: str) -> int | _NoInteger:
    if text.startswith("-") or len(text) > 19 or int(text) > _ID_MAX:
        return _NoInteger(text)
    return int(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, _NoInteger)


def _canonical(message: _Members) -> bytes | None:
    stream: str | None = None
    promised: str | None = None
    payload: object = message
    if "stream" in message:
        named = message.need("stream")
        if not _is_text(named):
            raise _Malformed("has a 'stream' that is no string")
        if "data" in message.doubled:
            raise _Malformed("has 'data' twice")
        stream = named
        suffix = named.partition("@")[2]
        promised = suffix if suffix in STREAM_TYPES and not named.startswith("!") else None
        payload = message.get("data")
    if not isinstance(payload, _Members):
        if promised:
            raise _Malformed(f"of stream {stream!r} has no payload")
        return None

    if "e" in payload.doubled:
        raise _Malformed("has 'e' twice")
    kind = payload.get("e") if "e" in payload else BOOK_TICKER if "u" in payload else None
    if _is_text(kind) and kind == "serverShutdown":
        return b'{"e":"serverShutdown"}'
    if stream is not None and stream.startswith("!"):
        return None
    if not _is_text(kind) or kind not in STREAM_TYPES:
        if promised:
            raise _Malformed(f"of stream {stream!r} holds no such event")
        return None
    if stream is not None and promised != kind:
        raise _Malformed(f"of stream {stream!r} holds a {kind}")

    # Doubled keys are told of with the event's other keys: a symbol that cannot be carried comes first.
    symbol = payload.get("s")
    if not _is_text(symbol) or not symbol:
        raise _Malformed("has no symbol")
    if not can_carry(symbol):
        return None
    if stream is not None and stream != stream_name(symbol, str(kind)):
        raise _Malformed(f"of stream {stream!r} is about {symbol}")
    payload.need("s")
    if kind == BOOK_TICKER:
        return _quote(payload, symbol)
    return _trade(payload, symbol, str(kind))


def _trade(payload: _Members, symbol: str, kind: str) -> bytes:
    maker = payload.need("m")
    if not isinstance(maker, bool):
        raise _Malformed("has an 'm' that is neither true nor false")
    head = f'{{"e":"{kind}","E":{_time(payload, "E")},"s":"{symbol}",'
    values = f'"p":"{_decimal(payload, "p")}","q":"{_decimal(payload, "q", exact=True)}",'
    tail = f'"T":{_time(payload, "T")},"m":{"true" if maker else "false"},"M":true}}'
    if kind == TRADE:
        return f'{head}"t":{_id(payload, "t")},{values}{tail}'.encode()
    span = f'"f":{_id(payload, "f")},"l":{_id(payload, "l")},'
    return f'{head}"a":{_id(payload, "a")},{values}{span}{tail}'.encode()


def _quote(payload: _Members, symbol: str) -> bytes:
    values = ",".join(f'"{key}":"{_decimal(payload, key)}"' for key in "bBaA")
    return f'{{"u":{_id(payload, "u")},"s":"{symbol}",{values}}}'.encode()


def _id(payload: _Members, key: str) -> int:
    value = payload.need(key)
    if type(value) is not int:
        raise _Malformed(f"has no integer from 0 to 2**63 - 1 in {key!r}")
    return value


def _time(payload: _Members, key: str) -> int:
    value = _id(payload, key)
    try:
        time_to_ns(value)
    except ValueError as error:
        raise _Malformed(f"has a time in {key!r} that cannot be: {error}") from error
    return value


def _decimal(payload: _Members, key: str, exact: bool = False) -> str:
    """A decimal written plainly; `exact` where its digits must fit 64 bits and 18 places.

    One that the decoder takes stays as it is written; others lose the zeros behind their last digit.
    """
    value = payload.need(key)
    # A thousand characters are more than any double has; the limit bounds the work, not the value.
    if not _is_text(value) or len(value) > 1000 or not _DECIMAL.fullmatch(value):
        raise _Malformed(f"has no decimal from 0 up in {key!r}")
    if _PLAIN.fullmatch(value) and _fits(value, exact):
        return str(value)
    try:
        number = Decimal(value)
    except InvalidOperation as error:
        raise _Malformed(f"has a decimal in {key!r} that cannot be read") from error
    if not number:
        return "0"
    # The exponent is looked at first: 1e999999 written plainly is a megabyte.
    if -_DECIMAL_MAX < number.adjusted() < _DECIMAL_MAX:
        plain = f"{number:f}"
        if "." in plain:
            plain = plain.rstrip("0").rstrip(".")
        if _fits(plain, exact):
            return plain
    raise _Malformed(f"has a decimal in {key!r} that does not fit: {value[:100]}")


def _fits(plain: str, exact: bool) -> bool:
    whole, _, fraction = plain.partition(".")
    if len(plain) > _DECIMAL_MAX:
        return False
    return not exact or (len(fraction) <= _SCALE_MAX and int(whole + fraction) <= _MANTISSA_MAX)
