"""RedisCache: current prices, Enigma levels, bars and logins in Redis, under the specified keys.

    price:{symbol}                     {"price","bid","ask","volume","timestamp"}; expires
    prices:vouched                     every price that there is was written; expires as a price does
    enigma:{symbol}                    {"symbol","level","ath","atl","current_price","fib_levels","timestamp"}
    cache:bars:{symbol}:{resolution}   {"version","start","end","bars":[[open_time,open,high,low,close,volume,
                                       trade_count]..]}; expires
    bars:vouched                       the epoch of the bars that hold; expires within two seconds
    bars:mark:{epoch}:{symbol}         the bars of a symbol that hold have this mark; `changing`: none of them does
    session:{token}                    {"user_id","expires_at"}; expires. {token} is the token's SHA-256 in hexadecimal
                                       digits, never the token
    marketwatch:{token}                a set of symbols, the watchlist of the session's user; none where that is empty
    updates:prices                     a stream whose entries have the fields symbol and price, the latter as above

`timestamp` is in unix ms, `expires_at` in unix seconds; the times of bars are in unix ns.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import orjson
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from tradeback.config import Config, RedisConfig
from tradeback.errors import CacheError
from tradeback.model import Bar, Price
from tradeback.store.base import Cache, CachedBars, KeptBars, Login, Update
from tradeback.store.timing import tell, timed
from tradeback.store.tls import Trust

STREAM = "updates:prices"
SYMBOLS_A_TRIP = 1_000
LOGINS_A_TRIP = 100  # each with a watchlist, and Redis serves nobody else meanwhile
MS_NS = 1_000_000

# What may go wrong on a trip, and what to do about it: the first class that fits.
REMEDIES: dict[type[Exception], str] = {
    redis.AuthenticationError: "check REDIS_PASSWORD and REDIS_USERNAME",
    redis.TimeoutError: "it hangs, or REDIS_TIMEOUT is too short for it",
    redis.ConnectionError: "check that it runs, and REDIS_ADDR and REDIS_TLS",
    redis.OutOfMemoryError: "it is full: raise its maxmemory",
    NoPermissionError: "the user of REDIS_USERNAME may do too little: its ACL is in docs/howto/services.md",
    redis.RedisError: "check its configuration",
    **dict.fromkeys(
        (ValueError, TypeError, KeyError), "another program writes our keys: give one of us another REDIS_DB"
    ),
}
FAULTS = tuple(REMEDIES)

PRICES_VOUCHED = "prices:vouched"
VOUCHED = "bars:vouched"
CHANGING = b"changing"
MARK_SECONDS = 3600  # longer than any change takes

Key = TypeVar("Key", str, bytes)


def open_cache(config: Config) -> Cache | None:
    """The configured cache; None where none is. It connects when it is first used; the caller closes it."""
    return RedisCache(config.cache.redis) if config.cache.redis.addr else None


def connection_pool(config: RedisConfig) -> redis.BlockingConnectionPool:
    """Connections to the configured Redis, made when they are needed. A trip is tried once."""
    host, _, port = config.addr.rpartition(":")
    trust = trust_of(config)
    tls: dict[str, Any] = {"connection_class": _TlsConnection, "trust": trust} if trust is not None else {}
    return redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
        max_connections=config.pool_size,
        timeout=config.timeout,
        host=host.strip("[]"),
        port=int(port),
        db=config.db,
        username=config.username or None,
        password=config.password.get_secret_value() or None,
        socket_timeout=config.timeout,
        socket_connect_timeout=config.timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="tradeback",
        **tls,
    )


def trust_of(config: RedisConfig) -> Trust | None:
    """Whom the configured Redis is believed by; None where it is reached without TLS."""
    return Trust(config.ca_file, "REDIS_CA_FILE", "REDIS_ADDR") if config.tls else None


def remedy_of(error: Exception, trust: Trust | None) -> str:
    """What to do about one of FAULTS."""
    remedy = None if trust is None else trust.remedy(error)
    return remedy or next(remedy for kind, remedy in REMEDIES.items() if isinstance(error, kind))


class _TlsConnection(redis.SSLConnection):
    """Believes those whom it was given alone: the driver's own adds them to the system's authorities."""

    def __init__(self, trust: Trust, **settings: Any) -> None:
        super().__init__(ssl_ca_certs=trust.ca_file or None, **settings)
        self._trust = trust

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        try:
            return self._trust.context().wrap_socket(sock, server_hostname=self.host)
        except TimeoutError as error:
            # A Redis without TLS waits for the end of what it takes for a command.
            raise ssl.SSLError("no answer to the handshake") from error


class RedisCache:
    """A Cache in Redis 6 or later. A trip is tried once: when to try again is decided by who asked."""

    def __init__(self, config: RedisConfig) -> None:
        self._addr = config.addr
        self._trust = trust_of(config)
        self._price_ttl_ms = round(config.price_ttl * 1000)
        self._bars_ttl_ms = round(config.bars_ttl * 1000)
        self._stream_length = config.stream_length
        self._pool = connection_pool(config)
        self._redis = redis.Redis(connection_pool=self._pool)
        self._epoch = ""  # as it was vouched for last

    def write_prices(self, prices: Mapping[str, Price], *, announce: bool = True) -> None:
        for symbols in _parts(prices):
            pipeline = self._redis.pipeline(transaction=False)
            for symbol in symbols:
                text = orjson.dumps(_told(prices[symbol]))
                pipeline.set(f"price:{symbol}", text, px=self._price_ttl_ms)
                if announce:
                    fields: dict[Any, Any] = {"symbol": symbol, "price": text}
                    pipeline.xadd(STREAM, fields, maxlen=self._stream_length, approximate=True)
            with self._trip("write prices to", "write"):
                pipeline.execute()

    def price(self, symbol: str) -> Price | None:
        # As little as can be done beside the trip: this is what a request for a price waits for.
        began_ns = time.perf_counter_ns()
        try:
            text: Any = self._redis.get(f"price:{symbol}")
            return None if text is None else _price(text)
        except FAULTS as error:
            raise self._plain("read a price from", error) from error
        finally:
            tell("cache", "read", began_ns)

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        found: dict[str, Price] = {}
        for part in _parts(symbols):
            keys = [f"price:{symbol}" for symbol in part]
            with self._trip("read prices from", "read"):
                texts: Any = self._redis.mget(keys)
                found |= {
                    symbol: _price(text) for symbol, text in zip(part, texts, strict=True) if text is not None
                }
        return found

    def vouch_for_prices(self) -> None:
        with self._trip("vouch for prices in", "write"):
            self._redis.set(PRICES_VOUCHED, "1", px=self._price_ttl_ms)

    def prices_vouched(self) -> bool:
        with self._trip("read whether prices are written to", "read"):
            return bool(self._redis.exists(PRICES_VOUCHED))

    def updates(self, after: str = "0", limit: int = 1000) -> list[Update]:
        with self._trip("read updates from", "read"):
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
            with self._trip("write levels to", "write"):
                pipeline.execute()

    def enigma(self, symbol: str) -> dict[str, Any] | None:
        with self._trip("read a level from", "read"):
            text: Any = self._redis.get(f"enigma:{symbol}")
            return None if text is None else dict(orjson.loads(text))

    def bars(self, symbol: str, resolution: str) -> KeptBars:
        # The mark is there before the history is asked: one that follows a change is of no bars from before it.
        with self._trip("read bars from", "read"):
            keys = [VOUCHED, _mark_key(self._epoch, symbol), _bars_key(symbol, resolution)]
            found: Any = self._redis.mget(keys)
            vouched, mark, text = found
            if vouched is None:
                return KeptBars(None, None)
            epoch = vouched.decode()
            if epoch != self._epoch or mark is None:
                self._epoch = epoch
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.set(_mark_key(epoch, symbol), secrets.token_hex(8), nx=True, ex=MARK_SECONDS)
                pipeline.get(_mark_key(epoch, symbol))
                _, mark = pipeline.execute()
            if mark == CHANGING:
                return KeptBars(None, None)
            version = f"{epoch}:{mark.decode()}"
            content = None if text is None else orjson.loads(text)
            if content is None or content["version"] != version:
                return KeptBars(None, version)
            return KeptBars(
                CachedBars(content["start"], content["end"], [Bar(*bar) for bar in content["bars"]]), version
            )

    def write_bars(self, symbol: str, resolution: str, bars: CachedBars, version: str) -> None:
        content = {
            "version": version,
            "start": bars.start,
            "end": bars.end,
            "bars": [tuple(bar) for bar in bars.bars],
        }
        with self._trip("write bars to", "write"):
            self._redis.set(_bars_key(symbol, resolution), orjson.dumps(content), px=self._bars_ttl_ms)

    def clock_ms(self) -> int:
        with self._trip("read the clock of", "read"):
            told: Any = self._redis.time()
            seconds, microseconds = told
            return int(seconds) * 1000 + int(microseconds) // 1000

    def vouch_for_bars(self, epoch: str, until_ms: int, *, begin: bool) -> bool:
        pipeline = self._redis.pipeline(transaction=True)
        if begin:
            pipeline.set(VOUCHED, epoch)
        pipeline.pexpireat(VOUCHED, until_ms)
        with self._trip("vouch for bars in", "write"):
            return bool(pipeline.execute()[-1])

    def bars_change(self, symbols: Sequence[str], epoch: str) -> None:
        for part in _parts(symbols):
            pipeline = self._redis.pipeline(transaction=False)
            for symbol in part:
                pipeline.set(_mark_key(epoch, symbol), CHANGING, ex=MARK_SECONDS)
            with self._trip("mark changing bars in", "write"):
                pipeline.execute()

    def bars_changed(self, symbols: Sequence[str], epoch: str) -> None:
        for part in _parts(symbols):
            with self._trip("mark changed bars in", "write"):
                self._redis.delete(*(_mark_key(epoch, symbol) for symbol in part))

    def write_logins(self, logins: Mapping[bytes, Login], lasts: float, now: float) -> None:
        for tokens in _parts(logins, LOGINS_A_TRIP):
            pipeline = self._redis.pipeline(transaction=True)
            for token in tokens:
                user_id, expires_at, symbols = logins[token]
                left_ms = round(min(lasts, expires_at - now) * 1000)
                session, watched = _login_keys(token)
                pipeline.delete(watched)
                if left_ms <= 0:
                    pipeline.delete(session)
                    continue
                text = orjson.dumps({"user_id": user_id, "expires_at": expires_at})
                pipeline.set(session, text, px=left_ms)
                if symbols:
                    pipeline.sadd(watched, *sorted(symbols))
                    pipeline.pexpire(watched, left_ms)
            with self._trip("write logins to", "write"):
                pipeline.execute()

    def login(self, token_hash: bytes) -> Login | None:
        session, watched = _login_keys(token_hash)
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.get(session)
        pipeline.smembers(watched)
        with self._trip("read a login from", "read"):
            text, symbols = pipeline.execute()
            if text is None:
                return None
            told = orjson.loads(text)
            return Login(
                told["user_id"], told["expires_at"], frozenset(symbol.decode() for symbol in symbols)
            )

    def drop_logins(self, token_hashes: Iterable[bytes]) -> None:
        for tokens in _parts(token_hashes, LOGINS_A_TRIP):
            with self._trip("drop logins from", "write"):
                self._redis.delete(*(key for token in tokens for key in _login_keys(token)))

    def close(self) -> None:
        self._redis.close()
        self._pool.disconnect()

    @contextmanager
    def _trip(self, doing: str, kind: str) -> Iterator[None]:
        """A trip, timed, and what may go wrong on it as CacheError with its remedy."""
        try:
            with timed("cache", kind):
                yield
        except FAULTS as error:
            raise self._plain(doing, error) from error

    def _plain(self, doing: str, error: Exception) -> CacheError:
        remedy = remedy_of(error, self._trust)
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


def _mark_key(epoch: str, symbol: str) -> str:
    return f"bars:mark:{epoch}:{symbol}"


def _login_keys(token_hash: bytes) -> tuple[str, str]:
    return f"session:{token_hash.hex()}", f"marketwatch:{token_hash.hex()}"


def _parts(keys: Iterable[Key], size: int = SYMBOLS_A_TRIP) -> Iterator[list[Key]]:
    rest = iter(keys)
    while part := list(islice(rest, size)):
        yield part
