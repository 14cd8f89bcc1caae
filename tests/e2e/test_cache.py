"""From the simulated exchange through server and recorder into a real Redis, which is killed, halted and filled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import ApiProcess
from tests.e2e.fake_clock import FakeClock
from tests.e2e.running import Up, ask_control, stream_ids, trade_and_drain
from tests.e2e.test_recorder import check_all, opened_history
from tests.servers.redis import RedisServer
from tests.waiting import await_true
from tradeback._fast.journal import durable_places
from tradeback._fast.tablefile import TableReader
from tradeback.config import load_config
from tradeback.model import DAY_NS, Price
from tradeback.recorder.indicators import enigma_message
from tradeback.recorder.sinks import journal_end
from tradeback.store.base import Cache
from tradeback.store.cache_redis import open_cache

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
MS = 1_000_000
DAY_S = 86_400
PASSWORD = "swordfish"


def environment(server: RedisServer, **settings: str) -> dict[str, str]:
    return {
        "EXCHANGE_SYMBOLS": ",".join(SYMBOLS),
        "REDIS_ADDR": server.addr,
        "REDIS_DB": "0",
        "REDIS_TIMEOUT": "5s",
        **settings,
    }


@contextlib.contextmanager
def opened_cache(server: RedisServer, **settings: str) -> Iterator[Cache]:
    cache = open_cache(load_config(environ={"REDIS_ADDR": server.addr, "REDIS_TIMEOUT": "30s", **settings}))
    assert cache is not None
    try:
        yield cache
    finally:
        cache.close()


def sink(folder: Path, name: str) -> dict[str, Any]:
    status = ask_control(folder / "sim" / "recorder.sock", {"type": "status"})
    (found,) = [state for state in status["sinks"] if state["name"] == name]
    return dict(found)


def of_table(folder: Path) -> dict[str, Price]:
    """What the table has, of each carried symbol."""
    reader = TableReader.open(str(folder / "sim" / "table"))
    found = {}
    for symbol, stream_id in stream_ids(folder).items():
        row = reader.read(stream_id) if symbol in SYMBOLS else None
        if row is not None and row.last_id is not None:
            found[symbol] = Price.of_row(row, time.time_ns())._replace(
                ts_event=row.ts_event // MS * MS, ts_recv=row.ts_event // MS * MS
            )
    reader.close()
    return found


@pytest.mark.timeout(120)
def test_after_midnight_every_reader_is_told_the_volume_of_the_new_day(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with FakeClock(tmp_path) as clock, opened_cache(redis_server) as cache:
        noon = (DAY_S // 2 - time.time() % DAY_S) % DAY_S  # no other midnight comes meanwhile
        clock.jump(noon)
        more = {**environment(redis_server), **clock.environment}
        with (
            Up(tmp_path, "--sim-rate", "2000", "--sim-symbols", "10", environment=more) as up,
            ApiProcess(tmp_path, **clock.environment) as api,
        ):
            up.await_subscribed(len(SYMBOLS))
            trade_and_drain(up.rest, 3_000)
            up.await_stored(repaired=True)

            def of_rest() -> dict[str, float]:
                return {symbol: api.get(f"/api/v1/symbols/{symbol}/price")["volume"] for symbol in SYMBOLS}

            def of_cache() -> dict[str, float]:
                return {symbol: price.volume for symbol, price in cache.prices(SYMBOLS).items()}

            await_true(lambda: of_cache() == of_rest(), "the cache has what REST has")
            assert min(of_rest().values()) > 0.0
            clock.jump(noon + DAY_S)
            assert of_rest() == dict.fromkeys(SYMBOLS, 0.0)
            await_true(lambda: of_cache() == of_rest(), "the cache says so too")
            day = max(row.ts_event for row in cache.prices(SYMBOLS).values()) // DAY_NS
            trade_and_drain(up.rest, 3_000)
            await_true(
                lambda: of_cache() == of_rest() and min(of_rest().values()) > 0.0, "the new day counts"
            )
            assert {price.ts_event // DAY_NS for price in cache.prices(SYMBOLS).values()} == {day + 1}
            assert up.stop() == 0


def check_exchange(cache: Cache, up: Up) -> None:
    """Price and time of the last trade are the exchange's own. It tells no quotes over REST: those are
    compared with the table's."""
    for symbol, price in cache.prices(SYMBOLS).items():
        last = up.ledger(symbol)["last_id"]
        (trade,) = up.sim("/api/v3/historicalTrades", symbol=symbol, fromId=last, limit=1)
        assert (price.price, price.ts_event) == (float(trade["price"]), trade["time"] * MS)


def cached(folder: Path, cache: Cache) -> bool:
    prices = of_table(folder)
    return len(prices) == len(SYMBOLS) and cache.prices(SYMBOLS) == prices


@pytest.mark.timeout(180)
def test_the_cache_has_what_the_exchange_and_the_stores_have(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with (
        opened_cache(redis_server) as cache,
        Up(
            tmp_path, "--sim-rate", "2000", "--sim-symbols", "10", environment=environment(redis_server)
        ) as up,
    ):
        up.await_subscribed(len(SYMBOLS))
        trade_and_drain(up.rest, 6_000)
        up.await_stored(repaired=True)
        await_true(lambda: cached(tmp_path, cache), "the cache has what the table has")
        check_exchange(cache, up)

        def announced() -> dict[str, Price]:
            return {update.symbol: update.price for update in cache.updates(limit=100_000)}

        # The volume of the day comes when the exchange's klines have told it, perhaps between the two looks.
        await_true(lambda: announced() == cache.prices(SYMBOLS), "what was announced last is what is there")
        updates = cache.updates(limit=100_000)
        # Conflated: far fewer than messages; and none tells what the one before it of the same symbol told.
        assert len(SYMBOLS) <= len(updates) < 6_000
        told: dict[str, Price] = {}
        for update in updates:
            assert told.get(update.symbol) != update.price
            assert told.get(update.symbol, update.price).ts_event <= update.price.ts_event
            told[update.symbol] = update.price
        assert up.stop() == 0
        # The Enigma sink publishes at its end, and the cache takes it.
        with opened_history(tmp_path) as history:
            for symbol in SYMBOLS:
                level = history.enigma(stream_ids(tmp_path)[symbol])
                assert level is not None
                assert cache.enigma(symbol) == enigma_message(symbol, level)["data"]
    assert "Traceback" not in (tmp_path / "up.log").read_text()


@pytest.mark.timeout(240)
def test_a_cache_that_fails_in_every_way_is_caught_up_with_and_costs_the_others_nothing(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Under load throughout: a wrong password, full, halted, killed, emptied."""

    def history_goes_on() -> None:
        began = journal_end(tmp_path / "sim" / "journal")
        await_true(
            lambda: sink(tmp_path, "history")["journals"]["journal"]["place"] > began + 500,
            "the history takes what is traded meanwhile",
        )
        assert sink(tmp_path, "history")["errors"] == 0

    def told(words: str) -> None:
        await_true(lambda: words in sink(tmp_path, "cache")["error"], f"the status says {words}")

    def goes_on(cache: Cache) -> None:
        """It is written to again; each symbol is there, and new ones come."""
        await_true(lambda: len(cache.prices(SYMBOLS)) == len(SYMBOLS), "prices are there")
        last = max(price.ts_event for price in cache.prices(SYMBOLS).values())
        await_true(
            lambda: max(p.ts_event for p in cache.prices(SYMBOLS).values()) > last, "newer prices come"
        )
        await_true(lambda: sink(tmp_path, "cache")["error"] == "", "no error is left")

    redis_server.kill()
    redis_server.start("--requirepass", "another")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    settings = environment(
        redis_server,
        REDIS_PASSWORD_FILE=str(tmp_path / "password"),
        REDIS_TIMEOUT="300ms",
        EXCHANGE_LINGER="1m",
    )
    with (
        opened_cache(redis_server, REDIS_PASSWORD=PASSWORD) as cache,
        Up(tmp_path, "--sim-rate", "2000", "--sim-symbols", "10", environment=settings) as up,
    ):
        up.await_subscribed(len(SYMBOLS))
        await_true((tmp_path / "sim" / "recorder.sock").exists, "the recorder listens")
        told("check REDIS_PASSWORD")
        history_goes_on()
        # No journal waits for a cache that is away.
        assert "cache" not in durable_places(tmp_path / "sim" / "journal")
        redis_server.ask("CONFIG", "SET", "requirepass", PASSWORD, password="another")
        goes_on(cache)

        redis_server.ask("CONFIG", "SET", "maxmemory", "1", password=PASSWORD)
        told("it is full")
        history_goes_on()
        redis_server.ask("CONFIG", "SET", "maxmemory", "0", password=PASSWORD)
        goes_on(cache)

        redis_server.halt()
        told("it hangs")
        history_goes_on()
        redis_server.go_on()
        goes_on(cache)

        redis_server.kill()
        told("check that it runs")
        history_goes_on()
        redis_server.start("--requirepass", PASSWORD)
        goes_on(cache)
        assert all(cache.enigma(symbol) for symbol in SYMBOLS)

        up.pause_and_drain()
        up.await_stored(repaired=True)
        await_true(lambda: cached(tmp_path, cache), "the cache has what the table has")
        check_exchange(cache, up)
        assert check_all(up.sim, tmp_path) > 1_000

        # A cache that is away at the end holds nobody up.
        redis_server.halt()
        assert up.stop() == 0
        redis_server.go_on()
    log = (tmp_path / "up.log").read_text()
    assert "Traceback" not in log
    assert PASSWORD not in log
