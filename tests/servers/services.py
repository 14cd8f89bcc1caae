"""The real services under the end-to-end tests: with `TRADEBACK_TEST_SERVICES=1` every process that a test starts on a
data folder uses them, and so does what the test itself opens there. Without it all of it is embedded."""

from __future__ import annotations

import itertools
import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer
from tests.servers.server import RealServer
from tradeback.config import Config, load_config

ASKED_FOR = os.environ.get("TRADEBACK_TEST_SERVICES") == "1"
SERVERS: tuple[type[RealServer], ...] = (RedisServer, NatsServer, MariadbServer, InfluxServer)
MOST_FOLDERS = 10_000  # of one worker
_given: dict[Path, dict[str, str]] = {}


class Services:
    """One server of each kind, for all folders of a worker; a folder has a database or bucket of its own in each."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._of_folder: dict[Path, dict[str, str]] = {}
        self._running = ExitStack()
        folder = Path(self._running.enter_context(tempfile.TemporaryDirectory(prefix="services-")))
        try:
            self._redis = self._running.enter_context(
                RedisServer(folder / "redis", "--databases", str(MOST_FOLDERS))
            )
            self._nats = self._running.enter_context(NatsServer(folder / "nats"))
            self._mariadb = self._running.enter_context(MariadbServer(folder / "mariadb"))
            self._influx = (
                self._running.enter_context(InfluxServer(folder / "influx"))
                if InfluxServer.program() is not None
                else None
            )
        except BaseException:
            self._running.close()
            raise

    def of(self, folder: Path) -> dict[str, str]:
        """The settings with which processes on a data folder use them."""
        if folder not in self._of_folder:
            self._of_folder[folder] = self._prepared(next(self._numbers))
        return self._of_folder[folder]

    def _prepared(self, number: int) -> dict[str, str]:
        settings = {
            **self._redis.environment,
            "REDIS_DB": str(number),
            **self._nats.environment,
            **self._mariadb.environment_of(self._mariadb.new_database()),
            "MYSQL_TIMEOUT": "60s",
        }
        if self._influx is not None:
            bucket = f"folder{number}"
            self._influx.make_bucket(bucket)
            settings |= {**self._influx.environment, "INFLUX_BUCKET": bucket}
        return settings

    def close(self) -> None:
        self._running.close()


@cache
def services() -> Services:
    """Those of this worker, started with the first folder that needs them. Ended by `tests/conftest.py`."""
    return Services()


def close_services() -> None:
    """End them, where they were started."""
    if services.cache_info().currsize:
        services().close()
        services.cache_clear()


def missing() -> list[type[RealServer]]:
    """The kinds of servers that are not installed."""
    return [server for server in SERVERS if server.program() is None]


def give(folder: Path, settings: dict[str, str]) -> None:
    """Have processes and stores on this data folder use servers of the test's own, whatever was asked for."""
    _given[folder.resolve()] = settings


def settings_of(folder: Path) -> dict[str, str]:
    """The environment of a process on a data folder of the simulated exchange, the services included."""
    used = _given.get(folder.resolve())
    if used is None:
        used = services().of(folder.resolve()) if ASKED_FOR else {}
    return {"DATA_DIR": str(folder), "TRADEBACK_EXCHANGE": "sim", **used}


def config_of(folder: Path, **settings: str) -> Config:
    """The configuration that such a process has."""
    return load_config(environ=settings_of(folder) | settings)
