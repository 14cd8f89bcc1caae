"""What can go wrong with a service, each as something that lasts for the time of a `with`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.conftest import fill
from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer
from tests.servers.server import START_TIMEOUT, RealServer

OTHER_PASSWORD = "another-password"


@contextmanager
def away(server: RealServer) -> Iterator[None]:
    """Killed, and started again with what it had on its disk."""
    server.kill()
    yield
    server.start()


@contextmanager
def hung(server: RealServer) -> Iterator[None]:
    """It does nothing, and its connections stay open."""
    server.halt()
    try:
        yield
    finally:
        server.go_on()


@contextmanager
def full(server: RealServer) -> Iterator[None]:
    """Nothing more can be written: no memory for Redis; for the others no block of the disk, which is their own."""
    if isinstance(server, RedisServer):
        assert server.ask("CONFIG", "SET", "maxmemory", "1") == "+OK"
        yield
        assert server.ask("CONFIG", "SET", "maxmemory", "0") == "+OK"
        return
    ballast = server.folder / "ballast"
    fill(ballast)
    try:
        yield
    finally:
        ballast.unlink()
    if isinstance(server, InfluxServer):
        # A shard that it could not open it does not try again ("opening shard previously failed").
        server.kill()
        server.start()


@contextmanager
def locked(server: RealServer) -> Iterator[None]:
    """It knows the credentials of the settings no more, neither on new connections nor on those that it has."""
    with _LOCKED[type(server)](server):
        yield


@contextmanager
def _redis_locked(server: RedisServer) -> Iterator[None]:
    assert server.ask("CONFIG", "SET", "requirepass", OTHER_PASSWORD) == "+OK"
    server.ask("CLIENT", "KILL", "TYPE", "normal", password=OTHER_PASSWORD)
    server.ask("CLIENT", "KILL", "TYPE", "pubsub", password=OTHER_PASSWORD)
    yield
    assert server.ask("CONFIG", "SET", "requirepass", '""', password=OTHER_PASSWORD) == "+OK"


@contextmanager
def _nats_locked(server: NatsServer) -> Iterator[None]:
    server.kill()
    server.start("--user", "another", "--pass", OTHER_PASSWORD)
    yield
    server.kill()
    server.start()


@contextmanager
def _mariadb_locked(server: MariadbServer) -> Iterator[None]:
    def change(password: str) -> None:
        server.run(f"ALTER USER '{server.USER}'@'%' IDENTIFIED BY '{password}'")
        server.run(f"KILL USER '{server.USER}'@'%'")

    change(OTHER_PASSWORD)
    yield
    change(server.PASSWORD)


@contextmanager
def _influx_locked(server: InfluxServer) -> Iterator[None]:
    with httpx.Client(base_url=server.url, timeout=START_TIMEOUT) as client:
        # By a login, for the token cannot say that it counts again.
        client.post("/api/v2/signin", auth=("admin", "adminpass")).raise_for_status()
        tokens = client.get("/api/v2/authorizations").raise_for_status().json()["authorizations"]

        def change(status: str) -> None:
            for token in tokens:
                path = f"/api/v2/authorizations/{token['id']}"
                client.patch(path, json={"status": status}).raise_for_status()

        change("inactive")
        yield
        change("active")


_LOCKED: dict[type[RealServer], Callable[[Any], Any]] = {
    RedisServer: _redis_locked,
    NatsServer: _nats_locked,
    MariadbServer: _mariadb_locked,
    InfluxServer: _influx_locked,
}
