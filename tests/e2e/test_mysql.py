"""All processes with their symbols and accounts in a real MariaDB, which is killed, halted and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.api import Answer, ApiProcess
from tests.e2e.logins import bearer
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, trade_and_drain
from tests.servers.mariadb import MariadbServer
from tests.servers.services import give
from tests.store.conftest import sqlite_config
from tests.waiting import await_true
from tradeback.client import Client
from tradeback.config import Config
from tradeback.passwords import hash_password
from tradeback.store.accounts import open_accounts

SAFETY = 60.0
PASSWORD = "correct horse"
SYMBOLS = "BTCUSDT,ETHUSDT"
# An away database is to be told apart from a slow one soon.
SETTINGS = {
    "EXCHANGE_SYMBOLS": SYMBOLS,
    "MYSQL_TIMEOUT": "2s",
    "MYSQL_ACCOUNTS_POLL": "200ms",
    "LIMIT_AUTH": "off",
}


@dataclass(frozen=True)
class There:
    """An exchange, server, recorder and API; only MariaDB knows symbols and accounts."""

    folder: Path
    mariadb: MariadbServer
    sim: SimProcess
    server: ServerProcess
    recorder: RecorderProcess
    api: ApiProcess
    config: Config

    def login(self) -> Answer:
        content = json.dumps({"username": "alice", "password": PASSWORD}).encode()
        return self.api.ask("/api/v1/auth/login", "POST", content, Content_Type="application/json")

    def watched(self) -> int:
        return int(self.recorder.control(type="status")["accounts"]["watched"])

    def component(self, name: str) -> str:
        answer = self.api.ask("/api/v1/health/detailed")
        return str(answer.json["components"][name]["state"])


@contextlib.contextmanager
def running(folder: Path, mariadb: MariadbServer) -> Iterator[There]:
    environment = {**mariadb.environment, **SETTINGS}
    give(folder, environment)
    config = sqlite_config(folder, **environment)
    with SimProcess("--symbols", "5", "--rate", "2000", "--paused") as sim:
        with (
            ServerProcess(folder, sim, **environment) as server,
            RecorderProcess(folder, sim, **environment) as recorder,
            ApiProcess(folder, WS_PORT=str(server.ws_port), **environment) as api,
        ):
            with contextlib.closing(open_accounts(config)) as accounts:
                accounts.add_user("alice", hash_password(PASSWORD))
            server.await_subscribed(2)
            trade_and_drain(sim.rest_endpoint, 1_000)
            recorder.await_stored(repaired=True)
            yield There(folder, mariadb, sim, server, recorder, api, config)
        for process in ("server", "recorder", "api"):
            assert "Traceback" not in (folder / f"{process}.log").read_text()


def prices_flow(there: There) -> None:
    """What is traded reaches a client that stays, and the history."""

    async def scenario() -> None:
        async with Client(there.server.websocket, ["BTCUSDT"]) as client:
            trading = asyncio.create_task(asyncio.to_thread(trade_and_drain, there.sim.rest_endpoint, 500))
            async with asyncio.timeout(SAFETY):
                async for update in client:
                    if update.volume > 0:
                        break
            await trading

    asyncio.run(scenario())
    there.recorder.await_stored(repaired=True)


@pytest.mark.timeout(300)
def test_while_it_is_away_prices_flow_and_what_needs_it_says_so(
    tmp_path: Path, own_mariadb_server: MariadbServer
) -> None:
    with running(tmp_path, own_mariadb_server) as there:
        began = time.monotonic()
        assert not (there.folder / "sim" / "catalog.sqlite").exists()
        while (login := there.login()).status == 503:  # a busy machine may leave the database no time
            assert time.monotonic() < began + SAFETY
        token = login.json["token"]
        assert len(there.api.get("/api/v1/symbols")) == 5
        for trouble, end in (
            (there.mariadb.halt, there.mariadb.go_on),
            (there.mariadb.kill, there.mariadb.start),
        ):
            assert there.api.ask("/api/v1/marketwatch/BTCUSDT", "DELETE", **bearer(token)).status == 200
            await_true(lambda: there.watched() == 0, "the recorder follows")
            trouble()
            await_true(lambda: there.component("catalog") == "unavailable", "health tells")
            check_while_away(there, token)
            end()
            await_true(lambda: there.component("catalog") == "ok", "health tells")
            await_true(lambda: there.login().status == 200, "logins go on")
            answer = there.api.ask("/api/v1/marketwatch/BTCUSDT", "POST", **bearer(token))
            assert answer.json["symbols"] == ["BTCUSDT"], answer
            await_true(lambda: there.watched() == 1, "the recorder follows again")
        # One line for each trouble, not one for each try.
        assert (there.folder / "recorder.log").read_text().count("cannot be used") < 20


def check_while_away(there: There, token: str) -> None:
    prices_flow(there)
    assert len(there.api.get("/api/v1/symbols")) == 5
    assert there.api.get("/api/v1/symbols/BTCUSDT/price")["price"] > 0
    assert there.api.get("/api/v1/symbols/BTCUSDT/bars?resolution=1m")
    for answer in (there.login(), there.api.ask("/api/v1/marketwatch/BTCUSDT", "POST", **bearer(token))):
        assert answer.status == 503, answer
        assert answer.json["error"]["component"] == "accounts", answer
    # Who asks meanwhile need not wait as long as the first did.
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert there.api.ask("/api/v1/auth/session", **bearer(token)).status == 503
        took.append(time.monotonic() - began)
    assert sorted(took)[10] < 0.5, took
    assert there.api.get("/api/v1/health") == {"status": "ok"}


@pytest.mark.timeout(300)
def test_all_start_while_it_is_away_and_find_it_later(
    tmp_path: Path, own_mariadb_server: MariadbServer
) -> None:
    environment = {**own_mariadb_server.environment, **SETTINGS}
    with running(tmp_path, own_mariadb_server) as there:
        assert there.login().status == 200
    own_mariadb_server.halt()
    with (
        SimProcess("--symbols", "5", "--rate", "2000", "--paused") as sim,
        ServerProcess(tmp_path, sim, **environment) as server,
        ApiProcess(tmp_path, WS_PORT=str(server.ws_port), **environment) as api,
    ):
        server.await_subscribed(2)
        assert "the symbols of the last start serve" in (tmp_path / "server.log").read_text()
        trade_and_drain(sim.rest_endpoint, 500)
        assert api.get("/api/v1/health") == {"status": "ok"}
        answer = api.ask("/api/v1/symbols")
        assert (answer.status, answer.json["error"]["component"]) == (503, "catalog")

        def go_on_once_it_is_waited_for() -> None:
            log = tmp_path / "recorder.log"
            before = log.read_text().count("a store is away")
            await_true(lambda: log.read_text().count("a store is away") > before, "the recorder waits")
            own_mariadb_server.go_on()

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(go_on_once_it_is_waited_for)
            with RecorderProcess(tmp_path, sim, **environment) as recorder:
                waiting.result()
                recorder.await_stored(repaired=True)
                await_true(lambda: api.ask("/api/v1/symbols").status == 200, "the API finds it")
    # One that was never reached before has no symbols to start with.
    own_mariadb_server.kill()
    (tmp_path / "other").mkdir()
    give(tmp_path / "other", environment)
    with SimProcess("--symbols", "5") as sim, pytest.raises(AssertionError, match="ended with 1"):
        ServerProcess(tmp_path / "other", sim, **environment)
    assert "cannot be reached" in (tmp_path / "other" / "server.log").read_text()
