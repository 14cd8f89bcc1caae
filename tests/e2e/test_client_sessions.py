"""Clients that are logged in, over real sockets to a hub in this process, which the test tells of sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from tests.e2e.hubs import TEXT, RawClient, Served, mask_frame, request, run, served
from tests.e2e.logins import bearer, cookie
from tradeback.config import CorsConfig
from tradeback.errors import ProtocolError
from tradeback.model import Account
from tradeback.server import client as client_module
from tradeback.server import settling
from tradeback.tokens import check_token, new_token

SECRET = b"s" * 32
USER = 7


class Told:
    """Stands in for the recorder."""

    def __init__(self, serving: Served) -> None:
        self.serving = serving
        self.hub = serving.hub
        self.accounts: dict[int, Account] = {}

    def everything(self) -> None:
        self.hub.settling.settle(self.hub.sessions.part(self.accounts.values(), 1, 1))

    def nothing_new(self) -> None:
        self.hub.settling.settle(self.hub.sessions.change([]))

    def account(
        self,
        tokens: Iterable[str] = (),
        watchlist: Iterable[str] = (),
        patterns: tuple[str, ...] = ("*",),
        *,
        user: int = USER,
        lasts: float = 1000,
    ) -> None:
        """The user's account is so from now on."""
        ends = int(time.time() + lasts)
        sessions = {check_token(SECRET, token, 0): ends for token in tokens}
        self.accounts[user] = Account(user, patterns, tuple(watchlist), sessions)
        self.hub.settling.settle(self.hub.sessions.change([self.accounts[user]]))

    def count(self, name: str) -> int:
        return self.hub.stats.value(name)


@asynccontextmanager
async def told(symbols: int = 5, anonymous: bool = False, **settings: Any) -> AsyncIterator[Told]:
    """A hub whose recorder has told it everything, which was nothing."""
    async with served(symbols, secret=SECRET, anonymous=anonymous, **settings) as serving:
        telling = Told(serving)
        telling.everything()
        yield telling


async def connect(telling: Told, token: str | None, **options: int) -> RawClient:
    headers = {} if token is None else cookie(token)
    return await RawClient.connect(telling.serving.port, headers=headers, **options)


async def status_of(port: int, headers: dict[str, str]) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(headers=headers))
    status = int((await asyncio.wait_for(reader.readline(), 20)).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


def auto(kind: str, symbol: str, stream_id: int) -> dict[str, object]:
    return {"type": kind, "data": {"symbol": symbol, "id": stream_id}}


def test_a_token_is_checked_also_where_none_is_needed() -> None:
    async def scenario() -> None:
        async with told(anonymous=True) as telling:
            port = telling.serving.port
            forged = new_token(b"another", 1000)
            assert await status_of(port, {}) == 101
            for headers in (
                bearer(forged),
                cookie(forged),
                cookie(new_token(SECRET, -1)),
                cookie("nonsense"),
            ):
                assert await status_of(port, headers) == 401
            assert telling.count("unauthorized") == 4
            stranger = await connect(telling, new_token(SECRET, 1000))
            telling.nothing_new()
            telling.nothing_new()
            assert await stranger.closed() == 4401
            await stranger.leave()

    run(scenario())


@pytest.mark.parametrize(
    ("cors", "named", "status"),
    [
        (CorsConfig(), (), 403),
        (CorsConfig(allowed_origins=("http://a.example",)), (), 101),
        (CorsConfig(), ("http://a.example",), 101),
        (CorsConfig(allowed_origins=("http://a.example",), allow_credentials=False), (), 401),
        (CorsConfig(allowed_origins=("*",), allow_credentials=False), (), 401),
        (CorsConfig(), ("*",), 401),  # it may connect, but not with a cookie that it did not ask for
    ],
)
def test_a_cookie_counts_from_pages_that_may_act_for_the_user(
    cors: CorsConfig, named: tuple[str, ...], status: int
) -> None:
    async def scenario() -> None:
        async with told(cors=cors, allowed_origins=named) as telling:
            port, token = telling.serving.port, new_token(SECRET, 1000)
            telling.account([token])
            elsewhere = {"Origin": "http://a.example"}
            assert await status_of(port, cookie(token) | elsewhere) == status
            assert await status_of(port, bearer(token) | elsewhere) == (403 if status == 403 else 101)
            for ours in ({}, {"Origin": "http://localhost:8080"}):
                assert await status_of(port, cookie(token) | ours) == 101

    run(scenario())


def test_without_a_secret_no_token_is_good() -> None:
    async def scenario() -> None:
        async with served(secret=None) as serving:
            assert await status_of(serving.port, bearer(new_token(SECRET, 1000))) == 401
            assert await status_of(serving.port, {}) == 101

    run(scenario())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "epoll"])
def test_commands_wait_for_the_session_to_be_known(loop: str) -> None:
    async def scenario() -> None:
        async with told() as telling:
            market = telling.serving.market
            first, second, third = market.symbols[:3]
            telling.serving.trade(0, 5, 20.0)
            token = new_token(SECRET, 1000)
            client = await connect(telling, token)
            client.send({"type": "subscribe", "symbols": [second]})
            client.writer.write(mask_frame(TEXT, b"nonsense"))
            client.send({"type": "unsubscribe", "symbols": [second]})
            telling.nothing_new()  # that was read before it came, perhaps
            await telling.serving.until(lambda: telling.count("clients") == 1)
            assert telling.hub.sessions.waiting == 1
            telling.account([token], [first, third])
            assert await client.text() == auto("auto_subscribe", first, market.stream_id(0))
            assert await client.text() == auto("auto_subscribe", third, market.stream_id(2))
            assert [(await client.text())["type"] for _ in range(3)] == [
                "subscribed",
                "error",
                "unsubscribed",
            ]
            await client.until_sum(market.stream_id(0), 0)
            while market.stream_id(0) not in client.last:
                await client.frame()
            assert client.last == {market.stream_id(0): 20.0}
            assert telling.count("clients_authenticated") == 1
            await client.leave()
            await telling.serving.until(lambda: telling.count("clients_authenticated") == 0)

    run(scenario(), loop)


def test_who_says_too_much_before_the_session_is_known() -> None:
    async def scenario() -> None:
        async with told(messages_per_second=1000, message_burst=1000) as telling:
            many = await connect(telling, new_token(SECRET, 1000))
            for _ in range(client_module.HELD_MESSAGES + 1):
                many.send({"type": "ping"})
            assert await many.closed() == 4429
            long = await connect(telling, new_token(SECRET, 1000))
            for _ in range(5):
                long.writer.write(mask_frame(TEXT, b" " * 16_000))
            assert await long.closed() == 4429
            await many.leave()
            await long.leave()

    run(scenario())


def test_who_waits_shares_the_room_for_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "HELD_BYTES", 20_000)

    async def scenario() -> None:
        async with told() as telling:
            token = new_token(SECRET, 1000)
            for _ in range(3):  # what one held is free again when it has gone
                client = await connect(telling, token)
                client.writer.write(mask_frame(TEXT, b" " * 15_000))
                other = await connect(telling, token)
                await telling.serving.until(lambda: telling.hub.settling._held_bytes == 15_000)
                other.writer.write(mask_frame(TEXT, b" " * 15_000))
                assert await other.closed() == 1012
                await client.leave()
                await other.leave()
                await telling.serving.until(lambda: telling.count("clients") == 0)
            client = await connect(telling, token)
            client.send({"type": "ping"})
            telling.account([token])
            assert await client.text() == {"type": "pong"}
            assert telling.hub.settling._held_bytes == 0
            await client.leave()

    run(scenario())


def test_held_commands_that_end_the_connection_end_it_once() -> None:
    async def scenario() -> None:
        async with told(malformed_limit=2) as telling:
            token = new_token(SECRET, 1000)
            client = await connect(telling, token)
            for _ in range(4):
                client.writer.write(mask_frame(TEXT, b"nonsense"))
            client.send({"type": "subscribe", "symbols": [telling.serving.market.symbols[0]]})
            await telling.serving.until(lambda: telling.count("clients") == 1)
            await asyncio.sleep(0)
            telling.account([token])
            assert await client.closed() == 4400
            assert client.ids == {}
            await client.leave()

    run(scenario())


def test_who_waits_while_nobody_tells_is_sent_away_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "WAIT_LIMIT", 0.2)

    async def scenario() -> None:
        async with told() as telling:
            token, known = new_token(SECRET, 1000), new_token(SECRET, 1000)
            telling.account([known])
            stays, goes = await connect(telling, known), await connect(telling, token)
            assert await goes.closed() == 1012
            await goes.leave()
            monkeypatch.setattr(settling, "WAIT_LIMIT", 60.0)
            # It is no verdict: it may come again, and be known then.
            goes = await connect(telling, token)
            telling.account([known, token])
            for client in (stays, goes):
                client.send({"type": "ping"})
                assert await client.text() == {"type": "pong"}
                await client.leave()

    run(scenario())


def test_hundreds_of_clients_of_one_login_end_in_turns() -> None:
    async def scenario() -> None:
        async with told(max_clients=2000) as telling:
            token, other = new_token(SECRET, 1000), new_token(SECRET, 1000)
            symbol = telling.serving.market.symbols[0]
            telling.account([token], [symbol])
            telling.account([other], [symbol], user=8)
            stays = await connect(telling, other)
            clients = [await connect(telling, token) for _ in range(300)]
            telling.account([token], [symbol, *telling.serving.market.symbols[1:3]])
            for client in clients:
                assert [(await client.text())["type"] for _ in range(3)] == ["auto_subscribe"] * 3
            assert telling.count("watchlist_changes") == 301 + 600
            telling.account([])
            assert [await client.closed() for client in clients] == [4401] * 300
            assert telling.count("session_closes") == 300
            await asyncio.gather(*(client.leave() for client in clients))
            assert await status_of(telling.serving.port, cookie(token)) == 401
            assert (await stays.text())["type"] == "auto_subscribe"
            stays.send({"type": "ping"})
            assert await stays.text() == {"type": "pong"}
            await stays.leave()

    run(scenario(), "epoll")


def test_a_client_that_takes_no_data_is_told_how_things_are_in_the_end() -> None:
    """However often its watchlist changes meanwhile, nothing of that waits in memory."""

    async def scenario() -> None:
        async with told(20, notsent_lowat=0) as telling:
            serving = telling.serving
            names, ids = serving.market.symbols, [serving.market.stream_id(n) for n in range(20)]
            token = new_token(SECRET, 1000)
            telling.account([token], names[:10])
            client = await connect(telling, token, limit=1024, receive=4096)
            await serving.until(lambda: telling.count("clients_authenticated") == 1)
            while not telling.count("clients_blocked"):
                for index in range(10):
                    serving.trade(index, 1)
                await asyncio.sleep(0)
            changes = telling.count("watchlist_changes")
            for count in range(500):
                telling.account([token], names[count % 10 : 10])
                telling.account([token], names[10 : 10 + count % 10])
                await asyncio.sleep(0)
            telling.account([token], [names[0], names[15]])
            await asyncio.sleep(0.25)  # more than two ticks: nothing happens while it is blocked
            assert telling.count("watchlist_changes") == changes
            said = [await client.text() for _ in range(20)]
            assert (
                said[:10]
                == [auto("auto_subscribe", name, n) for name, n in zip(names, ids, strict=True)][:10]
            )
            gone = {message["data"]["symbol"] for message in said[10:19]}
            assert gone == set(names[1:10])
            assert said[19] == auto("auto_subscribe", names[15], ids[15])
            # What was traded while it was subscribed arrived before.
            assert client.ids == {names[0]: ids[0], names[15]: ids[15]}
            await client.leave()

    run(scenario(), "epoll")


def test_a_blocked_client_that_is_logged_out_is_closed_all_the_same() -> None:
    async def scenario() -> None:
        async with told(20, notsent_lowat=0) as telling:
            token = new_token(SECRET, 1000)
            telling.account([token], telling.serving.market.symbols)
            client = await connect(telling, token, limit=1024, receive=4096)
            await telling.serving.until(lambda: telling.count("clients_authenticated") == 1)
            while not telling.count("clients_blocked"):
                for index in range(20):
                    telling.serving.trade(index, 1)
                await asyncio.sleep(0)
            telling.account([])
            # It reads nothing, so its CLOSE cannot be told: a second later it is cut.
            await telling.serving.until(lambda: telling.count("clients") == 0)
            await client.leave()

    run(scenario(), "epoll")


def test_a_symbol_of_the_watchlist_that_cannot_be_had_yet() -> None:
    async def scenario() -> None:
        async with told(max_symbols=3) as telling:
            serving = telling.serving
            names = serving.market.symbols
            serving.symbols.without_room.add(names[1])
            token = new_token(SECRET, 1000)
            telling.account([token], [names[0], names[1], "NEWUSDT"])
            client = await connect(telling, token)
            assert (await client.text())["data"]["symbol"] == names[0]
            serving.symbols.without_room.clear()
            telling.hub.settling.settle_lacking()  # as when symbols were learned
            assert (await client.text())["data"]["symbol"] == names[1]
            # More than a client may have: it is told which.
            telling.account([token], names)
            assert (await client.text())["data"]["symbol"] == names[2]
            left_out = await client.text()
            assert (left_out["code"], left_out["symbols"]) == ("too_many_symbols", list(names[3:]))
            await client.leave()

    run(scenario())


def test_watchlists_in_json_mode() -> None:
    async def scenario() -> None:
        async with served(json=True, secret=SECRET, anonymous=False) as serving:
            telling = Told(serving)
            telling.everything()
            token, name = new_token(SECRET, 1000), serving.market.symbols[0]
            serving.trade(0, 1, 30.0)
            telling.account([token], [name])
            client = await connect(telling, token)
            assert (await client.text())["type"] == "auto_subscribe"
            assert (await client.text())["data"] == [{"symbol": name, "price": 30.0, "volume": 0.0}]
            telling.account([token])
            assert (await client.text())["type"] == "auto_unsubscribe"
            await client.leave()

    run(scenario())


def test_a_hub_that_stops_while_clients_wait() -> None:
    async def scenario() -> None:
        async with told() as telling:
            waiting = [await connect(telling, new_token(SECRET, 1000)) for _ in range(3)]
            await telling.serving.until(lambda: telling.count("clients") == 3)
            closing = asyncio.ensure_future(telling.hub.stop())
            assert [await client.closed() for client in waiting] == [1001] * 3
            for client in waiting:
                await client.leave()
            await closing

    run(scenario())


def test_a_new_server_is_told_everything_before_what_changes() -> None:
    async def scenario() -> None:
        async with served(secret=SECRET, anonymous=False) as serving:
            telling = Told(serving)
            with pytest.raises(ProtocolError, match="not all sessions were told yet"):
                telling.nothing_new()
            token = new_token(SECRET, 1000)
            client = await connect(telling, token)
            await serving.until(lambda: serving.hub.sessions.waiting == 1)
            telling.everything()
            telling.account([token])
            client.writer.write(mask_frame(TEXT, orjson.dumps({"type": "ping"})))
            assert await client.text() == {"type": "pong"}
            await client.leave()

    run(scenario())


def test_what_is_counted() -> None:
    async def scenario() -> None:
        async with told() as telling:
            known, waiting = new_token(SECRET, 1000), new_token(SECRET, 1000)
            telling.account([known], patterns=("NONE",))
            clients = [await connect(telling, known), await connect(telling, waiting)]
            clients[0].send({"type": "subscribe", "symbols": telling.serving.market.symbols[:2]})
            assert (await clients[0].text())["code"] == "symbol_not_allowed"
            expected = {
                "sessions": 1,
                "clients_authenticated": 1,
                "clients_waiting": 1,
                "symbols_forbidden": 2,
            }
            await telling.serving.until(
                lambda: all(telling.count(name) == count for name, count in expected.items())
            )
            for client in clients:
                await client.leave()

    run(scenario())
