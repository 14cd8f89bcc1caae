"""Each of the four services killed, hung, slow, full or locked, under a server, a recorder and an API that use them
all, and at their start: clients get every update meanwhile, nothing is lost, and who cannot answer says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import private
from tests.e2e.accounts import PASSWORD
from tests.e2e.api import ApiProcess
from tests.e2e.running import (
    Audit,
    RecorderProcess,
    ServerProcess,
    SimProcess,
    await_sums_of_ledger,
    quantity_decimals,
)
from tests.e2e.test_recorder import check_symbol
from tests.servers.faults import away, full, hung, locked
from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer
from tests.servers.server import RealServer
from tests.servers.services import give
from tests.servers.slow import SlowWay
from tests.waiting import await_true
from tradeback.config import load_config
from tradeback.passwords import hash_password
from tradeback.store.accounts import open_accounts
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

Fault = Callable[[RealServer], AbstractContextManager[None]]
SYMBOLS = ("BTCUSDT", "ETHUSDT")
CLIENTS = 10
SLOW_S = 0.1
# Nobody is waited for longer than a test has patience.
TIMEOUTS = {"REDIS_TIMEOUT": "500ms", "MYSQL_TIMEOUT": "2s", "INFLUX_TIMEOUT": "2s"}
PRICE, BARS = "/api/v1/symbols/BTCUSDT/price", "/api/v1/symbols/BTCUSDT/bars"
SESSION, WATCHLIST = "/api/v1/auth/session", "/api/v1/marketwatch"
PATHS = ("/api/v1/symbols", PRICE, BARS, SESSION, WATCHLIST)


@dataclass(frozen=True)
class Service:
    """What depends on a service: the sink that writes to it, and what the API cannot answer without it."""

    kind: type[RealServer]
    sink: str | None = None
    without: dict[str, str] = field(default_factory=dict)  # component by path
    component: str | None = None  # of /health/detailed


# An API that starts without MySQL knows no symbol yet either.
WITHOUT_SYMBOLS = dict.fromkeys(("/api/v1/symbols", PRICE, BARS), "catalog")

SERVICES = {
    "redis": Service(RedisServer, "cache"),
    "nats": Service(NatsServer, "bus"),
    "influx": Service(InfluxServer, "history", {BARS: "history"}, "history"),
    "mysql": Service(MariadbServer, None, {SESSION: "accounts", WATCHLIST: "accounts"}, "catalog"),
}


class Whole:
    """Exchange, server, recorder, API and clients, on servers that are reached by ways that can be slow."""

    def __init__(self, folder: Path, stack: ExitStack, servers: dict[str, RealServer]) -> None:
        self.folder = folder
        self.stack = stack
        self.servers = servers
        self.ways = {name: stack.enter_context(SlowWay(server.port)) for name, server in servers.items()}
        self.settings = {**TIMEOUTS, "EXCHANGE_SYMBOLS": ",".join(SYMBOLS), "EXCHANGE_MUTE_LIMIT": "10m"}
        for limit in ("PAGE", "AUTH", "MONITORING", "MARKETWATCH"):
            self.settings[f"LIMIT_{limit}"] = "off"
        for name, server in servers.items():
            mine, way = str(server.port), str(self.ways[name].port)
            for key, value in server.environment.items():
                if key not in TIMEOUTS:
                    self.settings[key] = value.replace(mine, way)
        give(folder, self.settings)
        self.sim = stack.enter_context(SimProcess("--symbols", "5", "--rate", "500", "--paused"))
        self.token = ""

    def start(self) -> None:
        """Server, recorder and API, and clients that hear all from now on."""
        self.start_server()
        self.start_recorder()

    def start_server(self) -> None:
        """All of it but the recorder."""
        self.server = self.stack.enter_context(ServerProcess(self.folder, self.sim, **self.settings))
        self.api = self.stack.enter_context(
            ApiProcess(self.folder, **self.settings, WS_PORT=str(self.server.ws_port))
        )
        self.server.await_subscribed(len(SYMBOLS))
        self.before = {symbol: self.sim.ledger(symbol)["quantity"] for symbol in SYMBOLS}
        self.audit = self.stack.enter_context(Audit(self.server.ws_port, CLIENTS, list(SYMBOLS)))

    def start_recorder(self) -> None:
        """Returns when it is ready."""
        self.recorder = self.stack.enter_context(RecorderProcess(self.folder, self.sim, **self.settings))

    def stop(self) -> None:
        """End the three processes."""
        for process in (self.recorder, self.server, self.api):
            assert process.stop() == 0

    @property
    def config(self) -> Any:
        named = {"DATA_DIR": str(self.folder), "TRADEBACK_EXCHANGE": "sim"}
        return load_config(environ={**self.settings, **named})

    def log_in(self) -> None:
        accounts = open_accounts(self.config)
        accounts.add_user("ann", hash_password(PASSWORD))
        accounts.close()
        body = f'{{"username":"ann","password":"{PASSWORD}"}}'.encode()
        answer = self.api.ask("/api/v1/auth/login", "POST", body, Content_Type="application/json")
        assert answer.status == 200, answer
        self.token = answer.json["token"]

    def trade(self) -> None:
        """For a moment; then clients, that were there from the start, have what the ledger has."""
        before = sum(self.sim.ledger(symbol)["count"] for symbol in SYMBOLS)
        self.sim.get("/sim/resume")
        await_true(
            lambda: sum(self.sim.ledger(symbol)["count"] for symbol in SYMBOLS) > before + 100,
            "trades are made",
        )
        self.sim.pause_and_drain()
        decimals = quantity_decimals(self.sim.rest_endpoint)
        await_sums_of_ledger(
            self.sim, self.audit, {symbol: decimals[symbol] for symbol in SYMBOLS}, self.before
        )

    def sink(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.recorder.control(type="status")["sinks"] if one["name"] == name]
        return dict(found)

    def health(self) -> Any:
        return self.api.ask("/api/v1/health/detailed").json

    def answers(self) -> dict[str, str]:
        """What the API cannot answer, and why: the component by path."""
        found = {}
        for path in PATHS:
            answer = self.api.ask(path, Authorization=f"Bearer {self.token}")
            assert answer.status in (200, 503), (path, answer)
            if answer.status == 503:
                assert "retry-after" in answer.headers
                found[path] = answer.json["error"]["component"]
        return found

    def check_while_away(self, service: Service) -> None:
        """It is away, the market goes on: all that does not need it does."""
        self.trade()
        self.check_answers(service)
        if service.sink is not None:
            await_true(
                lambda: self.sink(service.sink or "")["error"],
                lambda: ("the sink fails", self.recorder.said()),
            )
            await_true(
                lambda: self.health()["sinks"][service.sink]["state"] == "failing",
                lambda: ("health tells of the sink", self.health()),
            )
        for name in ("history", "indicators", "bus", "cache"):
            if name != service.sink:
                await_true(
                    lambda name=name: all_read(self.sink(name)) and not self.sink(name)["error"],
                    lambda name=name: (f"the sink {name} has all", self.sink(name)),
                )

    def check_answers(self, service: Service) -> None:
        """The API's, while it is away."""
        await_true(
            lambda: self.answers() == service.without,
            lambda: ("the API tells what it cannot", self.answers()),
        )
        if service.component is not None:
            await_true(
                lambda: self.health()["components"][service.component]["state"] == "unavailable",
                lambda: ("health tells of the component", self.health()),
            )

    def check_well(self) -> None:
        """All of it is caught up with, without anybody's help."""
        self.trade()
        self.recorder.await_stored()
        for name in ("history", "indicators", "bus", "cache"):
            await_true(lambda name=name: not self.sink(name)["error"], f"the sink {name} is well")
        await_true(lambda: self.answers() == {}, lambda: ("the API answers all", self.answers()))
        await_true(lambda: self.health()["status"] == "ok", lambda: ("health is well", self.health()))

    def check_stored(self) -> None:
        catalog, history = open_catalog(self.config, create=False), open_history(self.config, write=False)
        ids = {symbol.name: symbol.stream_id for symbol in catalog.symbols()}
        for symbol in SYMBOLS:
            assert check_symbol(self.sim.get, history, symbol, ids[symbol]) > 100
        catalog.close()
        history.close()


def all_read(sink: dict[str, Any]) -> bool:
    return bool(sink["caught_up"]) and not any(one["lag"] for one in sink["journals"].values())


@contextmanager
def whole(folder: Path, **disks: Path) -> Iterator[Whole]:
    """On servers of its own, each in a folder of its own, or on its disk; the processes are still to be started."""
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(private(service.kind, disks.get(name, folder) / name))
            for name, service in SERVICES.items()
        }
        there = Whole(folder, stack, servers)
        yield there
        there.stop()
    for name in ("server", "recorder", "api"):
        log = (folder / f"{name}.log").read_text()
        assert "Traceback" not in log
        warnings = [line for line in log.splitlines() if '"level": "info"' not in line]
        assert len(warnings) < 200, "\n".join(warnings[-50:])


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("services")) as running:
        running.start()
        running.log_in()
        running.trade()
        running.recorder.await_stored()
        yield running
        running.check_stored()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("fault", [away, hung, locked])
def test_a_service_that_fails_and_comes_again(there: Whole, name: str, fault: Fault) -> None:
    with fault(there.servers[name]):
        there.check_while_away(SERVICES[name])
    there.check_well()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "fault"),
    [*((name, away) for name in SERVICES), *product(("influx", "mysql"), (hung, locked))],
)
def test_a_service_that_fails_from_the_start(there: Whole, name: str, fault: Fault) -> None:
    there.stop()
    with ThreadPoolExecutor() as beside:
        with fault(there.servers[name]):
            there.start_server()
            starting = beside.submit(there.start_recorder)
            if name == "mysql":  # without symbols it waits, and the journal keeps what comes
                there.trade()
                service = SERVICES[name]
                there.check_answers(replace(service, without=service.without | WITHOUT_SYMBOLS))
                assert not starting.done()
            else:
                starting.result()
                there.check_while_away(SERVICES[name])
        starting.result()
    there.check_well()


@pytest.mark.timeout(240)
def test_a_service_that_is_full(tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    with whole(tmp_path, influx=mounted("300m"), mysql=mounted("500m")) as there:
        there.start()
        there.log_in()
        there.trade()
        # MySQL needs no room for what is asked of it all the time.
        for name, fails in (("redis", True), ("influx", True), ("mysql", False)):
            with full(there.servers[name]):
                if fails:
                    there.check_while_away(replace(SERVICES[name], without={}, component=None))
                else:
                    there.check_well()
            there.check_well()
        there.check_stored()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_is_slow(there: Whole, name: str) -> None:
    """It takes its time and does what it is asked to: nobody is told of anything, and nobody falls behind for good."""
    there.ways[name].delay = SLOW_S
    try:
        there.trade()
        there.recorder.await_stored()
        await_true(lambda: there.answers() == {}, lambda: ("all is answered", there.answers()))
    finally:
        there.ways[name].delay = 0.0
    there.check_well()
