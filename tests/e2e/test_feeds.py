"""Feeds against the simulated exchange, over real sockets in one loop: they keep delivering, whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.on_loop import run
from tests.e2e.running import journal_rows, stream_id_of
from tests.reference.journal_ids import KIND_AT, KIND_BEGIN, KIND_GAP, KIND_TRADE, Coverage
from tests.waiting import until
from tradeback.config import Config
from tradeback.exchange.rest import ExchangeRest
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.model import Symbol
from tradeback.server.app import Server
from tradeback.server.feed import Feed


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
        async with serving(folder, config, known) as server:
            await until(lambda: all(feed.connected for feed in server.feeds))
            await until(lambda: min(subscribed(server).values()) == symbols)
            yield sim, server


@asynccontextmanager
async def serving(folder: Path, config: Config, known: list[Symbol]) -> AsyncIterator[Server]:
    """A server that is ready."""
    (folder / "sim").mkdir()
    server = Server(config, folder / "sim", "sim", known)
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(server.run(lambda _: ready.set(), stop))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        waiting.cancel()
        await running
    try:
        yield server
    finally:
        stop.set()
        await running


def subscribed(server: Server) -> dict[str, int]:
    return {feed.name: int(str(feed.describe()["subscribed"])) for feed in server.feeds}


def assert_nothing_lost(folder: Path, sim: Sim, *, gaps_allowed: bool = False) -> None:
    """Every id from the first journaled one to the ledger's last is in the journal once, or in a gap."""
    coverage: dict[int, Coverage] = {}
    for row in journal_rows(folder):
        if row[KIND_AT] in (KIND_TRADE, KIND_GAP, KIND_BEGIN):
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


def feed_of(server: Server, line: str) -> Feed:
    return next(feed for feed in server.feeds if feed.stream_type == line)


def test_a_refused_stream_is_left_out_and_the_rest_delivers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, symbols=12) as (sim, server):
            bad = f"{sim.symbols[5].lower()}@trade"
            sim.fault("refuse", bad, None, 3600.0)
            sim.fault("cut", "trade", 1, None)
            feed = feed_of(server, "trade")
            await until(lambda: feed.describe()["refusals"] == {bad: f"Invalid request: {bad} is refused"})
            await until(lambda: subscribed(server)[feed.name] == 11)
            assert (feed.connected, feed.connects) == (True, 2)
            # The next connection knows, and asks for the others at once.
            refusals = sim.faults.done["refuse"]
            sim.fault("cut", "trade", 1, None)
            await until(lambda: feed.connects == 3 and subscribed(server)[feed.name] == 11)
            assert sim.faults.done["refuse"] == refusals
            # What is no longer wanted is forgotten, and tried at once when it is wanted again.
            server.feeds.drop(sim.symbols[5])
            assert feed.describe()["refused"] == 0
            sim.clear_faults()
            server.feeds.want(sim.symbols[5])
            await until(lambda: subscribed(server)[feed.name] == 12)
            assert sim.hub.rate_cuts == 0
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim)

    run(scenario())
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("the exchange refuses a stream") == 1


def test_a_line_without_its_busiest_stream_is_not_taken_for_mute(tmp_path: Path) -> None:
    """Others bring trades of the refused stream; that this one brings none of them says nothing."""

    async def scenario() -> None:
        async with Sim(SimConfig(symbols=2, paused=True)) as sim:
            async with ExchangeRest(sim.rest_url) as rest:
                infos = await rest.exchange_info()
            known = [Symbol(info, stream_id) for stream_id, info in enumerate(infos, 1)]
            busy = sim.symbols[0]
            sim.fault("refuse", f"{busy.lower()}@trade", None, 3600.0)
            config = config_of(tmp_path, sim, sim.symbols, mute_limit="500ms")
            async with serving(tmp_path, config, known) as server:
                feed, others = feed_of(server, "trade"), feed_of(server, "aggTrade")
                await until(lambda: feed.describe()["refused"] == 1 and others.connected)
                for _ in range(20):
                    sim.order(busy, [("100", "1")])
                    await asyncio.sleep(0.1)
                assert (feed.connects, feed.last_error) == (1, None)

    run(scenario())


def test_a_subscription_that_is_never_answered_ends_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, mute_limit="1s") as (sim, server):
            feed = feed_of(server, "trade")
            sim.fault("unanswered", "trade", 2, None)
            sim.fault("cut", "trade", 1, None)
            await until(lambda: sim.faults.done["unanswered"] == 2)
            await until(lambda: subscribed(server)[feed.name] == 4 and feed.connects == 4)
            assert feed.last_error == "trade-0: no answer to SUBSCRIBE of 4 streams within 1 s"
            await settle(sim, server)
            assert_nothing_lost(tmp_path, sim)

    run(scenario())


def test_a_shutdown_notice_is_obeyed_before_the_connection_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, rate=2_000.0) as (sim, server):
            before = {line: connects(server, line) for line in ("trade", "aggTrade", "bookTicker")}
            sim.fault("shutdown", None, 1, 20.0)
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
            config = config_of(tmp_path, sim, sim.symbols, streams_per_connection=10)
            async with serving(tmp_path, config, known) as server:
                assert len(list(server.feeds)) == 9
                await until(lambda: sum(subscribed(server).values()) == 75)
                assert sim.hub.rate_cuts == 0
                await all_trade(sim)
                assert max(len(connection.streams) for connection in sim.hub.connections) == 10
                await settle(sim, server)
                assert_nothing_lost(tmp_path, sim)

    run(scenario())


def test_symbols_are_spread_over_the_connections_that_there_may_be(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Sim(SimConfig(symbols=7, rate=500.0)) as sim:
            async with ExchangeRest(sim.rest_url) as rest:
                known = [Symbol(info, i) for i, info in enumerate(await rest.exchange_info(), 1)]
            config = config_of(
                tmp_path, sim, sim.symbols, max_connections=11
            )  # three for each type of stream
            async with serving(tmp_path, config, known) as server:
                assert len(list(server.feeds)) == 9
                await until(lambda: sum(subscribed(server).values()) == 21)
                await all_trade(sim)
                assert (
                    sorted(len(connection.streams) for connection in sim.hub.connections) == [2] * 6 + [3] * 3
                )
                await settle(sim, server)
                assert_nothing_lost(tmp_path, sim)

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
