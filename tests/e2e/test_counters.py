"""Whatever the server counts is fed: after traffic of every sort each counter has moved, as other processes read it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from picows import WSListener, WSMsgType, ws_connect

from tests.e2e.on_loop import run
from tests.e2e.test_feeds import connects, running, settle, subscribed
from tests.waiting import until
from tradeback.client import Client
from tradeback.exchange.sim.app import Sim
from tradeback.server.counters import client_error
from tradeback.store.stats import Reading, read_stats

# Those that only a fault moves which this test does not make, and the tests that see to them.
ELSEWHERE = {
    "conflated": "test_fanout",
    "clients_blocked": "test_fanout",
    "slow_closes": "test_hostile_clients",
    "rate_closes": "test_client_protocol",
    "stale_quotes": "test_ingest",
    "late_trades": "test_ingest",
    "unknown_symbol": "test_ingest",
    "refused": "test_ingest",
    "malformed": "test_ingest",
    "unusual": "test_ingest",
    "journal_unwritten": "test_ingest",
    "gaps": "test_ingest",
    "gap_trades": "test_ingest",
    "rounded": "test_ingest",
    "held_overflows": "test_ingest",
    "open_overflows": "test_ingest",
    "unknown_quantities": "test_ingest",
    "sessions": "test_client_sessions",
    "clients_authenticated": "test_client_sessions",
    "clients_waiting": "test_client_sessions",
    "unauthorized": "test_client_sessions",
    "session_closes": "test_client_sessions",
    "symbols_forbidden": "test_client_sessions",
    "watchlist_changes": "test_client_sessions",
    "session_updates": "test_sessions",
    "feed_pauses": "test_flood",
    "feed_dropped": "test_flood",
    # Where there is no limit they are 0.
    "descriptors_limit": "test_resources",
    "memory_ceiling_bytes": "test_resources",
}


SKIPPED = 20  # messages at once


async def be_refused(url: str) -> None:
    """One request for a page that is not there."""
    host, port = url.removeprefix("http://").removesuffix("/health").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 404 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def say_nonsense(url: str) -> None:
    """One message that no server understands."""
    transport, _ = await ws_connect(WSListener, url)
    transport.send(WSMsgType.TEXT, b"nonsense")
    transport.send_close()
    await transport.wait_disconnected()


def elsewhere(name: str) -> bool:
    """Whether it is another test that moves it: `test_problems_are_counted`, `test_client_protocol` for what clients
    are told of, and `test_metrics` for feeds' ages."""
    return name in ELSEWHERE or name.startswith(("problems{", "client_errors{", "feed_message_at_ns{"))


def moved(reading: Reading) -> set[str]:
    values = {name for name, one in reading.values.items() if one.value}
    return values | {name for name, one in reading.histograms.items() if one.count and one.sum_ns}


def all_moved(sim: Sim, left: set[str]) -> bool:
    """Whether what is left is others'. Where no aggTrade was held, single trades are left out: on a busy machine they
    always come first, or both lines are read so late that the one of trades counts as mute."""
    if "held" in left and not any(
        fault.kind == "skip" and not fault.over() for fault in sim.faults.on_stream("trade")
    ):
        sim.fault("skip", "trade", SKIPPED, None)
    return all(map(elsewhere, left))


def test_every_counter_moves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, rate=1_000.0) as (sim, server):
            addresses = server.addresses()
            path = tmp_path / "sim" / "stats" / "server"
            everything = {*read_stats(path).values, *read_stats(path).histograms}
            await be_refused(addresses["health"])
            await say_nonsense(addresses["websocket"])
            before = connects(server, "trade")
            sim.fault("cut", "trade", 1, None)
            await until(lambda: connects(server, "trade") > before)
            await until(lambda: min(subscribed(server).values()) == 4)
            async with Client(addresses["websocket"], sim.symbols) as client:
                await until(lambda: all_moved(sim, everything - moved(read_stats(path))))
                assert client.connected
                reading = read_stats(path)
            await settle(sim, server)
            await until(lambda: read_stats(path).values["clients"].value == 0)
            assert reading.running
            assert ELSEWHERE.keys() <= everything
            values = {name: one.value for name, one in reading.values.items()}
            assert values["clients"] == 1
            assert values["clients_total"] == 2
            assert values["clients_refused"] == 1
            assert values["malformed_commands"] == values[client_error("malformed")] == 1
            assert values["feed_connects"] == sum(feed.connects for feed in server.feeds) == 4
            assert values["feed_disconnects"] == 1

    run(scenario())
