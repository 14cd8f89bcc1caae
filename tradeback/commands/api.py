"""`tradeback api`: the REST interface under gunicorn."""

from __future__ import annotations

import socket
from typing import Any

import click
import structlog
from falcon import App, Request
from limits.storage import RedisStorage

from tradeback.api.answers import Answer
from tradeback.api.app import create_app
from tradeback.api.gunicorn_conf import CONNECTIONS, Gunicorn
from tradeback.api.limits import Counts, MemoryCounts, SharedCounts
from tradeback.api.requests import Requests, open_shared
from tradeback.api.stores import Store, Stores
from tradeback.ceilings import allow_descriptors
from tradeback.commands.lifeline import tell_ready
from tradeback.commands.log import follow_levels, forget_levels
from tradeback.commands.options import with_config
from tradeback.commands.reloading import loader, reload_config
from tradeback.commands.stored import decided
from tradeback.commands.supervisor import tell_supervisor, unheard, watchdog_pause
from tradeback.config import Config, notices
from tradeback.errors import ConfigError
from tradeback.heap import give_back_large_blocks
from tradeback.log import set_up_logging
from tradeback.resources import Resources
from tradeback.store.accounts import open_accounts
from tradeback.store.base import Accounts, Cache, Catalog, History, Prices
from tradeback.store.cache_local import TABLE_FILE, open_prices
from tradeback.store.cache_prices import CachePrices
from tradeback.store.cache_redis import RedisCache, connection_pool, open_cache
from tradeback.store.catalog import CATALOG_FILE, open_catalog
from tradeback.store.histories import open_history
from tradeback.store.history_sqlite import HISTORY_FILE
from tradeback.store.requests_nats import NatsElsewhere
from tradeback.store.stats import read_all
from tradeback.tokens import load_secret

CACHE_AWAY_S = 5.0  # nobody needs it, and each that asks may wait for REDIS_TIMEOUT
BACKLOG = 1_024
OTHER_DESCRIPTORS = 256  # of a worker beside its clients: connections to stores, and their files
REQUESTS_FOLDER = "requests"  # of the counts of several workers

log = structlog.get_logger(__name__)


@click.command("api")
@click.option("--port", type=int, help="Port of the REST interface; 0 is any free one  [SERVER_PORT]")
@click.option("--ready-fd", type=int, hidden=True)
@with_config(flags={"port": "server.port"})
def api(config: Config, ready_fd: int | None) -> None:
    """Run the REST interface: symbols, prices, bars, TradingView, logins, watchlists, health and metrics."""
    set_up_logging(config.log)
    give_back_large_blocks()
    for notice in notices(config):
        log.warning(notice)
    config = decided(config)
    secret = load_secret(config.data.of(config.exchange.name), config.session.secret.get_secret_value())
    allow_descriptors(CONNECTIONS + OTHER_DESCRIPTORS, CONNECTIONS + OTHER_DESCRIPTORS, "the API")
    listener = _listen(config)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    config = config.model_copy(update={"server": config.server.model_copy(update={"port": port})})

    def ready() -> None:
        log.info("api ready", rest=address)
        tell_ready(ready_fd, {"rest": address})

    load = loader()
    folder = config.data.of(config.exchange.name)
    current = config

    def reload() -> None:
        nonlocal current
        forget_levels(folder)
        read = reload_config(load)
        if read is not None:
            # The addresses and the exchange stay: others know them.
            server = read.server.model_copy(update={"host": host, "port": port, "workers": workers})
            current = read.model_copy(
                update={"server": server, "exchange": config.exchange, "data": config.data}
            )

    def load_app() -> App[Request, Answer]:
        follow_levels(folder)
        requests = Requests(shared)
        if current.log.performance:
            requests.tell_performance(current.log.performance)
        # On a machine without server and recorder there may be no data folder: its disk is that of what is there.
        there = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
        Resources(current, there, requests.put).watch_in_a_thread()
        return create_app(
            current, stores_of(current), secret, counts_of(current), requests, ends=lambda: serving.ends
        )

    forget_levels(folder)
    workers = config.server.workers
    shared = open_shared(folder / REQUESTS_FOLDER) if workers > 1 else None
    seconds = config.server.read_timeout + config.server.write_timeout
    watched = watchdog_pause() is not None
    serving = Gunicorn(
        listener,
        load_app,
        ready,
        seconds,
        workers,
        reload,
        drain=config.server.drain,
        unheard=unheard,
        alive=lambda: tell_supervisor("WATCHDOG=1") if watched else None,
    )
    serving.run()


def counts_of(config: Config) -> Counts:
    """Where requests are counted: in Redis where it is configured. It is asked when it is first needed."""
    if not config.cache.redis.addr:
        return MemoryCounts()
    pool = connection_pool(config.cache.redis)
    return SharedCounts(RedisStorage("redis://", pool, key_prefix="limit", wrap_exceptions=True))


def stores_of(config: Config) -> Stores:
    """The stores of the configured exchange, none of them opened yet."""
    folder = config.data.of(config.exchange.name)
    table = folder / TABLE_FILE
    catalog_file = None if config.database.mysql.host else folder / CATALOG_FILE

    def catalog() -> Catalog:
        return open_catalog(config, create=False)

    def accounts() -> Accounts:
        return open_accounts(config, create=False)

    def history() -> History:
        return open_history(config, write=False)

    def prices() -> Prices:
        cache = None if table.exists() else open_cache(config)
        return open_prices(config) if cache is None else CachePrices(cache)

    def cache() -> Cache:
        return RedisCache(config.cache.redis)

    return Stores(
        Store("catalog", catalog_file, catalog),
        Store("accounts", catalog_file, accounts),
        Store("history", None if config.database.influx.url else folder / HISTORY_FILE, history),
        # The table is never replaced while it is in use.
        Store("prices", table, prices, look_again=0.5, elsewhere=bool(config.cache.redis.addr)),
        lambda: read_all(folder / "stats"),
        NatsElsewhere(config.messaging.nats) if config.messaging.nats.url else None,
        Store("cache", None, cache, away=CACHE_AWAY_S)
        if config.cache.redis.addr and config.database.influx.url
        else None,
    )


def _listen(config: Config) -> socket.socket:
    host, port = config.server.host, config.server.port
    try:
        family: Any = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"the API cannot listen on {host}, port {port}: {error.strerror or error}; stop what listens there, or "
            "choose another address (SERVER_HOST, SERVER_PORT)"
        ) from error
