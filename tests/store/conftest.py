"""One fixture a store, parametrised over its backends: a backend is done when the suite passes with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.redis import RedisServer
from tradeback.config import Config, load_config
from tradeback.store.accounts import open_accounts
from tradeback.store.base import Accounts, Cache, Catalog, History
from tradeback.store.cache_redis import open_cache
from tradeback.store.catalog import open_catalog
from tradeback.store.history_influx import InfluxHistory
from tradeback.store.history_sqlite import open_sqlite_history
from tradeback.store.influx import Influx

# Where nothing is to be found away: a machine may be slow.
PATIENT = {"MYSQL_TIMEOUT": "60s"}
OpenCatalog = Callable[[], Catalog]
OpenAccounts = Callable[[], Accounts]


class OpenHistory(Protocol):
    """Opens the history of a folder; `settings` are variables of the environment. The caller closes it."""

    def __call__(self, folder: Path, *, write: bool = True, **settings: str) -> History: ...


def sqlite_config(folder: Path, **settings: str) -> Config:
    return load_config(environ={"DATA_DIR": str(folder), "TRADEBACK_EXCHANGE": "sim", **settings})


@pytest.fixture(params=["sqlite", "mariadb"])
def sql_config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    """The settings of a catalog of this test's own, which is not made yet."""
    if request.param == "sqlite":
        return sqlite_config(tmp_path)
    return request.getfixturevalue("mariadb_config")


@pytest.fixture
def mariadb_config(mariadb_server: MariadbServer, tmp_path: Path) -> Config:
    """The settings of an empty database of this test's own."""
    environment = mariadb_server.environment_of(mariadb_server.new_database())
    return sqlite_config(tmp_path, **environment, **PATIENT)


def sqlite_history(folder: Path, *, write: bool = True, **settings: str) -> History:
    return open_sqlite_history(sqlite_config(folder, **settings), write=write)


@pytest.fixture
def open_again(sql_config: Config) -> Iterator[OpenCatalog]:
    """Opens one and the same catalog, as often as it is called; all are closed at the end."""
    opened: list[Catalog] = []

    def open_one() -> Catalog:
        opened.append(open_catalog(sql_config))
        return opened[-1]

    yield open_one
    for catalog in opened:
        catalog.close()


@pytest.fixture
def catalog(open_again: OpenCatalog) -> Catalog:
    return open_again()


@pytest.fixture
def open_accounts_again(sql_config: Config) -> Iterator[OpenAccounts]:
    """Opens one and the same accounts, as often as it is called; all are closed at the end."""
    opened: list[Accounts] = []

    def open_one() -> Accounts:
        opened.append(open_accounts(sql_config))
        return opened[-1]

    yield open_one
    for accounts in opened:
        accounts.close()


@pytest.fixture
def accounts(open_accounts_again: OpenAccounts) -> Accounts:
    return open_accounts_again()


def influx_history(server: InfluxServer) -> OpenHistory:
    """Histories of folders: their points lie in one bucket under an exchange for each."""
    exchanges: dict[Path, str] = {}

    def open_one(folder: Path, *, write: bool = True, **settings: str) -> History:
        config = sqlite_config(folder, **server.environment | settings)
        exchange = exchanges.setdefault(folder, f"x{next(_NUMBERS)}")
        return InfluxHistory(
            Influx(config.database.influx),
            exchange,
            lambda stream_id: f"SYMBOL{stream_id}",
            lambda: {f"SYMBOL{stream_id}": stream_id for stream_id in range(1, 65_536)},
            config.history,
            open_sqlite_history(config, write=write),
            write=write,
        )

    return open_one


_NUMBERS = itertools.count()


@pytest.fixture(params=["sqlite", "influx"])
def open_history_at(request: pytest.FixtureRequest) -> OpenHistory:
    if request.param == "influx":
        return influx_history(request.getfixturevalue("influx_server"))
    return sqlite_history


@pytest.fixture(params=["redis"])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    """An empty cache that keeps about 100 updates."""
    opened = {"redis": redis_cache}[request.param](request)
    yield opened
    opened.close()


def redis_cache(request: pytest.FixtureRequest) -> Cache:
    server: RedisServer = request.getfixturevalue("redis_server")
    environ = {"REDIS_ADDR": server.addr, "REDIS_STREAM_LENGTH": "100", "REDIS_TIMEOUT": "30s"}
    opened = open_cache(load_config(environ=environ))
    assert opened is not None
    return opened


@pytest.fixture
def history(open_history_at: OpenHistory, tmp_path: Path) -> Iterator[History]:
    """An empty history that is written to; `reader` reads the same, as another process would."""
    opened = open_history_at(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def reader(open_history_at: OpenHistory, history: History, tmp_path: Path) -> Iterator[History]:
    opened = open_history_at(tmp_path, write=False)
    yield opened
    opened.close()
