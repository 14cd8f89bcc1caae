"""The recorder's LoginsCache on a real Redis: what it has is what the accounts say, whatever becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from tests.servers.redis import RedisServer
from tests.store.conftest import sqlite_config
from tests.unit.test_accounts_watch import Told, login, watching
from tests.waiting import until
from tradeback.config import load_config
from tradeback.model import Account
from tradeback.recorder.logins_cache import LoginsCache
from tradeback.store.accounts import open_accounts
from tradeback.store.base import Cache, Login
from tradeback.store.cache_redis import open_cache

TOKENS = [bytes([number]) * 32 for number in range(3)]
FAR = int(time.time()) + 100_000


def opened(server: RedisServer, timeout: str = "60s") -> Cache:
    cache = open_cache(load_config(environ={"REDIS_ADDR": server.addr, "REDIS_TIMEOUT": timeout}))
    assert cache is not None
    return cache


@asynccontextmanager
async def writing(cache: Cache, ttl: float = 3600.0) -> AsyncIterator[LoginsCache]:
    logins = LoginsCache(cache, ttl)
    task = asyncio.create_task(logins.run())
    try:
        yield logins
    finally:
        assert not task.done() or task.exception() is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def account(user: int, *tokens: bytes, watchlist: tuple[str, ...] = (), end: int = FAR) -> Account:
    return Account(user, ("*USDT",), watchlist, dict.fromkeys(tokens, end))


async def has(cache: Cache, *expected: Login | None, looking: LoginsCache | None = None) -> None:
    """Wait until these are there for the first tokens."""

    def as_expected() -> bool:
        if looking is not None:
            looking.take(False, [])
        return [cache.login(token) for token in TOKENS[: len(expected)]] == list(expected)

    await until(as_expected)


def test_redis_follows_the_accounts(tmp_path: Path, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        with (
            closing(opened(redis_server)) as cache,
            closing(open_accounts(sqlite_config(tmp_path))) as accounts,
        ):
            ann, bob = accounts.add_user("ann", "x", ["*USDT"]), accounts.add_user("bob", "x")
            first, other = login(accounts, ann, "first"), login(accounts, ann, "other")
            accounts.set_watchlist(ann.id, ["BTCUSDT", "ETHBTC"])
            path = tmp_path / "control.sock"
            async with (
                Told(path).listening(),
                writing(cache) as logins,
                watching(accounts, path) as watch,
            ):
                watch.on_look = logins.take

                def symbols(token: bytes) -> set[str] | None:
                    found = cache.login(token)
                    return None if found is None else set(found.symbols)

                await until(lambda: symbols(first) == symbols(other) == {"BTCUSDT"})
                accounts.watch(ann.id, "ETHUSDT")
                await until(lambda: symbols(other) == {"BTCUSDT", "ETHUSDT"})
                his = login(accounts, bob, "his")
                await until(lambda: symbols(his) == set())
                accounts.end_session(first)
                await until(lambda: symbols(first) is None)
                assert symbols(other) == {"BTCUSDT", "ETHUSDT"}
                accounts.set_active(ann.id, False)
                await until(lambda: symbols(other) is None)
                await until(lambda: logins.state() == {"cached": 1, "error": ""})

    asyncio.run(scenario())


def test_a_redis_that_lost_it_all_is_written_anew(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        with closing(opened(redis_server)) as cache:
            async with writing(cache, ttl=1.5) as logins:
                logins.take(True, [account(1, TOKENS[0])])
                await has(cache, Login(1, FAR, frozenset()), looking=logins)
                redis_server.empty()
                await has(cache, Login(1, FAR, frozenset()), looking=logins)

    asyncio.run(scenario())


def test_what_redis_did_not_hear_it_is_told_once_it_is_there_again(redis_server: RedisServer) -> None:
    async def fails(logins: LoginsCache, do: Callable[[], object]) -> None:
        await asyncio.to_thread(do)
        before = logins.counts()["logins_cache_errors"]
        logins.take(False, [account(2, TOKENS[1])])
        logins.take(False, [account(1, watchlist=("BTCUSDT",))])
        await until(lambda: logins.counts()["logins_cache_errors"] > before)
        assert "Redis" in logins.state()["error"]

    async def scenario() -> None:
        # Who writes is to notice a Redis that hangs; who looks has the time that the machine takes.
        with closing(opened(redis_server)) as cache, closing(opened(redis_server, "1s")) as hasty:
            both = [account(1, TOKENS[0], watchlist=("BTCUSDT",)), account(2)]
            ann, bob = Login(1, FAR, frozenset({"BTCUSDT"})), Login(2, FAR, frozenset())
            async with writing(hasty) as logins:
                for away, back in (
                    (redis_server.halt, redis_server.go_on),
                    (redis_server.kill, redis_server.start),
                    (lambda: limit(redis_server, 1), lambda: limit(redis_server, 0)),
                ):
                    logins.take(True, both)
                    await has(cache, ann, None)
                    await fails(logins, away)
                    await asyncio.to_thread(back)
                    await has(cache, None, bob)
                    await until(lambda: logins.state() == {"cached": 1, "error": ""})

    asyncio.run(scenario())


def limit(server: RedisServer, size: int) -> None:
    assert server.ask("CONFIG", "SET", "maxmemory", str(size)) == "+OK"


def test_nothing_stays_when_nobody_looks_at_the_accounts(redis_server: RedisServer) -> None:
    """A logout is not known then."""

    async def scenario() -> None:
        with closing(opened(redis_server)) as cache:
            async with writing(cache, ttl=1.0) as logins:
                logins.take(True, [account(1, TOKENS[0], watchlist=("BTCUSDT",))])
                await has(cache, Login(1, FAR, frozenset({"BTCUSDT"})), looking=logins)
                await has(cache, None)
                await until(lambda: redis_server.ask("DBSIZE") == ":0")
                await has(cache, Login(1, FAR, frozenset({"BTCUSDT"})), looking=logins)

    asyncio.run(scenario())


def test_a_session_that_expires_is_forgotten(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        with closing(opened(redis_server)) as cache:
            async with writing(cache, ttl=9.0) as logins:
                soon = 0

                def both_there() -> bool:
                    nonlocal soon
                    if time.time() >= soon:  # a busy machine has not shown it in time
                        soon = int(time.time()) + 4
                        logins.take(True, [account(1, TOKENS[0], end=soon), account(2, TOKENS[1])])
                    there = [cache.login(token) for token in TOKENS[:2]]
                    return there == [Login(1, soon, frozenset()), Login(2, FAR, frozenset())]

                await until(both_there)
                await has(cache, None)

                def only_the_other() -> bool:
                    logins.take(False, [])
                    return logins.state() == {"cached": 1, "error": ""}

                await until(only_the_other)

    asyncio.run(scenario())
