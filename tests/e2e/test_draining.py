"""How clients are sent away before a server ends: one after the other, with all that was traded."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.hubs import RawClient, request, run, served
from tradeback.server.draining import SLOWEST, drain

CLIENTS = 40


async def answer_of(port: int, path: str, *, upgrade: bool) -> bytes:
    """All that the server answers to one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(path, upgrade=upgrade))
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


@pytest.mark.parametrize("loop", ["asyncio", "epoll"])
def test_clients_are_sent_away_one_after_the_other(loop: str) -> None:
    async def scenario() -> None:
        async with served() as serving:
            name = serving.market.symbols[0]
            clients = [await serving.client() for _ in range(CLIENTS)]
            for client in clients:
                await client.subscribe(name)
            assert b" 200 " in await answer_of(serving.port, "/health", upgrade=False)
            began = asyncio.get_running_loop().time()
            draining = asyncio.create_task(drain(serving.hub, 1.0))
            await asyncio.sleep(0)
            # Who is still there is served, and goes with what was traded up to then.
            serving.trade(0, 7)
            said = await answer_of(serving.port, "/health", upgrade=False)
            assert b" 503 " in said
            assert b'"status":"draining"' in said
            said = await answer_of(serving.port, "/api/v1/ws", upgrade=True)
            assert b" 503 " in said
            assert b'"code":"restarting"' in said
            await serving.until(lambda: draining.done())
            assert asyncio.get_running_loop().time() - began >= CLIENTS / SLOWEST / 2
            codes = await asyncio.gather(*(client.closed() for client in clients))
            assert codes == [1012] * CLIENTS
            stream_id = clients[0].ids[name]
            sums = [int(client.sums[stream_id]) for client in clients]
            assert set(sums) <= {0, 7}
            # They leave from the newest to the oldest: the first client was there for the trade.
            assert sums[0] == 7
            assert sums == sorted(sums, reverse=True)
            await asyncio.gather(*(client.leave() for client in clients))

    run(scenario(), loop)


def test_what_waits_for_a_client_is_sent_before_it_goes() -> None:
    async def scenario() -> None:
        async with served() as serving:
            client: RawClient = await serving.client()
            await client.subscribe(serving.market.symbols[0])
            # Marked and not flushed: closing alone would lose it.
            serving.hub.fanout.mark(serving.market.trade(0, 5))
            await drain(serving.hub, 0.0)
            assert await client.closed() == 1012
            assert client.sums[client.ids[serving.market.symbols[0]]] == 5
            await client.leave()

    run(scenario())


def test_a_server_without_clients_ends_at_once() -> None:
    async def scenario() -> None:
        async with served() as serving:
            await asyncio.wait_for(drain(serving.hub, 10.0), 5.0)

    run(scenario())
