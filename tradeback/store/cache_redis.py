"""RedisCache: current prices, Enigma levels and bars in Redis, under the specified keys.

    price:{symbol}                     {"price","bid","ask","volume","timestamp"}; expires
    enigma:{symbol}                    {"symbol","level","ath","atl","current_price","fib_levels","timestamp"}
    cache:bars:{symbol}:{resolution}   {"start","end","bars":[[open_time,open,high,low,close,volume,trade_count]..]};
                                       expires
    updates:prices                     a stream whose entries have the fields symbol and price, the latter as above

`timestamp` is in unix ms; the times of bars are in unix ns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tradeback.config import Config, RedisConfig
from tradeback.errors import CacheError
from tradeback.model import RESOLUTIONS, Bar, Price
from tradeback.store.base import Cache, CachedBars, Update

STREAM = "updates:prices"
SYMBOLS_A_TRIP = 1_000
MS_NS = 1_000_000

# What may go wrong on a trip, and what to do about it: the first class that fits.
REMEDIES: dict[type[Exception], str] = {
    redis.AuthenticationError: "check REDIS_PASSWORD",
    redis.TimeoutError: "it hangs, or REDIS_TIMEOUT is too short for it",
    redis.ConnectionError: "check that it runs, and REDIS_ADDR",
    redis.OutOfMemoryError: "it is full: raise its maxmemory",
    redis.RedisError: "check its configuration",
    **dict.fromkeys(
        (ValueError, TypeError, KeyError), "another program writes our keys: give one of us another REDIS_DB"
    ),
}
FAULTS = tuple(REMEDIES)


def open_cache(config: Config) -> Cache | None:
    """The configured cache; None where none is. It connects when it is first used; the caller closes it."""
    return RedisCache(config.cache.redis) if config.cache.redis.addr else None


def connection_pool(config: RedisConfig) -> redis.BlockingConnectionPool:
    """Connections to the configured Redis, made when they are needed. A trip is tried once."""
    host, _, port = config.addr.rpartition(":")
    return redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
        max_connections=config.pool_size,
        timeout=config.timeout,
        host=host.strip("[]"),
        port=int(port),
        db=config.db,
        password=config.password.get_secret_value() or None,
        socket_timeout=config.timeout,
        socket_connect_timeout=config.timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="tradeback",
    )


class RedisCache:
    """A Cache in Redis 6 or later. A trip is tried once: when to try again is decided by who asked."""

    def __init__(self, config: RedisConfig) -> None:
        self._addr = config.addr
        self._price_ttl_ms = round(config.price_ttl * 1000)
        self._bars_ttl_ms = round(config.bars_ttl * 1000)
        self._stream_length = config.stream_length
        self._pool = connection_pool(config)
        self._redis = redis.Redis(connection_pool=self._pool)

    def write_prices(self, prices: Mapping[str, Price], *, announce: bool = True) -> None:
        for symbols in _parts(prices):
            pipeline = self._redis.pipeline(transaction=False)
            for symbol in symbols:
                text = orjson.dumps(_told(prices[symbol]))
                pipeline.set(f"price:{symbol}", text, px=self._price_ttl_ms)
                if announce:
                    fields: dict[Any, Any] = {"symbol": symbol, "price": text}
                    pipeline.xadd(STREAM, fields, maxlen=self._stream_length, approximate=True)
            with self._errors("write prices to"):
                pipeline.execute()

    def price(self, symbol: str) -> Price | None:
        # As little as can be done beside the trip: this is what a request for a price waits for.
        try:
            text: Any = self._redis.get(f"price:{symbol}")
            return None if text is None else _price(text)
        except FAULTS as error:
            raise self._plain("read a price from", error) from error

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        found: dict[str, Price] = {}
        for part in _parts(symbols):
            keys = [f"price:{symbol}" for symbol in part]
            with self._errors("read prices from"):
                texts: Any = self._redis.mget(keys)
                found |= {
                    symbol: _price(text) for symbol, text in zip(part, texts, strict=True) if text is not None
                }
        return found

    def updates(self, after: str = "0", limit: int = 1000) -> list[Update]:
        with self._errors("read updates from"):
            entries: Any = self._redis.xrange(STREAM, f"({after}" if after != "0" else "-", "+", count=limit)
            return [
                Update(place.decode(), fields[b"symbol"].decode(), _price(fields[b"price"]))
                for place, fields in entries
            ]

    def write_enigma(self, levels: Mapping[str, Mapping[str, Any]]) -> None:
        for symbols in _parts(levels):
            pipeline = self._redis.pipeline(transaction=False)
            for symbol in symbols:
                pipeline.set(f"enigma:{symbol}", orjson.dumps(levels[symbol]))
            with self._errors("write levels to"):
                pipeline.execute()

    def enigma(self, symbol: str) -> dict[str, Any] | None:
        with self._errors("read a level from"):
            text: Any = self._redis.get(f"enigma:{symbol}")
            return None if text is None else dict(orjson.loads(text))

    def write_bars(self, symbol: str, resolution: str, bars: CachedBars) -> None:
        content = {"start": bars.start, "end": bars.end, "bars": [tuple(bar) for bar in bars.bars]}
        with self._errors("write bars to"):
            self._redis.set(_bars_key(symbol, resolution), orjson.dumps(content), px=self._bars_ttl_ms)

    def bars(self, symbol: str, resolution: str) -> CachedBars | None:
        with self._errors("read bars from"):
            text: Any = self._redis.get(_bars_key(symbol, resolution))
            if text is None:
                return None
            content = orjson.loads(text)
            return CachedBars(content["start"], content["end"], [Bar(*bar) for bar in content["bars"]])

    def drop_bars(self, symbol: str) -> None:
        with self._errors("drop bars from"):
            self._redis.delete(*(_bars_key(symbol, resolution) for resolution in RESOLUTIONS))

    def close(self) -> None:
        self._redis.close()
        self._pool.disconnect()

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """What may go wrong on a trip, as CacheError with its remedy."""
        try:
            yield
        except FAULTS as error:
            raise self._plain(doing, error) from error

    def _plain(self, doing: str, error: Exception) -> CacheError:
        remedy = next(remedy for kind, remedy in REMEDIES.items() if isinstance(error, kind))
        plain = CacheError(f"cannot {doing} Redis at {self._addr} ({error}): {remedy}")
        plain.away = isinstance(error, redis.TimeoutError | redis.ConnectionError) and not isinstance(
            error, redis.AuthenticationError
        )
        return plain


def _told(price: Price) -> dict[str, Any]:
    """A price as the keys and the stream have it."""
    return {
        "price": price.price,
        "bid": price.bid,
        "ask": price.ask,
        "volume": price.volume,
        "timestamp": price.ts_event // MS_NS,
    }


def _price(text: bytes) -> Price:
    told = orjson.loads(text)
    time_ns = told["timestamp"] * MS_NS
    return Price(told["price"], told["bid"], told["ask"], told["volume"], time_ns, time_ns)


def _bars_key(symbol: str, resolution: str) -> str:
    return f"cache:bars:{symbol}:{resolution}"


def _parts(symbols: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(symbols)
    while part := list(islice(rest, SYMBOLS_A_TRIP)):
        yield part
