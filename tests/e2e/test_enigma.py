"""Enigma levels from a simulated exchange's trade through server and recorder to the clients and into the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.hubs import RawClient
from tests.e2e.running import RecorderProcess, ServerProcess, stream_ids
from tests.e2e.test_recorder import opened_history
from tests.reference import enigma
from tradeback.exchange.sim import Sim, SimConfig

SAFETY = 60.0


class Endpoints(NamedTuple):
    """Of a simulated exchange in this process."""

    ws_endpoint: str
    rest_endpoint: str


@asynccontextmanager
async def running(
    folder: Path, **environment: str
) -> AsyncIterator[tuple[Sim, ServerProcess, RecorderProcess]]:
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Sim(SimConfig(symbols=3, paused=True)))
        at = Endpoints(sim.ws_url, sim.rest_url)
        server = await asyncio.to_thread(
            ServerProcess, folder, at, EXCHANGE_SYMBOLS="BTCUSDT,ETHUSDT", **environment
        )
        stack.callback(server.kill)
        recorder = await asyncio.to_thread(RecorderProcess, folder, at, **environment)
        stack.callback(recorder.kill)
        await asyncio.to_thread(server.await_subscribed, 2)
        yield sim, server, recorder


@asynccontextmanager
async def subscribed(server: ServerProcess, symbol: str) -> AsyncIterator[RawClient]:
    client = await RawClient.connect(server.ws_port)
    try:
        await client.subscribe(symbol)
        yield client
    finally:
        await client.leave()


async def next_level(client: RawClient, price: float) -> dict[str, Any]:
    """The data of the first Enigma message that has this price."""
    async with asyncio.timeout(SAFETY):
        while True:
            message = await client.text()
            if message["type"] == "enigma" and message["data"]["current_price"] == price:
                data: dict[str, Any] = message["data"]
                return data


async def texts_until_pong(client: RawClient) -> list[dict[str, Any]]:
    client.send({"type": "ping"})
    found = []
    async with asyncio.timeout(SAFETY):
        while (message := await client.text())["type"] != "pong":
            found.append(message)
    return found


@pytest.mark.timeout(120)
def test_who_is_subscribed_is_told_the_level_and_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(tmp_path) as (sim, server, recorder),
            subscribed(server, "BTCUSDT") as client,
            subscribed(server, "ETHUSDT") as other,
        ):
            # Farther apart than any price of this exchange's history.
            sim.order("BTCUSDT", [("1000000.00", "0.001")])
            sim.order("BTCUSDT", [("10.00", "0.001")])
            sim.order("BTCUSDT", [("250007.50", "0.1"), ("250007.51", "0.1")])
            data = await next_level(client, 250007.51)
            price, ath, atl = Decimal("250007.51"), Decimal(1_000_000), Decimal(10)
            timestamp = data.pop("timestamp")
            assert data == {
                "symbol": "BTCUSDT",
                "level": enigma.level(price, ath, atl),
                "ath": 1_000_000.0,
                "atl": 10.0,
                "current_price": 250007.51,
                "fib_levels": enigma.fibonacci(ath, atl),
            }
            assert await texts_until_pong(other) == []
            # Who comes later is told of the next change.
            async with subscribed(server, "BTCUSDT") as late:
                assert await texts_until_pong(late) == []
                sim.order("BTCUSDT", [("1000010.00", "0.001")])
                assert (await next_level(late, 1_000_010.0))["level"] == 100.0
            assert await asyncio.to_thread(recorder.stop) == 0
            with opened_history(tmp_path) as history:
                stored = history.enigma(stream_ids(tmp_path)["BTCUSDT"])
            assert stored is not None
            assert stored[2:] == (1_000_010.0, 100.0, 1_000_010.0, 10.0)
            assert stored.ts_event // 1_000_000 >= timestamp

    asyncio.run(scenario())


@pytest.mark.timeout(120)
def test_a_killed_recorder_and_a_server_that_is_away_cost_no_level(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (sim, server, recorder):
            at = Endpoints(sim.ws_url, sim.rest_url)
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(subscribed(server, "BTCUSDT"))
                sim.order("BTCUSDT", [("1000000.00", "0.001")])
                await next_level(client, 1_000_000.0)
                await asyncio.to_thread(recorder.kill)
                sim.order("BTCUSDT", [("5.00", "0.001")])
                sim.order("BTCUSDT", [("500002.50", "0.001")])
                again = await asyncio.to_thread(RecorderProcess, tmp_path, at)
                stack.callback(again.kill)
                data = await next_level(client, 500_002.5)
                assert (data["level"], data["ath"], data["atl"]) == (50.0, 1_000_000.0, 5.0)
                server.kill()
                back = await asyncio.to_thread(
                    ServerProcess, tmp_path, at, EXCHANGE_SYMBOLS="BTCUSDT,ETHUSDT"
                )
                stack.callback(back.kill)
                await asyncio.to_thread(back.await_subscribed, 2)
                client = await stack.enter_async_context(subscribed(back, "BTCUSDT"))
                sim.order("BTCUSDT", [("1000000.00", "0.001")])
                assert (await next_level(client, 1_000_000.0))["level"] == 100.0

    asyncio.run(scenario())


@pytest.mark.timeout(120)
def test_without_the_feature_there_is_no_such_sink(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(tmp_path, FEATURE_ENIGMA_ENABLED="false") as (sim, server, recorder),
            subscribed(server, "BTCUSDT") as client,
        ):
            sim.order("BTCUSDT", [("1000000.00", "0.001")])
            status = await asyncio.to_thread(recorder.await_stored)
            sinks = {sink["name"] for sink in status["sinks"]}
            assert "history" in sinks
            assert "indicators" not in sinks
            assert await texts_until_pong(client) == []
            with opened_history(tmp_path) as history:
                assert history.enigma(stream_ids(tmp_path)["BTCUSDT"]) is None

    asyncio.run(scenario())
