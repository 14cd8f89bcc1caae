"""Recordings go in message by message, and come out of the journal trade by trade."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tradeback._fast.fanout import FanOut
from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import JournalBegin, JournalCursor, JournalTrade, JournalWriter
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable
from tradeback.exchange.recording import read_recording

PRECISION = 8
RECORDINGS = [
    "ws_binance_spot_20210404_btc_eth_dot.jsonl.gz",
    "ws_binance_spot_20210405_10sym.jsonl.gz",
    "ws_binance_spot_20210417_10sym.jsonl.gz",
    "ws_trade_us_trxusdt_20250304_a.jsonl.gz",
]


@contextmanager
def ingest_of(folder: Path, symbols: list[str], *, segment_bytes: int = 8 << 20) -> Iterator[Ingest]:
    """An Ingest with its table and journal in `folder`; stream ids are places in `symbols`, from 1."""
    journal = JournalWriter.open(
        folder / "journal", "sim", segment_bytes=segment_bytes, retention_bytes=64 << 20
    )
    table = SymbolTable.open(str(folder / "table"), "sim")
    stats = Stats.in_memory()
    for stream_id, symbol in enumerate(symbols, 1):
        table.add(symbol, stream_id, PRECISION)
    try:
        yield Ingest(table, journal, FanOut(table, stats), stats)
    finally:
        journal.close()
        table.close()
        stats.close()


def market_events(path: Path) -> list[tuple[int, bytes, dict[str, Any]]]:
    """Arrival in ns, text and payload of the trades and aggTrades of a recording, read in plain Python."""
    events = [(int(t * 1e9), text.encode(), json.loads(text)["data"]) for t, text in read_recording(path)]
    return [event for event in events if event[2].get("e") in ("trade", "aggTrade")]


def unix_ns(time: int) -> int:
    return time * (1_000 if time > 10**14 else 1_000_000)


Told = tuple[int, int, float, float, int, int]


def journal_told(record: JournalTrade) -> Told:
    """Last id, number of trades, price, quantity, time and the buyer-is-maker flag of a record."""
    return (
        record.trade_id,
        record.trade_count,
        record.price,
        record.qty,
        record.ts_event,
        record.flags & 1,
    )


def exchange_told(data: dict[str, Any]) -> Told:
    """The same of a payload of the exchange."""
    is_aggregate = data["e"] == "aggTrade"
    return (
        data["l"] if is_aggregate else data["t"],
        data["l"] - data["f"] + 1 if is_aggregate else 1,
        float(data["p"]),
        float(data["q"]),
        unix_ns(data["T"]),
        int(data["m"]),
    )


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_comes_out_of_the_journal_as_it_went_in(
    recordings: Path, tmp_path: Path, name: str
) -> None:
    events = market_events(recordings / name)
    symbols = sorted({data["s"] for _, _, data in events})
    with ingest_of(tmp_path, symbols) as ingest:
        for at, text, _ in events:
            assert ingest.take(text, at, at) == 0
        with JournalCursor.open(tmp_path / "journal") as cursor:
            records = [record for record in cursor if isinstance(record, JournalTrade)]
        assert [(symbols[record.stream_id - 1], journal_told(record)) for record in records] == [
            (data["s"], exchange_told(data)) for _, _, data in events
        ]


@pytest.mark.parametrize("name", RECORDINGS[:3])
def test_two_lines_of_a_recording_cover_every_id_once(recordings: Path, tmp_path: Path, name: str) -> None:
    """An aggTrade of one trade is sent on both lines, the trade line first; quantities come out exactly."""
    events = market_events(recordings / name)
    symbols = sorted({data["s"] for _, _, data in events})
    quantities: dict[str, Decimal] = defaultdict(Decimal)
    with ingest_of(tmp_path, symbols) as ingest:
        for at, text, data in events:
            quantities[data["s"]] += Decimal(data["q"])
            if data["f"] == data["l"]:
                single = {"e": "trade", **{k: data[k] for k in "EspqTm"}, "t": data["l"]}
                stream = f"{data['s'].lower()}@trade"
                ingest.take(json.dumps({"stream": stream, "data": single}).encode(), at, at)
            ingest.take(text, at, at)
            ingest.tick(at)
        ingest.tick(events[-1][0] + 10**9)
        covered: dict[str, list[int]] = defaultdict(list)
        journaled: dict[str, Decimal] = defaultdict(Decimal)
        with JournalCursor.open(tmp_path / "journal") as cursor:
            for record in cursor:
                if isinstance(record, JournalBegin):
                    assert covered[symbols[record.stream_id - 1]] == []
                    continue
                assert isinstance(record, JournalTrade)
                symbol = symbols[record.stream_id - 1]
                covered[symbol] += range(record.trade_id - record.trade_count + 1, record.trade_id + 1)
                journaled[symbol] += Decimal(repr(record.qty))
    for symbol in symbols:
        ids = [i for _, _, data in events if data["s"] == symbol for i in range(data["f"], data["l"] + 1)]
        assert sorted(covered[symbol]) == ids
        assert journaled[symbol] == quantities[symbol]
