"""What every cache does, whatever it is made of; then what is Redis's own: keys, expiry, and its failures."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.redis import RedisServer
from tradeback.config import load_config
from tradeback.errors import CacheError, ConfigError
from tradeback.model import RESOLUTIONS, Bar, Price
from tradeback.store.base import Cache, CachedBars
from tradeback.store.cache_redis import open_cache

SAFETY = 20.0
MS = 1_000_000


def price_at(price: float, bid: float | None, ask: float | None, volume: float, ms: int) -> Price:
    return Price(price, bid, ask, volume, ms * MS, ms * MS)


BTC = price_at(97_000.1, 97_000.09, 97_000.11, 12.345678, 1_700_000_000_123)
ETH = price_at(3_300.0, None, None, 0.1, 1_700_000_000_456)
LEVEL = {"symbol": "BTCUSDT", "level": None, "ath": 2.5, "atl": 0.1, "fib_levels": {"0": 0.1}}
BARS = CachedBars(
    0, 120 * 10**9, [Bar(0, 1.0, 2.0, 0.5, 1.5, 0.3, 7), Bar(60 * 10**9, 1.5, 1.5, 1.5, 1.5, 1.0, 1)]
)


def opened(server: RedisServer, **settings: str) -> Cache:
    cache = open_cache(load_config(environ={"REDIS_ADDR": server.addr, "REDIS_TIMEOUT": "200ms", **settings}))
    assert cache is not None
    return cache


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SAFETY
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_prices_are_read_as_they_were_written_last(cache: Cache) -> None:
    assert cache.prices(["BTCUSDT"]) == {}
    assert cache.prices([]) == {}
    cache.write_prices({})
    cache.write_prices({"BTCUSDT": ETH, "ETHUSDT": ETH})
    cache.write_prices({"BTCUSDT": BTC})
    assert cache.prices(["ETHUSDT", "BTCUSDT", "NONE"]) == {"BTCUSDT": BTC, "ETHUSDT": ETH}
    assert (cache.price("BTCUSDT"), cache.price("NONE")) == (BTC, None)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.tuples(*[st.floats(min_value=0, max_value=1e300)] * 4, st.integers(0, 2**53)))
def test_every_digit_of_a_price_comes_back(
    cache: Cache, fields: tuple[float, float, float, float, int]
) -> None:
    written = price_at(*fields)
    cache.write_prices({"X": written._replace(ts_event=written.ts_event + 999_999, ts_recv=0)})
    assert cache.prices(["X"]) == {"X": written}


def test_updates_follow_each_other_and_are_bounded(cache: Cache) -> None:
    assert cache.updates() == []
    cache.write_prices({"BTCUSDT": BTC})
    cache.write_prices({"BTCUSDT": BTC}, announce=False)
    cache.write_prices({"ETHUSDT": ETH})
    first, second = cache.updates()
    assert (first.symbol, first.price, second.symbol, second.price) == ("BTCUSDT", BTC, "ETHUSDT", ETH)
    assert cache.updates(first.place) == [second]
    assert cache.updates(limit=1) == [first]
    assert cache.updates(second.place) == []
    # More symbols than go in one trip, and far more than the stream keeps.
    many = {f"S{number}": BTC._replace(ts_event=number * MS, ts_recv=number * MS) for number in range(2_500)}
    cache.write_prices(many)
    assert cache.prices(list(many)) == many
    kept = cache.updates(limit=10_000)
    assert 100 <= len(kept) <= 300
    assert kept[-1].symbol == "S2499"


def test_levels_are_read_as_they_were_written_last(cache: Cache) -> None:
    assert cache.enigma("BTCUSDT") is None
    cache.write_enigma({"BTCUSDT": {**LEVEL, "level": 3.5}, "ETHUSDT": LEVEL})
    cache.write_enigma({"BTCUSDT": LEVEL})
    assert cache.enigma("BTCUSDT") == LEVEL


def test_bars_are_kept_with_their_range_until_they_are_dropped_or_expire(cache: Cache) -> None:
    assert cache.bars("BTCUSDT", "1m") is None
    cache.drop_bars("BTCUSDT")
    for resolution in RESOLUTIONS:
        cache.write_bars("BTCUSDT", resolution, BARS)
    cache.write_bars("ETHUSDT", "1m", BARS._replace(bars=[]))
    assert cache.bars("BTCUSDT", "1d") == BARS
    cache.drop_bars("BTCUSDT")
    assert [cache.bars("BTCUSDT", resolution) for resolution in RESOLUTIONS] == [None] * len(RESOLUTIONS)
    await_true(lambda: cache.bars("ETHUSDT", "1m") is None)


def test_the_specified_keys_and_json(redis_server: RedisServer) -> None:
    cache = opened(redis_server, REDIS_DB="3")
    cache.write_prices({"BTCUSDT": BTC})
    expected = b'{"price":97000.1,"bid":97000.09,"ask":97000.11,"volume":12.345678,"timestamp":1700000000123}'
    assert redis_server.ask("STRLEN", "price:BTCUSDT") == ":0"  # in the database that was asked for alone
    cache.close()
    cache = opened(redis_server)
    cache.write_prices({"BTCUSDT": BTC})
    cache.write_enigma({"BTCUSDT": LEVEL})
    cache.write_bars("BTCUSDT", "1m", BARS)
    assert redis_server.ask("STRLEN", "price:BTCUSDT") == f":{len(expected)}"
    assert 0 < int(redis_server.ask("PTTL", "price:BTCUSDT")[1:]) <= 60_000
    assert redis_server.ask("PTTL", "enigma:BTCUSDT") == ":-1"
    assert 0 < int(redis_server.ask("PTTL", "cache:bars:BTCUSDT:1m")[1:]) <= 60_000
    redis_server.ask("SET", "price:ETHUSDT", "[1]")
    with pytest.raises(CacheError, match="another program writes our keys"):
        cache.prices(["ETHUSDT"])
    cache.close()


def test_a_price_that_nobody_writes_again_expires(redis_server: RedisServer) -> None:
    cache = opened(redis_server, REDIS_PRICE_TTL="1s")
    cache.write_prices({"BTCUSDT": BTC})
    await_true(lambda: cache.prices(["BTCUSDT"]) == {})
    cache.close()


def test_failures_are_told_with_their_remedy_and_end(redis_server: RedisServer) -> None:
    cache = opened(redis_server)
    cache.write_prices({"BTCUSDT": BTC})

    redis_server.halt()
    with pytest.raises(CacheError, match=f"write prices to Redis at {redis_server.addr} .*it hangs"):
        cache.write_prices({"BTCUSDT": ETH})
    redis_server.go_on()
    assert cache.prices(["BTCUSDT"]).keys() == {"BTCUSDT"}

    assert redis_server.ask("CONFIG", "SET", "maxmemory", "1") == "+OK"
    with pytest.raises(CacheError, match="it is full: raise its maxmemory"):
        cache.write_prices({"BTCUSDT": BTC})
    with pytest.raises(CacheError, match="it is full: raise its maxmemory"):
        cache.write_enigma({"BTCUSDT": LEVEL})
    assert redis_server.ask("CONFIG", "SET", "maxmemory", "0") == "+OK"
    cache.write_prices({"BTCUSDT": BTC})

    redis_server.kill()
    with pytest.raises(CacheError, match="check that it runs, and REDIS_ADDR"):
        cache.prices(["BTCUSDT"])
    redis_server.start("--requirepass", "right")
    with pytest.raises(CacheError, match="check REDIS_PASSWORD"):
        cache.prices(["BTCUSDT"])
    cache.close()
    for password, passes in (("wrong", False), ("right", True)):
        cache = opened(redis_server, REDIS_PASSWORD=password)
        if passes:
            assert cache.prices(["BTCUSDT"]) == {}
        else:
            with pytest.raises(CacheError, match="check REDIS_PASSWORD") as caught:
                cache.prices(["BTCUSDT"])
            assert password not in str(caught.value)
        cache.close()


def test_nothing_configured_is_no_cache_and_bad_settings_are_refused() -> None:
    assert open_cache(load_config(environ={})) is None
    for addr in ("localhost", ":6379", "localhost:0", "localhost:65536", "localhost:x"):
        with pytest.raises(ConfigError, match="give host:port"):
            load_config(environ={"REDIS_ADDR": addr})
    with pytest.raises(ConfigError, match="price_ttl is 200ms: give at least 1s"):
        load_config(environ={"REDIS_PRICE_TTL": "200ms"})
