"""A server that is restarted under clients who connect again: nobody loses a trade, and the journal tells.

Each client connects again as the table of close codes says. What it was sent over a connection must be a stretch of
the journal: from where it subscribed to where it was sent away, to the unit, and with the price that held there.
"""

from __future__ import annotations

import asyncio
import random
import resource
import struct
import time
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import pytest

from tests.e2e.hubs import Closed, RawClient
from tests.e2e.running import (
    RecorderProcess,
    ServerProcess,
    SimProcess,
    await_given_up,
    journal_rows,
    stream_id_of,
    stream_ids,
)
from tests.reference.journal_ids import KIND_AT, KIND_BEGIN, Coverage
from tests.scale import CHAOS
from tests.waiting import until
from tradeback.errors import CLOSE_REASONS, CloseCode
from tradeback.store.stats import read_stats

CLIENTS = 1_000 if CHAOS else 120
RESTARTS = 3 if CHAOS else 1
HURRY = 1.0 if CHAOS else 8.0  # so many times as fast as the table says
RATE = 60
SYMBOLS = 2
DECIMALS = 8
TRADE, GAP = 1, 2

Stretch = tuple[
    dict[int, Fraction], dict[int, float]
]  # sums of volumes and last prices of one connection, by stream


@dataclass
class Reconnecting:
    """A client, and what came over each of its connections."""

    port: int
    symbols: list[str]
    stretches: list[Stretch] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    now: RawClient | None = None

    async def run(self) -> None:
        while True:
            try:
                client = await RawClient.connect(self.port)
            except (OSError, AssertionError, asyncio.IncompleteReadError):
                await asyncio.sleep(random.uniform(0.5, 1.0) / HURRY)  # not there yet, or 503
                continue
            client.precision = DECIMALS
            try:
                await client.subscribe(*self.symbols)
                self.now = client
                while True:
                    await client.frame()
            except Closed as closed:
                code = closed.code
            self.now = None
            self.stretches.append((client.sums, client.last))
            self.codes.append(code)
            await client.leave()
            wait = CLOSE_REASONS[CloseCode(code)].wait_s if code is not None else (0.5, 1.0)
            assert wait is not None
            await asyncio.sleep(random.uniform(*wait) / HURRY)


async def restarted_under(
    folder: Path, sim: SimProcess, names: list[str]
) -> tuple[list[Reconnecting], ServerProcess]:
    """The clients, after so many restarts and with the market paused, and the last server."""
    settings = {"EXCHANGE_SYMBOLS": ",".join(names), "WS_ACCEPTS_PER_SECOND": "5000", "WS_DRAIN": "2s"}
    server = await asyncio.to_thread(lambda: ServerProcess(folder, sim, **settings))
    settings["WS_PORT"] = str(server.ws_port)
    clients = [Reconnecting(server.ws_port, names) for _ in range(CLIENTS)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        await until(lambda: all(client.now for client in clients), "all are subscribed")
        await asyncio.to_thread(server.await_subscribed, SYMBOLS)
        await asyncio.to_thread(sim.get, "/sim/resume")
        for _ in range(RESTARTS):
            await until(lambda: all(c.now and len(c.now.last) == SYMBOLS for c in clients), "all are served")
            assert await asyncio.to_thread(server.stop) == 0
            server = await asyncio.to_thread(lambda: ServerProcess(folder, sim, **settings))
        await until(lambda: all(client.now for client in clients), "all are back")
        await asyncio.to_thread(server.await_subscribed, SYMBOLS)
        before = {name: sim.get("/sim/ledger", symbol=name)["count"] for name in names}
        await until(
            lambda: all(sim.get("/sim/ledger", symbol=name)["count"] > before[name] for name in names),
            "trade",
        )
        await asyncio.to_thread(sim.pause_and_drain)
        await asyncio.to_thread(_settled, server, clients)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for client in clients:
            if client.now is not None:
                client.stretches.append((client.now.sums, client.now.last))
                await client.now.leave()
    assert [error for error in ended if not isinstance(error, asyncio.CancelledError)] == []
    return clients, server


def _settled(server: ServerProcess, clients: list[Reconnecting]) -> None:
    """Wait until all is journaled, and no client has read anything more in so many looks."""
    await_given_up(server)
    before, equal = -1, 0
    while equal < 30:
        now = sum(client.now.frames for client in clients if client.now is not None)
        equal = equal + 1 if now == before else 0
        before = now
        time.sleep(0.05)


def prefixes(rows: list[bytes], stream_id: int) -> tuple[list[tuple[Fraction, float]], Coverage]:
    """After each trade of the journal what was traded by then and the price, and which ids it tells of."""
    total, price, newest = Fraction(0), 0.0, -1
    found, coverage = [(total, price)], Coverage()
    for row in rows:
        if stream_id_of(row) != stream_id or row[KIND_AT] not in (TRADE, GAP, KIND_BEGIN):
            continue
        ids = coverage.add(row)
        if row[KIND_AT] == TRADE:
            last, quantity = struct.unpack_from("<2d", row)
            total += Fraction(repr(quantity)) * 10**DECIMALS
            if max(ids) > newest:
                newest, price = max(ids), last
            found.append((total, price))
    return found, coverage


def check(client: Reconnecting, stream_id: int, told: list[tuple[Fraction, float]]) -> None:
    """Its connections are stretches of the journal, one after the other, the first from the beginning and the last
    to the end."""
    total = told[-1][0]
    places = defaultdict(list)
    for place, (quantity, _) in enumerate(told):
        places[quantity].append(place)
    first_sums, first_last = client.stretches[0]
    ends = [place for place in places[first_sums[stream_id]] if told[place][1] == first_last[stream_id]]
    assert ends, "what it was sent before the restart ends nowhere in the journal"
    last_sums, last_prices = client.stretches[-1]
    begins = places[total - last_sums[stream_id]]
    assert begins, "what it was sent after the restart begins nowhere in the journal"
    assert last_prices[stream_id] == told[-1][1]
    assert min(ends) <= max(begins)
    middle = sum(sums[stream_id] for sums, _ in client.stretches[1:-1])
    assert middle <= told[max(begins)][0] - told[min(ends)][0]


@pytest.mark.timeout(600)
def test_a_restart_under_clients_loses_no_trade_for_anyone(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with SimProcess("--symbols", str(SYMBOLS), "--rate", str(RATE), "--paused") as sim:
        names = sorted(sim.get("/sim/ledger"))
        # The journal's reader runs through it all, as in life.
        with RecorderProcess(tmp_path, sim) as recorder:
            clients, server = asyncio.run(restarted_under(tmp_path, sim, names))
            status = recorder.await_stored(repaired=True)
            assert server.stop() == 0
            assert recorder.stop() == 0
        ledger = {name: sim.get("/sim/ledger", symbol=name) for name in names}
    for client in clients:
        assert client.codes == [CloseCode.SERVICE_RESTART] * RESTARTS
    ids, rows = stream_ids(tmp_path), journal_rows(tmp_path)
    for name in names:
        told, coverage = prefixes(rows, ids[name])
        known = coverage.traded | coverage.gaps
        # Compared by their number: ids begin where the exchange's history ends, far from 1.
        assert len(known) == ledger[name]["last_id"] - min(known) + 1
        for client in clients:
            check(client, ids[name], told)
    # What was traded while no server ran was fetched: every trade of the exchange is stored, once.
    assert status["gaps"]["unfillable"] == 0
    stored = read_stats(tmp_path / "sim" / "stats" / "recorder").values
    assert stored["trades"].value == sum(of["count"] for of in ledger.values())
