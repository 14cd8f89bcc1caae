"""The server and a reader of its journal, killed at random moments under load: nothing is lost, nothing is twice."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.e2e.running import (
    ServerProcess,
    SimProcess,
    await_given_up,
    journal_rows,
    stream_id_of,
    stream_ids,
)
from tests.reference.journal_ids import KIND_AT, KIND_BEGIN, Coverage
from tests.scale import CHAOS
from tests.waiting import await_true
from tradeback.recorder.sinks import journal_end

KILLS = 100 if CHAOS else 10
SYMBOLS = 12
RATE = 3_000
TRADE, GAP = 1, 2


def reader_process(folder: Path) -> subprocess.Popen[bytes]:
    """The durable reader, following the journal of the server."""
    arguments = [str(folder / "sim" / "journal"), str(folder / "read")]
    return subprocess.Popen([sys.executable, "-m", "tests.chaos.durable_reader", *arguments], cwd=CHECKOUT)


@pytest.mark.timeout(1800)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    patient = ("--weight-limit", "1000000", "--max-attempts", "1000000")
    with SimProcess("--symbols", str(SYMBOLS), "--rate", str(RATE), *patient) as sim:
        symbols = sorted(sim.get("/sim/ledger"))
        carried = {"EXCHANGE_SYMBOLS": ",".join(symbols), "JOURNAL_SEGMENT_BYTES": "256KiB"}
        server = ServerProcess(tmp_path, sim, **carried)
        reader = reader_process(tmp_path)
        server.await_subscribed(SYMBOLS)
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.0, 0.8))
            if chance.random() < 0.3:
                reader.kill()
                reader.wait()
                reader = reader_process(tmp_path)
            server.kill()
            server = ServerProcess(tmp_path, sim, **carried)
            if chance.random() < 0.5:
                server.await_subscribed(SYMBOLS)
        server.await_subscribed(SYMBOLS)
        traded = {name: sim.get("/sim/ledger", symbol=name)["count"] for name in symbols}
        await_true(
            lambda: all(sim.get("/sim/ledger", symbol=name)["count"] > traded[name] for name in symbols),
            "a symbol never traded again",
            60,
        )
        sim.pause_and_drain()
        await_given_up(server)
        assert server.stop() == 0
        await_read(tmp_path / "read", journal_end(tmp_path / "sim" / "journal") - 1)
        reader.kill()
        reader.wait()
        names = {stream_id: name for name, stream_id in stream_ids(tmp_path).items()}
        rows = journal_rows(tmp_path)
        coverage: dict[str, Coverage] = defaultdict(Coverage)
        ledger = {name: all_trades(sim, name) for name in symbols}
        for row in rows:
            if row[KIND_AT] in (TRADE, GAP, KIND_BEGIN):
                name = names[stream_id_of(row)]
                ids = coverage[name].add(row)
                if row[KIND_AT] == TRADE:
                    assert_record_is_its_trades(row, [ledger[name][i] for i in sorted(ids)])
        for name in symbols:
            of = coverage[name]
            first = min(of.traded | of.gaps)
            assert of.traded | of.gaps == set(
                range(first, sim.get("/sim/ledger", symbol=name)["last_id"] + 1)
            )
        assert_read_is_the_journal(tmp_path / "read", rows)


def all_trades(sim: SimProcess, symbol: str) -> dict[int, tuple[Decimal, Decimal]]:
    """The exchange's ledger: price and quantity of every trade by id."""
    rows = sim.get("/api/v3/historicalTrades", symbol=symbol, limit=1000, fromId=0)
    trades = {}
    while rows:
        trades.update({row["id"]: (Decimal(row["price"]), Decimal(row["qty"])) for row in rows})
        rows = sim.get("/api/v3/historicalTrades", symbol=symbol, limit=1000, fromId=rows[-1]["id"] + 1)
    return trades


def assert_record_is_its_trades(row: bytes, trades: list[tuple[Decimal, Decimal]]) -> None:
    """A record's price is that of its last trade, its quantity the exact sum of all that it stands for."""
    price, quantity = struct.unpack_from("<2d", row)
    assert price == float(trades[-1][0])
    assert quantity == float(sum(quantity for _, quantity in trades))


def await_read(path: Path, last_seq: int) -> None:
    """Wait until the reader wrote the record of that number."""
    deadline = time.monotonic() + 300
    while int(path.read_bytes().rsplit(b"\n", 2)[-2].split(b" ")[0]) < last_seq:
        assert time.monotonic() < deadline, "the reader never came to the end"
        time.sleep(0.05)


def assert_read_is_the_journal(path: Path, rows: list[bytes]) -> None:
    """Whole, in order, once: by its sequence numbers, what was written more than once is dropped."""
    read: dict[int, str] = {}
    for line in path.read_text().splitlines():
        seq, _, row = line.partition(" ")
        if len(row) == 128:  # a line that a kill cut short is written again
            assert read.setdefault(int(seq), row) == row
    assert sorted(read) == list(range(1, len(rows) + 1))
    assert [bytes.fromhex(read[seq]) for seq in sorted(read)] == rows
