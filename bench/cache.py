"""A price out of a real Redis, as the REST interface reads it on a machine without a server, beside a bare GET."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from bench.table import Effort, Goal, Row, Skipped, compare
from tests.servers.redis import RedisServer
from tradeback.config import load_config
from tradeback.model import Price, Symbol, SymbolInfo
from tradeback.store.cache_prices import CachePrices
from tradeback.store.cache_redis import RedisCache, connection_pool

READS = 200  # in a turn, for other programs of the machine come and go
TURNS = 25
SYMBOL = Symbol(SymbolInfo("BTCUSDT", "BTC", "USDT", True, 2, 5), 1)


def measure(effort: Effort) -> list[Row]:
    if RedisServer.program() is None:
        return [Skipped("a price out of Redis", f"no Redis here: {RedisServer.HOW_TO_GET}")]
    import redis

    ours, theirs = [], []
    with (
        tempfile.TemporaryDirectory(prefix="tradeback-bench-") as folder,
        RedisServer(Path(folder)) as server,
    ):
        environ = {"DATA_DIR": folder, "TRADEBACK_EXCHANGE": "sim", **server.environment}
        config = load_config(environ=environ).cache.redis
        pool = connection_pool(config)
        with (
            closing(CachePrices(RedisCache(config))) as prices,
            closing(redis.Redis(connection_pool=pool)) as bare,
        ):
            now = time.time_ns()
            with closing(RedisCache(config)) as cache:
                price = Price(60_000.12, 60_000.11, 60_000.12, 1_234.5, now, now)
                cache.write_prices({SYMBOL.name: price})
            for _ in range(effort.rounds):
                turns = [
                    (
                        microseconds(lambda: prices.price(SYMBOL, now)),
                        microseconds(lambda: bare.get(f"price:{SYMBOL.name}")),
                    )
                    for _ in range(effort.of(TURNS, 2))
                ]
                ours.append(median(one for one, _ in turns))
                theirs.append(median(other for _, other in turns))
            pool.disconnect()
    return [compare("a price out of Redis", "us", ours, "GET", theirs, Goal(1.3, at_most=True))]


def microseconds(read: Callable[[], object]) -> float:
    """Of one read, on the average of a turn."""
    begin = time.perf_counter()
    for _ in range(READS):
        read()
    return (time.perf_counter() - begin) / READS * 1e6
