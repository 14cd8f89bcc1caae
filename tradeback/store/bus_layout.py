"""The messages of the bus, as docs/bus.md tells them: a header of 8 bytes, then `count` records of one kind.

All is little-endian. A reader of another version than VERSION cannot know what follows the first byte.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from tradeback.errors import BusError

VERSION: Final = 1
TRADES: Final = 1
PRICES: Final = 2
ENIGMA: Final = 3

HEADER_FORMAT: Final = "<BBHI"  # version, kind, stream id, count of the records that follow
FORMATS: Final = {TRADES: "<4dQqiIB7x", PRICES: "<3dQq", ENIGMA: "<4dq"}

_HEADER = struct.Struct(HEADER_FORMAT)
HEADER_BYTES: Final = _HEADER.size
_RECORDS = {kind: struct.Struct(text) for kind, text in FORMATS.items()}


class BusTrade(NamedTuple):
    """A record of trades as the journal has it: the last id it stands for, and how many. `ts_event` is unix ns,
    `recv_offset_us` the arrival minus that. `bid` and `ask` are those known at arrival, 0 where none was."""

    price: float
    qty: float
    bid: float
    ask: float
    trade_id: int
    ts_event: int
    recv_offset_us: int
    trade_count: int
    flags: int


class BusPrice(NamedTuple):
    """The latest price of a symbol, of the trade `trade_id`; `ts_event` is unix ns."""

    price: float
    bid: float
    ask: float
    trade_id: int
    ts_event: int


class BusLevel(NamedTuple):
    """An Enigma level; NaN where the highest and the lowest price are one. `ts_event` is unix ns."""

    level: float
    ath: float
    atl: float
    price: float
    ts_event: int

    @classmethod
    def of(cls, level: float | None, ath: float, atl: float, price: float, ts_event: int) -> BusLevel:
        return cls(math.nan if level is None else level, ath, atl, price, ts_event)


BusRecord = BusTrade | BusPrice | BusLevel
_KINDS: dict[type[BusRecord], int] = {BusTrade: TRADES, BusPrice: PRICES, BusLevel: ENIGMA}
_TYPES: dict[int, type[BusRecord]] = {kind: record for record, kind in _KINDS.items()}


def encode_message(stream_id: int, records: Sequence[BusRecord]) -> bytes:
    """One message of records of one kind, at least one."""
    kind = _KINDS[type(records[0])]
    pack = _RECORDS[kind].pack
    return _HEADER.pack(VERSION, kind, stream_id, len(records)) + b"".join([pack(*one) for one in records])


def decode_message(data: bytes) -> tuple[int, list[BusRecord]]:
    """The stream id and the records of a message. Raises BusError where it is none of this version."""
    if len(data) < _HEADER.size or data[0] != VERSION:
        raise BusError(f"a message of {len(data)} bytes is none of version {VERSION}: see docs/bus.md")
    _, kind, stream_id, count = _HEADER.unpack_from(data)
    record = _RECORDS.get(kind)
    if record is None or len(data) != _HEADER.size + count * record.size:
        raise BusError(f"a message of kind {kind} with {count} records cannot have {len(data)} bytes")
    make = _TYPES[kind]
    return stream_id, [make(*values) for values in record.iter_unpack(data[_HEADER.size :])]
