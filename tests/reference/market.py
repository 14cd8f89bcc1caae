"""A table whose symbols trade on command, and a peer keeping what it was sent: for tests of the fan-out."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from time import monotonic_ns

from tests.reference.batch import BINARY, Record, decode_payload, split_ws_frames
from tradeback._fast.fanout import FanOut, FrameSink
from tradeback._fast.table import SymbolTable

TRADE = 1  # EventKind
FOREVER_NS = 10**18


class Market:
    """`count` symbols, the stream id of slot i being 7 i + 1, quantities of `precision` places."""

    def __init__(self, folder: Path, count: int, precision: int = 3) -> None:
        self.precision = precision
        self.table = SymbolTable.open(str(folder / "table"), "sim")
        self.symbols = [f"S{i}USDT" for i in range(count)]
        self.slots = [self.table.add(name, 7 * i + 1, precision) for i, name in enumerate(self.symbols)]
        self.traded = [0] * count  # units
        self.price = [0.0] * count
        self.next_id = [1] * count

    def stream_id(self, index: int) -> int:
        return 7 * index + 1

    def trade(self, index: int, units: int, price: float | None = None) -> int:
        """One trade; the slot, for `FanOut.mark`."""
        trade_id = self.next_id[index]
        self.next_id[index] += 1
        self.traded[index] += units
        self.price[index] = float(trade_id) if price is None else price
        now = monotonic_ns()
        status, records = self.table.take(
            TRADE,
            self.symbols[index],
            trade_id,
            trade_id,
            price=self.price[index],
            mantissa=units,
            scale=self.precision,
            ts_event=now,
            ts_sent=now,
            recv_ns=now,
            now_ns=now,
        )
        if status != 0 or len(records) != (2 if trade_id == 1 else 1):
            raise AssertionError(f"the table answered {status} with {len(records)} records")
        return self.slots[index]

    def close(self) -> None:
        self.table.close()


class Peer(FrameSink):
    """Keeps what it was sent; `sums` are exact, in units."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.writes: list[bytes] = []
        self.sums: dict[int, Fraction] = defaultdict(Fraction)  # stream id -> units
        self.last: dict[int, float] = {}
        self.records: list[Record] = []

    def write_bytes(self, data: bytes) -> None:
        self.writes.append(data)
        frames, rest = split_ws_frames(data)
        if rest or not frames:
            raise AssertionError(f"a write of whole frames, not {data[:20].hex()}")
        for opcode, payload in frames:
            if opcode != BINARY:
                raise AssertionError(f"opcode {opcode}")
            for record in decode_payload(payload):
                self.take(record)

    def take(self, record: Record) -> None:
        stream_id, price, volume = record
        self.records.append(record)
        self.last[stream_id] = price
        # The nearest double's shortest decimal is the exact quantity below 2**53 units.
        self.sums[stream_id] += Fraction(repr(volume)) * 10**self.market.precision


def flush_all(fanout: FanOut) -> None:
    """Flush until nobody is queued."""
    while fanout.flush(monotonic_ns(), FOREVER_NS):
        pass
