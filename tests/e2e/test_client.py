"""Our client against our server: every price in order, all of the volume, and the ends that it must know."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.hubs import PATIENCE, Served, run, served
from tests.e2e.test_client_sessions import SECRET, told
from tradeback.client import Client, Update
from tradeback.client import events as events_module
from tradeback.errors import ServerRefusedError, UnknownSymbolError
from tradeback.tokens import new_token


def server_url(server: Served) -> str:
    return f"ws://127.0.0.1:{server.port}/api/v1/ws"


async def take_until(client: Client, price: float) -> list[Update]:
    updates = []
    async with asyncio.timeout(PATIENCE):
        async for update in client:
            updates.append(update)
            if update.price == price:
                break
    return updates


@pytest.mark.parametrize("json", [False, True])
def test_it_gets_what_was_traded(json: bool) -> None:
    async def scenario() -> None:
        async with served(json=json) as server:
            name = server.market.symbols[0]
            async with Client(server_url(server), [name]) as client:
                await server.until(lambda: client.round_trip_s is not None)
                for n in range(1, 101):
                    server.trade(0, 1, price=100.0 + n)
                updates = await take_until(client, 200.0)
            prices = [update.price for update in updates]
            assert prices == sorted(prices)
            assert {update.symbol for update in updates} == {name}
            assert all(update.volume >= 0 for update in updates)

    run(scenario())


def test_an_unknown_symbol_ends_it() -> None:
    async def scenario() -> None:
        async with (
            served() as server,
            Client(server_url(server), ["NONSENSE"]) as client,
        ):
            with pytest.raises(UnknownSymbolError):
                await take_until(client, 0.0)

    run(scenario())


def test_a_server_that_wants_a_session_is_told_about() -> None:
    async def scenario() -> None:
        async with served(anonymous=False) as server, Client(server_url(server), ["NONSENSE"]) as client:
            with pytest.raises(ServerRefusedError, match="answered 401"):
                await take_until(client, 0.0)

    run(scenario())


def test_thousands_of_symbols_are_asked_for_at_the_pace_of_a_server_that_does_not_know_us_yet() -> None:
    """More than it keeps of a client whose session it looks for, and more than it takes at once of any."""

    async def scenario() -> None:
        async with told(max_symbols=65_535) as telling:
            server = telling.serving
            last = server.market.symbols[-1]
            names = [f"SOMETHING{n:05}" for n in range(20_000)]
            token = new_token(SECRET, 1000)
            async with Client(server_url(server), [*names, last], token=token) as client:
                await server.until(lambda: telling.hub.settling._held_bytes > 40_000)
                telling.account([token])
                server.trade(len(server.market.symbols) - 1, 1, price=7.0)
                assert await take_until(client, 7.0) == [(last, 7.0, 0.0)]
                assert client.connections == 1

    run(scenario())


@pytest.mark.parametrize("name", ["", "A" * 51, "A\nB", "\ud800", "\x1b[2J"])
def test_what_no_symbol_is_called_is_not_asked_for(name: str) -> None:
    with pytest.raises(UnknownSymbolError, match="is no symbol"):
        Client("ws://127.0.0.1:1/", ["BTCUSDT", name])
    with pytest.raises(UnknownSymbolError, match="is no symbol"):
        Client("ws://127.0.0.1:1/").subscribe(name)
    assert Client("ws://127.0.0.1:1/", "btcusdt").symbols == ["BTCUSDT"]


def test_a_program_that_takes_nothing_costs_little_and_gets_all_of_the_volume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events_module, "QUEUE_LIMIT", 50)

    async def scenario() -> None:
        async with served(symbols=3) as server:
            names = server.market.symbols
            async with Client(server_url(server), names) as client:
                await server.until(lambda: client.round_trip_s is not None)
                for n in range(2_000):
                    server.trade(n % 3, 1, price=float(n + 1))
                    await asyncio.sleep(0)
                server.trade(0, 1, price=9_999.0)
                await server.until(lambda: client.conflated > 0 and last_price(client) == 9_999.0)
                assert len(client._backlog) <= 50 + 3
                updates = await take_until(client, 9_999.0)
                updates += [event for event in iter(client._backlog.take, None) if isinstance(event, Update)]
            volume = sum(update.volume for update in updates)
            assert volume == pytest.approx(2_001 / 10**server.market.precision)
            assert client.connections == 1

    def last_price(client: Client) -> float | None:
        waiting = client._backlog._latest.get((Update, "S0USDT"))
        return waiting.price if isinstance(waiting, Update) else None

    run(scenario())


def test_a_server_that_takes_shorter_commands_is_told_about() -> None:
    async def scenario() -> None:
        names = [f"SOMETHING{n:05}" for n in range(200)]
        async with served(max_message_bytes=1024) as server, Client(server_url(server), names) as client:
            with pytest.raises(ServerRefusedError, match="closed with 1009"):
                await take_until(client, 0.0)

    run(scenario())
