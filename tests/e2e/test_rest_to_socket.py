"""What is done over REST reaches the WebSocket: the API, the recorder and the server are processes of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

import pytest

from tests.e2e.accounts import Accounts, cookie_of
from tests.e2e.api import ApiProcess
from tests.e2e.hubs import RawClient, run
from tests.e2e.logins import bearer, cookie
from tests.e2e.running import SimProcess
from tests.e2e.test_sessions import UNAUTHORIZED, Running, first_price
from tests.servers.services import settings_of


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Accounts]]:
    with ExitStack() as stack:
        sim = stack.enter_context(SimProcess("--symbols", "10", "--rate", "300"))
        up = stack.enter_context(Running(tmp_path_factory.mktemp("rest"), sim, EXCHANGE_SYMBOLS="BTCUSDT"))
        api = stack.enter_context(ApiProcess(up.folder, LIMIT_AUTH="off"))
        yield up, Accounts(api, up.logins.accounts, up.folder)


def test_from_the_login_to_the_first_price_and_out_again(both: tuple[Running, Accounts]) -> None:
    up, rest = both
    name = rest.user("alice")

    async def scenario() -> None:
        answer = await asyncio.to_thread(rest.login, name)
        token, _ = cookie_of(answer)
        # At once, by cookie and by Bearer; and the same user from elsewhere.
        elsewhere = await asyncio.to_thread(rest.token, name)
        clients = [
            await RawClient.connect(up.server.ws_port, headers=cookie(token)),
            await RawClient.connect(up.server.ws_port, headers=bearer(token)),
            await RawClient.connect(up.server.ws_port, headers=bearer(elsewhere)),
        ]
        took = []
        for symbol in ("ETHUSDT", "BTCUSDT", "SOLUSDT"):
            added = await asyncio.to_thread(rest.ask, f"marketwatch/{symbol}", token, "POST")
            began = time.monotonic()
            assert added.status == 200
            for client in clients:
                await up.announced(client, "auto_subscribe", symbol)
            took.append(time.monotonic() - began)
            for client in clients:
                await first_price(client, up.ids[symbol])
        taken = await asyncio.to_thread(rest.ask, "marketwatch/BTCUSDT", elsewhere, "DELETE")
        began = time.monotonic()
        assert taken.json == {"symbols": ["ETHUSDT", "SOLUSDT"]}
        for client in clients:
            await up.announced(client, "auto_unsubscribe", "BTCUSDT")
        took.append(time.monotonic() - began)
        print(f"from the answer of REST, seconds: median {median(took):.3f}, most {max(took):.3f}")
        # Out of one login: the others stay.
        assert (await asyncio.to_thread(rest.ask, "auth/logout", token, "POST")).status == 204
        assert [await client.closed() for client in clients[:2]] == [4401, 4401]
        assert await up.refusal(cookie(token)) == UNAUTHORIZED
        clients[2].send({"type": "ping"})
        assert await clients[2].text() == {"type": "pong"}
        assert (
            await asyncio.to_thread(rest.ask, "auth/logout?everywhere=true", elsewhere, "POST")
        ).status == 204
        assert await clients[2].closed() == 4401
        for client in clients:
            await client.leave()

    run(scenario())


def test_a_token_of_another_user_and_a_disabled_user(both: tuple[Running, Accounts]) -> None:
    up, rest = both
    bob, carol = rest.user("bob", "B*"), rest.user("carol")

    async def scenario() -> None:
        his, hers = rest.token(bob), rest.token(carol)
        client = await RawClient.connect(up.server.ws_port, headers=cookie(his))
        other = await RawClient.connect(up.server.ws_port, headers=cookie(hers))
        # His token changes his list alone, within his rights, in REST and here alike.
        assert (await asyncio.to_thread(rest.ask, "marketwatch/BNBUSDT", his, "POST")).status == 200
        refused = await asyncio.to_thread(rest.ask, "marketwatch/ETHUSDT", his, "POST")
        assert (refused.status, refused.json["error"]["code"]) == (403, "symbol_not_allowed")
        await up.announced(client, "auto_subscribe", "BNBUSDT")
        client.send({"type": "subscribe", "symbols": ["ETHUSDT"]})
        assert (await client.text())["code"] == "symbol_not_allowed"
        other.send({"type": "ping"})
        assert await other.text() == {"type": "pong"}
        assert other.frames == 1
        # By the command, as an operator does it.
        command = [sys.executable, "-m", "tradeback", "user", "disable", bob]
        environ = {**os.environ, **settings_of(up.folder)}
        done = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert await client.closed() == 4401
        for headers in (cookie(his), bearer(his)):
            assert await up.refusal(headers) == UNAUTHORIZED
        assert (await asyncio.to_thread(rest.ask, "marketwatch", his)).status == 401
        other.send({"type": "ping"})
        assert await other.text() == {"type": "pong"}
        await client.leave()
        await other.leave()

    run(scenario())
