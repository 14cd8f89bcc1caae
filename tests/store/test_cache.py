"""What every cache does, whatever it is made of; then what is Redis's own: keys, expiry, and its failures."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.redis import RedisServer
from tests.waiting import PATIENCE_S, await_true
from tradeback.commands.api import counts_of
from tradeback.config import load_config
from tradeback.errors import CacheError, ConfigError
from tradeback.model import RESOLUTIONS, Bar, Price, Symbol, SymbolInfo
from tradeback.store.announce_redis import RedisChannel
from tradeback.store.base import Cache, CachedBars, KeptBars, Login
from tradeback.store.cache_prices import CachePrices
from tradeback.store.cache_redis import open_cache

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
    cache = open_cache(load_config(environ={"REDIS_ADDR": server.addr, "REDIS_TIMEOUT": "30s", **settings}))
    assert cache is not None
    return cache


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


def test_bars_are_kept_with_their_range_until_they_are_dropped(cache: Cache) -> None:
    vouch(cache, "first", begin=True)
    bars, version = cache.bars("BTCUSDT", "1m")
    assert bars is None
    assert version is not None
    for resolution in RESOLUTIONS:
        cache.write_bars("BTCUSDT", resolution, BARS, version)
    empty = BARS._replace(bars=[])
    other = cache.bars("ETHUSDT", "1m").version
    assert other is not None
    cache.write_bars("ETHUSDT", "1m", empty, other)
    assert cache.bars("BTCUSDT", "1d") == KeptBars(BARS, version)
    cache.bars_change(["BTCUSDT", "NONE"], "first")
    assert [cache.bars("BTCUSDT", resolution) for resolution in RESOLUTIONS] == [KeptBars(None, None)] * len(
        RESOLUTIONS
    )
    # What was read before they changed, and is written now.
    cache.write_bars("BTCUSDT", "1m", BARS, version)
    cache.bars_changed(["BTCUSDT", "NONE"], "first")
    after = cache.bars("BTCUSDT", "1m")
    assert after.bars is None
    assert after.version not in (None, version)
    cache.write_bars("BTCUSDT", "1m", BARS, version)
    assert cache.bars("BTCUSDT", "1m") == after
    assert cache.bars("ETHUSDT", "1m").bars == empty  # another symbol


def vouch(cache: Cache, epoch: str, *, begin: bool = False, ms: int = 600_000) -> bool:
    return cache.vouch_for_bars(epoch, cache.clock_ms() + ms, begin=begin)


def test_bars_are_served_while_somebody_vouches_for_them(cache: Cache) -> None:
    assert not vouch(cache, "first")
    assert cache.bars("BTCUSDT", "1m") == KeptBars(None, None)
    assert vouch(cache, "first", begin=True)
    version = cache.bars("BTCUSDT", "1m").version
    assert version is not None
    cache.write_bars("BTCUSDT", "1m", BARS, version)
    assert cache.bars("BTCUSDT", "1m") == KeptBars(BARS, version)
    # Of another epoch it does not hold, and the version of that is no other's.
    assert vouch(cache, "second", begin=True)
    assert cache.bars("BTCUSDT", "1m").bars is None
    cache.bars_change(["BTCUSDT"], "first")
    cache.bars_changed(["BTCUSDT"], "first")
    assert cache.bars("BTCUSDT", "1m").version not in (None, version)
    # One that comes late vouches for nothing.
    assert vouch(cache, "second")
    assert vouch(cache, "second", ms=-1)
    assert cache.bars("BTCUSDT", "1m") == KeptBars(None, None)
    vouch(cache, "third", begin=True, ms=-1)
    assert cache.bars("BTCUSDT", "1m") == KeptBars(None, None)
    assert not vouch(cache, "third")


def token_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_logins_are_read_as_they_were_told_last_until_they_are_dropped(cache: Cache) -> None:
    assert cache.login(token_of(1)) is None
    cache.drop_logins([])
    cache.drop_logins([token_of(1)])
    now = time.time()
    end = int(now) + 1_000
    cache.write_logins({}, 60, now)
    cache.write_logins({token_of(1): Login(1, end, frozenset({"BTCUSDT", "ETHUSDT"}))}, 60, now)
    # More than go in one trip; the watchlist of one changes, that of another is emptied.
    many = {token_of(n): Login(n, end + n, frozenset({f"S{n}"} if n % 2 else ())) for n in range(1, 251)}
    cache.write_logins(many, 60, now)
    assert {token: cache.login(token) for token in many} == many
    cache.write_logins({token_of(1): Login(1, end, frozenset())}, 60, now)
    assert cache.login(token_of(1)) == Login(1, end, frozenset())
    cache.drop_logins(iter(many))
    assert [cache.login(token) for token in many] == [None] * len(many)


def test_a_login_is_there_no_longer_than_it_lasts_nor_than_its_writer_said(cache: Cache) -> None:
    now = time.time()
    watched = frozenset({"BTCUSDT"})
    told = {
        token_of(1): Login(1, int(now) + 1_000, watched),
        token_of(2): Login(1, int(now) + 2, watched),
        token_of(3): Login(1, int(now) - 1, watched),
    }
    cache.write_logins(told, 60, now)
    assert cache.login(token_of(3)) is None
    await_true(lambda: cache.login(token_of(2)) is None)
    assert cache.login(token_of(1)) == told[token_of(1)]
    cache.write_logins({token_of(1): told[token_of(1)]}, 0.3, now)
    await_true(lambda: cache.login(token_of(1)) is None)
    # One that was there, and is written when it has ended, is there no more.
    cache.write_logins({token_of(1): told[token_of(1)]}, 60, now)
    cache.write_logins({token_of(1): told[token_of(1)]}, 60, now + 2_000)
    assert cache.login(token_of(1)) is None


def test_the_specified_keys_and_json(redis_server: RedisServer) -> None:
    cache = opened(redis_server, REDIS_DB="3")
    cache.write_prices({"BTCUSDT": BTC})
    expected = b'{"price":97000.1,"bid":97000.09,"ask":97000.11,"volume":12.345678,"timestamp":1700000000123}'
    assert redis_server.ask("STRLEN", "price:BTCUSDT") == ":0"  # in the database that was asked for alone
    cache.close()
    cache = opened(redis_server)
    cache.write_prices({"BTCUSDT": BTC})
    cache.write_enigma({"BTCUSDT": LEVEL})
    cache.write_bars("BTCUSDT", "1m", BARS, "a version")
    assert redis_server.ask("STRLEN", "price:BTCUSDT") == f":{len(expected)}"
    assert 0 < int(redis_server.ask("PTTL", "price:BTCUSDT")[1:]) <= 60_000
    assert redis_server.ask("PTTL", "enigma:BTCUSDT") == ":-1"
    assert 0 < int(redis_server.ask("PTTL", "cache:bars:BTCUSDT:1m")[1:]) <= 60_000
    token, now = token_of(7), time.time()
    cache.write_logins({token: Login(3, int(now) + 1_000, frozenset({"A", "B"}))}, 60, now)
    said = f'{{"user_id":3,"expires_at":{int(now) + 1_000}}}'
    assert redis_server.ask("STRLEN", f"session:{token.hex()}") == f":{len(said)}"
    assert redis_server.ask("SCARD", f"marketwatch:{token.hex()}") == ":2"
    for key in ("session", "marketwatch"):
        assert 0 < int(redis_server.ask("PTTL", f"{key}:{token.hex()}")[1:]) <= 60_000
    cache.write_logins({token: Login(3, int(now) + 1_000, frozenset())}, 60, now)
    assert redis_server.ask("EXISTS", f"marketwatch:{token.hex()}") == ":0"
    redis_server.ask("SET", "price:ETHUSDT", "[1]")
    with pytest.raises(CacheError, match="another program writes our keys"):
        cache.prices(["ETHUSDT"])
    cache.close()


def test_what_is_not_there_has_no_price_only_while_somebody_vouches_for_that(
    redis_server: RedisServer,
) -> None:
    redis_server.empty()
    names = ("BTCUSDT", "ETHUSDT")
    btc, eth = (Symbol(SymbolInfo(name, name[:3], "USDT", True, 2, 5), n) for n, name in enumerate(names, 1))
    cache = opened(redis_server, REDIS_PRICE_TTL="10m")
    prices = CachePrices(cache)

    def check_refused() -> None:
        for ask in (lambda: prices.price(eth, 0), lambda: prices.prices([eth], 0)):
            with pytest.raises(CacheError, match="Nobody writes prices"):
                ask()

    check_refused()
    assert prices.prices([], 0) == []
    cache.vouch_for_prices()
    assert prices.price(btc, 0) is None
    assert prices.prices([btc, eth], 0) == []
    cache.write_prices({"BTCUSDT": BTC})
    assert len(prices.prices([btc, eth], 0)) == 1
    short = opened(redis_server, REDIS_PRICE_TTL="1s")
    short.vouch_for_prices()
    await_true(lambda: not cache.prices_vouched())
    check_refused()
    assert prices.price(btc, BTC.ts_event) == BTC
    assert len(prices.prices([btc, eth], 0)) == 1
    short.close()
    prices.close()


def test_a_price_that_nobody_writes_again_expires(redis_server: RedisServer) -> None:
    cache = opened(redis_server, REDIS_PRICE_TTL="1s")
    cache.write_prices({"BTCUSDT": BTC})
    await_true(lambda: cache.prices(["BTCUSDT"]) == {})
    cache.close()


def test_bars_expire(redis_server: RedisServer) -> None:
    cache = opened(redis_server, REDIS_BARS_TTL="1s")
    vouch(cache, "first", begin=True)
    version = cache.bars("BTCUSDT", "1m").version
    assert version is not None
    cache.write_bars("BTCUSDT", "1m", BARS, version)
    await_true(lambda: cache.bars("BTCUSDT", "1m") == KeptBars(None, version))
    cache.close()


def test_failures_are_told_with_their_remedy_and_end(redis_server: RedisServer) -> None:
    cache = opened(redis_server)
    cache.write_prices({"BTCUSDT": BTC})

    hasty = opened(redis_server, REDIS_TIMEOUT="500ms")
    redis_server.halt()
    with pytest.raises(CacheError, match=f"write prices to Redis at {redis_server.addr} .*it hangs"):
        hasty.write_prices({"BTCUSDT": ETH})
    hasty.close()
    redis_server.go_on()
    assert cache.prices(["BTCUSDT"]).keys() == {"BTCUSDT"}

    assert redis_server.ask("CONFIG", "SET", "maxmemory", "1") == "+OK"
    with pytest.raises(CacheError, match="it is full: raise its maxmemory"):
        cache.write_prices({"BTCUSDT": BTC})
    with pytest.raises(CacheError, match="it is full: raise its maxmemory"):
        cache.write_enigma({"BTCUSDT": LEVEL})
    with pytest.raises(CacheError, match=r"write logins to .* it is full: raise its maxmemory"):
        cache.write_logins({token_of(1): Login(1, 2**31, frozenset({"A"}))}, 60, time.time())
    cache.drop_logins([token_of(1)])
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
    with pytest.raises(ConfigError, match="session_ttl is 5s: give at least 10s"):
        load_config(environ={"REDIS_SESSION_TTL": "5s"})


def test_a_user_of_the_acl_needs_what_the_documents_give_it(redis_server: RedisServer) -> None:
    page = (Path(__file__).resolve().parent.parent.parent / "docs" / "howto" / "services.md").read_text()
    words = page.split("```redis\n")[1].split("```")[0].split()
    assert redis_server.ask(*words) == "+OK"
    assert redis_server.ask("ACL", "SETUSER", "poor", "on", ">password", "+ping", "+client") == "+OK"
    login = {"REDIS_USERNAME": "tradeback", "REDIS_PASSWORD": "password"}
    config = load_config(environ={"REDIS_ADDR": redis_server.addr, "REDIS_TIMEOUT": "30s", **login})
    now, token = time.time(), bytes(32)
    with closing(opened(redis_server, **login)) as cache:
        cache.write_prices({"BTCUSDT": BTC})
        assert cache.price("BTCUSDT") is not None
        assert list(cache.prices(["BTCUSDT"])) == ["BTCUSDT"]
        cache.vouch_for_prices()
        assert cache.prices_vouched()
        assert len(cache.updates()) == 1
        cache.write_enigma({"BTCUSDT": LEVEL})
        assert cache.enigma("BTCUSDT") == LEVEL
        assert cache.vouch_for_bars("epoch", cache.clock_ms() + 60_000, begin=True)
        kept = cache.bars("BTCUSDT", "1m")
        assert kept.version is not None
        cache.write_bars("BTCUSDT", "1m", CachedBars(0, 1, []), kept.version)
        cache.bars_change(["BTCUSDT"], "epoch")
        cache.bars_changed(["BTCUSDT"], "epoch")
        cache.write_logins({token: Login(1, int(now) + 60, frozenset({"A"}))}, 60, now)
        assert cache.login(token) is not None
        cache.drop_logins([token])
    heard = threading.Event()
    channel = RedisChannel(config.cache.redis)
    listening = threading.Thread(target=channel.listen, args=(heard.set,))
    listening.start()
    assert heard.wait(PATIENCE_S)
    channel.publish()
    channel.close()
    listening.join()
    counts = counts_of(config)
    assert [counts.incr("a", 60), counts.incr("a", 60)] == [1, 2]
    assert not counts._failed

    for user, remedy in (
        ("poor", "the user of REDIS_USERNAME may do too little"),
        ("nobody", "check REDIS_PASSWORD and REDIS_USERNAME"),
    ):
        cache = opened(redis_server, **login | {"REDIS_USERNAME": user})
        with closing(cache), pytest.raises(CacheError, match=remedy):
            cache.write_prices({"BTCUSDT": BTC})
