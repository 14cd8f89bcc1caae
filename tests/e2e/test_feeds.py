"""Feeds against the simulated exchange, over real sockets in one loop: they keep delivering, whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.on_loop import run, until
from tests.e2e.running import journal_rows, stream_id_of
from tests.reference.journal_ids import KIND_AT, Coverage
from tradeback.config import Config
from tradeback.exchange.rest import ExchangeRest
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.model import Symbol
from tradeback.server.app import Server


def config_of(folder: Path, sim: Sim, symbols: list[str], **exchange: Any) -> Config:
    return Config.model_validate(
        {
            "server": {"host": "127.0.0.1", "ws_port": 0},
            "websocket": {"anonymous": True},
            "data": {"folder": folder},
            "journal": {"segment_bytes": "1MiB", "retention_bytes": "256MiB"},
            "exchange": {
                "name": "sim",
                "ws_endpoint": sim.ws_url,
                "rest_endpoint": sim.rest_url,
                "symbols": symbols,
                "reconnect_interval": "250ms",
                **exchange,
            },
        }
    )


@asynccontextmanager
async def running(
    folder: Path, *, symbols: int = 4, rate: float = 400.0, **exchange: Any
) -> AsyncIterator[tuple[Sim, Server]]:
    """A simulated exchange and a server on it that carries all of its symbols."""
    async with Sim(SimConfig(symbols=symbols, rate=rate, weight_limit=1_000_000)) as sim:
        async with ExchangeRest(sim.rest_url) as rest:
            infos = await rest.exchange_info()
        known = [Symbol(info, stream_id) for stream_id, info in enumerate(infos, 1)]
        config = config_of(folder, sim, sim.symbols, **exchange)
        (folder / "sim").mkdir()
        server = Server(config, folder / "sim", "sim", known)
        ready, stop = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(server.run(lambda _: ready.set(), stop))
        done, _ = await asyncio.wait(
            {serving, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        if serving in done:
            await serving
        try:
            await until(lambda: all(feed.connected for feed in server.feeds))
            await until(lambda: min(subscribed(server).values()) == symbols)
            yield sim, server
        finally:
            stop.set()
            await serving


def subscribed(server: Server) -> dict[str, int]:
    return {feed.name: int(str(feed.describe()["subscribed"])) for feed in server.feeds}


def assert_nothing_lost(folder: Path, sim: Sim, *, gaps_allowed: bool = False) -> None:
    """Every id from the first journaled one to the ledger's last is in the journal once, or in a gap."""
    coverage: dict[int, Coverage] = {}
    for row in journal_rows(folder):
        if row[KIND_AT] in (1, 2):
            coverage.setdefault(stream_id_of(row), Coverage()).add(row)
    for stream_id, symbol in enumerate(sim.symbols, 1):
        of = coverage[stream_id]
        ids = of.traded | of.gaps
        last = sim.ledger.of(symbol).last_trade
        assert ids == set(range(min(ids), last + 1)), symbol
        assert gaps_allowed or not of.gaps, (symbol, sorted(of.gaps)[:10])


async def settle(sim: Sim, server: Server) -> None:
    """The market stops, and everything that it made has arrived and been decided on."""
    sim.pause()
    await until(sim.drained)
    last = -1
    while last != server.journal.next_seq or server.table.deadline_ns:
        last = server.journal.next_seq
        await asyncio.sleep(0.3)


async def all_trade(sim: Sim) -> None:
    """Wait until every symbol has traded again."""
    before = [sim.ledger.of(symbol).trade_count for symbol in sim.symbols]
    await until(
        lambda: all(sim.ledger.of(s).trade_count > c for s, c in zip(sim.symbols, before, strict=True))
    )


def connects(server: Server, line: str) -> int:
    return next(feed.connects for feed in server.feeds if feed.stream_type == line)


@pytest.mark.parametrize("line", ["trade", "aggTrade", "bookTicker"])
def test_a_cut_line_reconnects_and_the_other_fills_in(tmp_path: Path, line: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (sim, server):
            for number in range(3):
                before = connects(server, line)
                sim.fault("cut", line, 1, None)
                await until(lambda before=before: connects(server, line) > before)  # type: ignore[misc]
                await until(lambda: min(subscribed(server).values()) == 4)
                assert connects(server, line) >= number + 2
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim)

    run(scenario())


def test_both_lines_cut_at_once_leave_a_gap_that_is_journaled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, rate=2_000.0) as (sim, server):
            before = connects(server, "trade"), connects(server, "aggTrade")
            sim.fault("cut", "trade", 1, None)
            sim.fault("cut", "aggTrade", 1, None)
            await until(lambda: connects(server, "trade") > before[0])
            await until(lambda: connects(server, "aggTrade") > before[1])
            await until(lambda: min(subscribed(server).values()) == 4)
            await all_trade(sim)
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim, gaps_allowed=True)

    run(scenario())


def test_a_mute_connection_is_given_up(tmp_path: Path) -> None:
    """Connected, answering nothing and sending nothing: only the watchdog can tell."""

    async def scenario() -> None:
        async with running(tmp_path, mute_limit="1s") as (sim, server):
            before = connects(server, "trade")
            sim.fault("mute", "trade", None, 3600.0)
            await until(lambda: connects(server, "trade") > before)
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim)

    run(scenario())


def test_a_shutdown_notice_is_obeyed_before_the_connection_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, rate=2_000.0) as (sim, server):
            before = {line: connects(server, line) for line in ("trade", "aggTrade", "bookTicker")}
            sim.fault("shutdown", None, 1, 3.0)
            await until(lambda: all(connects(server, line) > count for line, count in before.items()))
            await until(lambda: len(sim.hub.connections) == 3)
            await all_trade(sim)
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim)

    run(scenario())


def test_a_connection_is_relieved_before_its_age_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, rate=2_000.0, connection_age="1s") as (sim, server):
            await until(lambda: all(connects(server, line) >= 4 for line in ("trade", "aggTrade")))
            assert all(feed.last_error is None for feed in server.feeds)
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim)

    run(scenario())


def test_more_streams_than_a_connection_may_carry_open_more_connections(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Sim(SimConfig(symbols=25, rate=500.0)) as sim:
            async with ExchangeRest(sim.rest_url) as rest:
                known = [Symbol(info, i) for i, info in enumerate(await rest.exchange_info(), 1)]
            (tmp_path / "sim").mkdir()
            config = config_of(tmp_path, sim, sim.symbols, streams_per_connection=10)
            server = Server(config, tmp_path / "sim", "sim", known)
            ready, stop = asyncio.Event(), asyncio.Event()
            serving = asyncio.create_task(server.run(lambda _: ready.set(), stop))
            await ready.wait()
            assert len(list(server.feeds)) == 9
            await until(lambda: sum(subscribed(server).values()) == 75)
            assert sim.hub.rate_cuts == 0
            await all_trade(sim)
            assert max(len(connection.streams) for connection in sim.hub.connections) == 10
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim)
            stop.set()
            await serving

    run(scenario())


@pytest.mark.parametrize(
    "kind", ["skip", "repeat", "reorder", "garbage", "truncate", "stall", "html", "badcolumns"]
)
def test_faults_on_one_line_change_nothing(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path, rate=1_000.0) as (sim, server):
            for _ in range(5):
                sim.fault(kind, "trade", 10, 0.2)
                made = sim.trades
                await until(lambda made=made: sim.trades > made + 20)  # type: ignore[misc]
            await until(lambda: min(subscribed(server).values()) == 4)
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim)

    run(scenario())
