"""SIGTERM: what is under way is finished, places are saved, and the exit code is 0 in time, though services hang."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.conftest import private
from tests.e2e.accounts import PASSWORD
from tests.e2e.api import ApiProcess
from tests.e2e.processes import Watched, children_of
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, Up, trade_and_drain
from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer
from tests.servers.server import RealServer
from tests.servers.services import config_of, give
from tests.waiting import await_true
from tradeback.commands.lifeline import GRACE
from tradeback.passwords import hash_password
from tradeback.store.accounts import open_accounts
from tradeback.store.catalog import CATALOG_FILE
from tradeback.store.sqlite import LOCK_PATIENCE_S
from tradeback.store.stats import read_stats

SAFETY = 60.0
DRAIN_S = 5.0  # the most that can be set
SERVICES: dict[str, type[RealServer]] = {
    "redis": RedisServer,
    "nats": NatsServer,
    "influx": InfluxServer,
    "mysql": MariadbServer,
}
# Of a service that hangs there is nothing to hear for longer than anybody waits.
LONG = {"MYSQL_TIMEOUT": "60s", "INFLUX_TIMEOUT": "60s", "RECORDER_END_LIMIT": "3s"}


@pytest.mark.timeout(240)
def test_a_recorder_ends_in_time_though_every_service_hangs(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(private(kind, tmp_path / name)) for name, kind in SERVICES.items()]
        settings = {"EXCHANGE_SYMBOLS": "BTCUSDT,ETHUSDT"}
        for each in servers:
            settings |= each.environment
        settings |= LONG
        give(tmp_path, settings)
        sim = stack.enter_context(SimProcess("--symbols", "5", "--rate", "1000", "--paused"))
        server = stack.enter_context(ServerProcess(tmp_path, sim, **settings))
        with RecorderProcess(tmp_path, sim, **settings) as recorder:
            server.await_subscribed(2)
            trade_and_drain(sim.rest_endpoint, 1_000)
            recorder.await_stored()
            for each in servers:
                each.halt()
            sim.get("/sim/resume")
            counters = tmp_path / "sim" / "stats" / "recorder"
            # More than a batch that waits for its time: a write is under way, which hangs.
            await_true(lambda: read_stats(counters).values["lag_history"].value > 2_000, recorder.said)
            began = time.monotonic()
            assert recorder.stop() == 0
            assert time.monotonic() - began < GRACE
            assert "a store hangs while the recorder ends" in recorder.said()
            assert "Traceback" not in recorder.said()
        sim.pause_and_drain()
        for each in servers:
            each.go_on()
        with RecorderProcess(tmp_path, sim, **settings) as recorder:
            status = recorder.await_stored()
            assert status["gaps"]["open"] == 0
            ledger = {name: sim.ledger(name)["last_id"] for name in ("BTCUSDT", "ETHUSDT")}
            assert min(ledger.values()) > 0
            assert recorder.stop() == 0
            assert '"recorder stopped"' in recorder.said()


def refused(port: int) -> bool:
    """Whether nobody takes a connection there any more."""
    try:
        with socket.create_connection(("127.0.0.1", port), SAFETY):
            return False
    except OSError:
        return True


def test_an_api_is_first_not_ready_then_closed_then_gone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sim = stack.enter_context(SimProcess("--paused"))
        stack.enter_context(ServerProcess(tmp_path, sim))
        stack.enter_context(RecorderProcess(tmp_path, sim))
        for _ in range(5):  # it is closed before all is asked where we get no time for as long
            with ApiProcess(tmp_path, SERVER_DRAIN=f"{DRAIN_S}s") as api:
                await_true(lambda: api.ask("/api/v1/health/ready").status == 200, api.said)
                began = time.monotonic()
                api.process.send_signal(signal.SIGTERM)
                try:
                    answer = await_true(
                        lambda: (got := api.ask("/api/v1/health/ready")).status == 503 and got, api.said
                    )
                    # Who was not told yet is answered.
                    others = [api.ask(path).status for path in ("/api/v1/health", "/api/v1/symbols")]
                except ConnectionError:
                    assert time.monotonic() - began >= DRAIN_S
                    continue
                assert answer.json["status"] == "draining"
                assert set(answer.json["components"].values()) == {"ok"}
                assert others == [200, 200]
                await_true(lambda: refused(api.port), api.said)
                assert api.stop() == 0
                assert "Traceback" not in api.said()
                break
        else:
            raise AssertionError("it was closed five times before all was asked")


@pytest.mark.embedded("its file is locked")
def test_an_api_answers_what_is_under_way_before_it_ends(tmp_path: Path) -> None:
    with SimProcess("--paused") as sim, ServerProcess(tmp_path, sim):
        pass
    with closing(open_accounts(config_of(tmp_path))) as accounts:
        accounts.add_user("ann", hash_password(PASSWORD))
    for _ in range(5):  # the login gives up where we get no time for as long
        with ApiProcess(tmp_path) as api, ExitStack() as stack:
            login = stack.enter_context(closing(HTTPConnection("127.0.0.1", api.port, timeout=SAFETY)))
            # A login writes, and nobody may while this is open.
            lock = stack.enter_context(
                closing(sqlite3.connect(tmp_path / "sim" / CATALOG_FILE, isolation_level=None))
            )
            lock.execute("BEGIN IMMEDIATE")
            body = f'{{"username":"ann","password":"{PASSWORD}"}}'
            began = time.monotonic()
            login.request("POST", "/api/v1/auth/login", body, {"Content-Type": "application/json"})
            # Whoever came first is taken first: once this is answered, the login is at work.
            assert api.ask("/api/v1/health").status == 200
            api.process.send_signal(signal.SIGTERM)
            await_true(lambda: refused(api.port), api.said)
            lock.execute("ROLLBACK")
            held = time.monotonic() - began
            answer = login.getresponse()
            said = answer.read()
            assert answer.getheader("Connection") == "close"
            assert api.stop() == 0
        if answer.status != 503 or held < LOCK_PATIENCE_S:
            break
    assert answer.status == 200, said


def test_up_ends_its_processes_in_order(tmp_path: Path) -> None:
    with Up(tmp_path, "--sim-rate", "100", "--sim-symbols", "5") as up:
        up.await_login()
        (api,) = [pid for pid in children_of(up.process.pid) if b"api" in words(pid)]
        with Watched(api) as watched:
            assert up.stop() == 0
            assert watched.ended(0)
    log = (tmp_path / "up.log").read_text()
    assert 0 < log.index("server stopped") < log.index("recorder stopped")


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with Up(tmp_path, "--sim-rate", "100", "--sim-symbols", "5") as up:
        up.await_login()
        children = {
            name: pid
            for pid in children_of(up.process.pid)
            for name in (b"server", b"recorder")
            if name in words(pid)
        }
        with Watched(children[b"server"]) as server, Watched(children[b"recorder"]) as recorder:
            os.kill(children[b"recorder"], signal.SIGSTOP)
            up.process.send_signal(signal.SIGINT)
            # All others are gone, and this one does not end.
            assert server.ended(SAFETY)
            up.process.send_signal(signal.SIGINT)
            assert up.process.wait(GRACE / 2) == 1
            assert recorder.ended(SAFETY)
    log = (tmp_path / "up.log").read_text()
    assert "ended by force, as asked" in log
    assert "Traceback" not in log


def words(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
