"""Recorded aggTrades, and the trade line that can be derived from them, as two faulty lines.

An aggTrade with f = l is one trade; one with f < l is cut into trades whose quantities add up to it.
"""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path

import pytest

from tests.reference.journal_ids import Coverage
from tradeback._fast.table import SymbolTable
from tradeback.exchange.recording import read_recording

PRECISION = 8
MS = 1_000_000
TRADE, AGG_TRADE = 1, 2
REFUSED = 5

# arrival in ms, tie, kind, symbol, first, last, units, price, T in ms
Arrival = tuple[float, float, int, str, int, int, int, float, int]


def two_lines(path: Path, rng: random.Random) -> tuple[list[Arrival], dict[str, dict[int, int]]]:
    """What arrives, in its order, and the units of every trade id of every symbol."""
    arrivals: list[Arrival] = []
    ledger: dict[str, dict[int, int]] = {}
    start = None
    for received, text in read_recording(path):
        data = json.loads(text)["data"]
        if data.get("e") != "aggTrade":
            continue
        start = start or received
        at = (received - start) * 1000
        symbol, first, last, price = data["s"], data["f"], data["l"], float(data["p"])
        units = int(Decimal(data["q"]) * 10**PRECISION)
        parts = [units // (last - first + 1)] * (last - first)
        parts.append(units - sum(parts))
        trades = dict(zip(range(first, last + 1), parts, strict=True))
        ledger.setdefault(symbol, {}).update(trades)
        for kind, ids in ((AGG_TRADE, [(first, last)]), (TRADE, [(i, i) for i in trades])):
            # Each line is cut off for five seconds of every twenty, one after the other.
            if kind * 5000 <= at % 20_000 < kind * 5000 + 5000:
                continue
            for a, b in ids:
                for _ in range(2 if rng.random() < 0.05 else 1):
                    late = at + rng.choice([0, 1, 3, 20, 100 if rng.random() < 0.1 else 5])
                    quantity = sum(trades[i] for i in range(a, b + 1))
                    arrivals.append((late, rng.random(), kind, symbol, a, b, quantity, price, data["T"]))
    return sorted(arrivals), ledger


@pytest.mark.parametrize(
    "name", ["ws_binance_spot_20210404_btc_eth_dot.jsonl.gz", "ws_binance_spot_20210405_10sym.jsonl.gz"]
)
def test_two_faulty_lines_make_one_whole_market(recordings: Path, tmp_path: Path, name: str) -> None:
    arrivals, ledger = two_lines(recordings / name, random.Random(name))
    table = SymbolTable.open(str(tmp_path / "table"), "sim")
    symbols = sorted(ledger)
    slots = {symbol: table.add(symbol, place + 1, PRECISION) for place, symbol in enumerate(symbols)}
    covered = [Coverage(precision=PRECISION) for _ in symbols]

    def expire(now_ns: int) -> None:
        while records := table.expired(now_ns):
            for record in records:
                covered[table.touched].add(record)

    for at, _, kind, symbol, first, last, units, price, time in arrivals:
        now_ns = int((at + 1000) * MS)
        expire(now_ns)
        status, records = table.take(
            kind,
            symbol,
            first,
            last,
            price=price,
            mantissa=units,
            scale=PRECISION,
            ts_event=time * MS,
            recv_ns=time * MS,
            now_ns=now_ns,
        )
        assert status != REFUSED
        for record in records:
            covered[slots[symbol]].add(record)
    expire(10**15)
    expire(10**16)
    for symbol in symbols:
        coverage = covered[slots[symbol]]
        ids = coverage.traded | coverage.gaps
        first = min(ids)
        assert ids == {i for i in ledger[symbol] if i >= first}
        # One of the lines was there at every moment.
        assert not coverage.gaps
        assert coverage.units == sum(ledger[symbol][i] for i in coverage.traded)
        assert table.state(slots[symbol])["cum_units"] == coverage.units
    table.close()
