"""The recorder killed while logins and watchlists change: in the end every client has what the database says."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.consumer import SAFETY_SECONDS
from tests.e2e.hubs import RawClient
from tests.e2e.running import SimProcess
from tests.e2e.test_sessions import Running
from tests.scale import CHAOS

KILLS = 30 if CHAOS else 2


@pytest.mark.timeout(1200 if CHAOS else 240)
def test_lists_and_logins_that_change_while_the_recorder_is_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sim = stack.enter_context(SimProcess("--symbols", "10", "--rate", "300"))
        up = stack.enter_context(Running(tmp_path, sim, EXCHANGE_SYMBOLS="BTCUSDT"))
        asyncio.run(killed(up, random.Random(1)))


async def killed(up: Running, dice: random.Random) -> None:
    accounts = up.logins.accounts
    users = [up.logins.user(f"user{n}") for n in range(4)]
    tokens = [up.logins.login(user) for user in users]
    symbols = sorted(up.ids)
    for user in users:  # never empty: who hears nothing for long gives up
        accounts.set_watchlist(user.id, symbols)
    clients = [await up.client(token) for token in tokens]
    following = [asyncio.create_task(client.closed()) for client in clients]
    # Known before the first kill: one who is not may be sent away until there is a recorder.
    for client in clients:
        await follows(client, symbols)
    for _ in range(KILLS):
        for _ in range(dice.randrange(1, 12)):
            user = dice.choice(users)
            listed = dice.sample(symbols, dice.randrange(1, 6))
            await asyncio.to_thread(accounts.set_watchlist, user.id, listed)
            await asyncio.sleep(dice.random() * 0.06)
        await asyncio.to_thread(up.restart_recorder)
    accounts.end_session(up.logins.hash(tokens[0]))
    up.recorder.kill()
    accounts.set_active(users[1].id, False)
    await asyncio.to_thread(up.restart_recorder)
    assert [await following[n] for n in (0, 1)] == [4401, 4401]
    for n in (2, 3):
        await follows(clients[n], accounts.watchlist(users[n].id))
    watched = {"BTCUSDT"}.union(*(accounts.watchlist(users[n].id) for n in (0, 2, 3)))
    await up.until("symbols", pinned=len(watched), carried=len(watched))
    for client, task in zip(clients, following, strict=True):
        await client.leave()
        await asyncio.gather(task, return_exceptions=True)


async def follows(client: RawClient, listed: list[str]) -> None:
    """Wait until it is subscribed to what is on its watchlist."""
    deadline = time.monotonic() + SAFETY_SECONDS
    while set(client.ids) != set(listed):
        assert time.monotonic() < deadline, (client.ids, listed)
        await asyncio.sleep(0.02)
