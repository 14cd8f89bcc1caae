"""Control messages of protocol v1: what clients send, and the JSON that they are answered with.

Market data does not pass here: it leaves as binary frames that `_fast.fanout` builds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from tradeback.errors import ProtocolError

SUBPROTOCOL = "tradeback.v1"
SYMBOL_BYTES_MAX = 50
SHOWN_MAX = 40  # characters of a client's own text that an error repeats

# The codes of `{"type":"error"}`; docs/protocol.md lists them, and a test holds it against this table.
ERROR_CODES: dict[str, str] = {
    "malformed": "the message is no JSON object, or no text message",
    "unknown_type": "`type` is missing or none of subscribe, unsubscribe, ping",
    "unknown_field": "the message has a field that its type does not know",
    "invalid_symbols": "`symbols` is no list of 1 or more names of 1 to 50 bytes",
    "too_many_symbols": "the client would have more subscriptions than it may; `symbols` are those left out",
    "unknown_symbols": "no such symbols are carried; the others of the message were subscribed",
    "symbol_not_allowed": "the session may not watch `symbols`; the others of the message were subscribed",
    "not_now": "the server cannot carry `symbols` at the moment, the others were subscribed; try again later",
}


class CarriedSymbol(Protocol):
    """A symbol that the feeds carry."""

    @property
    def slot(self) -> int: ...
    @property
    def stream_id(self) -> int: ...
    @property
    def symbol(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Names are distinct and in the message's order."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    pass


Command = Subscribe | Unsubscribe | Ping

FIELDS = {"subscribe": {"type", "symbols"}, "unsubscribe": {"type", "symbols"}, "ping": {"type"}}


def parse_command(data: bytes, max_symbols: int) -> Command:
    """The command in a text message. Raises ProtocolError; its cost is bounded by the message's length."""
    try:
        message = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("malformed", f"the message is no JSON: {error.msg}") from None
    if not isinstance(message, dict):
        raise ProtocolError("malformed", "the message is no JSON object")
    kind = message.get("type")
    fields = FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ProtocolError("unknown_type", f"the type {shown(kind)} is none of subscribe, unsubscribe, ping")
    for name in message:
        if name not in fields:
            raise ProtocolError("unknown_field", f"{kind} has no field {shown(name)}")
    if kind == "ping":
        return Ping()
    symbols = parse_symbols(message.get("symbols"), max_symbols)
    return Subscribe(symbols) if kind == "subscribe" else Unsubscribe(symbols)


def parse_symbols(value: Any, max_symbols: int) -> tuple[str, ...]:
    """The distinct names of a `symbols` field. Raises ProtocolError."""
    if not isinstance(value, list) or not value:
        raise ProtocolError("invalid_symbols", "symbols is a list of 1 or more names")
    if len(value) > max_symbols:
        raise ProtocolError(
            "too_many_symbols", f"{len(value)} symbols in one message, and a client may have {max_symbols}"
        )
    for name in value:
        if not isinstance(name, str) or not 1 <= len(name.encode()) <= SYMBOL_BYTES_MAX:
            raise ProtocolError(
                "invalid_symbols", f"{shown(name)} is no name of 1 to {SYMBOL_BYTES_MAX} bytes"
            )
    return tuple(dict.fromkeys(value))


def shown(value: Any) -> str:
    """A client's value as an error repeats it: never long, whatever it is."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN_MAX else value[:SHOWN_MAX] + "…")
    return f"of JSON type {JSON_TYPES[type(value)]}"


JSON_TYPES = {bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


def subscribed(symbols: Iterable[CarriedSymbol]) -> bytes:
    """The answer to a subscription, sent before the first frame that uses one of the ids."""
    return orjson.dumps({"type": "subscribed", "symbols": [pair(symbol) for symbol in symbols]})


def unsubscribed(symbols: Iterable[CarriedSymbol]) -> bytes:
    """The answer to an unsubscription: the symbols that it ended. No frame after it has their ids."""
    return orjson.dumps({"type": "unsubscribed", "symbols": [pair(symbol) for symbol in symbols]})


def auto_subscribe(symbol: CarriedSymbol) -> bytes:
    """Tells a client of one symbol that the server subscribed it to."""
    return orjson.dumps({"type": "auto_subscribe", "data": pair(symbol)})


def auto_unsubscribe(symbol: CarriedSymbol, *, goes_on: bool = False) -> bytes:
    """Tells a client of one symbol that the server ended its subscription: no frame after it has this id. Or, where
    it `goes_on`, that the symbol has left the watchlist, while the client's own subscription to it stands."""
    data = pair(symbol)
    return orjson.dumps(
        {"type": "auto_unsubscribe", "data": data | {"subscribed": True} if goes_on else data}
    )


def pair(symbol: CarriedSymbol) -> dict[str, Any]:
    return {"symbol": symbol.symbol, "id": symbol.stream_id}


PONG = b'{"type":"pong"}'


def error_message(code: str, message: str, symbols: Sequence[str] = ()) -> bytes:
    """An error as a client gets it; `code` is one of ERROR_CODES."""
    content: dict[str, Any] = {"type": "error", "code": code, "message": message}
    if symbols:
        content["symbols"] = list(symbols)
    return orjson.dumps(content)
