"""client.js against real servers that are killed, stopped and started again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.logins import Logins
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, trade_and_drain
from tests.servers.server import free_port
from tests.web.driven import Driven
from tests.web.node import PATIENCE_S

SYMBOLS = ["BTCUSDT", "ETHUSDT"]


@pytest.fixture
def sim() -> Iterator[SimProcess]:
    with SimProcess("--symbols", "5", "--rate", "2000", "--paused") as process:
        yield process


def server_on(folder: Path, sim: SimProcess, port: int = 0) -> ServerProcess:
    server = ServerProcess(folder, sim, WS_PORT=str(port), EXCHANGE_SYMBOLS=",".join(SYMBOLS))
    server.await_subscribed(len(SYMBOLS))
    return server


def await_sums(client: Driven, sim: SimProcess) -> None:
    """Wait until the volumes that the client added up are all that was traded."""
    ledger = {symbol: Decimal(sim.get("/sim/ledger", symbol=symbol)["sum"]) for symbol in SYMBOLS}
    deadline = time.monotonic() + PATIENCE_S
    while True:
        sums = client.ask("report")["sums"]
        told = {symbol: Decimal(sums.get(symbol, 0)).quantize(ledger[symbol]) for symbol in SYMBOLS}
        if told == ledger:
            return
        assert time.monotonic() < deadline, f"the client's sums are {told}, traded was {ledger}"


def test_volumes_add_up_to_what_was_traded(tmp_path: Path, sim: SimProcess) -> None:
    with server_on(tmp_path, sim) as server, Driven("updates.mjs", server.websocket) as client:
        client.do("subscribe", symbols=[*SYMBOLS, "NOPE"])
        client.do("connect")
        assert [pair["symbol"] for pair in client.await_event("subscribed")] == SYMBOLS
        assert client.await_event("error")["symbols"] == ["NOPE"]
        trade_and_drain(sim.rest_endpoint, 3_000)
        await_sums(client, sim)
        report = client.ask("report")
        assert (report["faults"], report["connections"]) == (0, 1)
        assert report["updates"] > 0
        assert client.stop() == 0


def test_killed_and_stopped_servers_are_found_again(tmp_path: Path, sim: SimProcess) -> None:
    # None that the kernel gives to others while no server listens on it.
    port = free_port()
    with server_on(tmp_path, sim, port) as server, Driven("updates.mjs", server.websocket) as client:
        client.do("subscribe", symbols=SYMBOLS)
        client.do("connect")
        client.await_event("subscribed")
        server.kill()
        assert "code" not in client.await_event("state", state="waiting")
        with server_on(tmp_path, sim, port) as second:
            # By its own back-off.
            client.await_event("subscribed")
            assert second.stop() == 0
        told = client.await_event("state", state="waiting", before="connected")
        assert told["code"] in (1001, 1012)
        assert 1000 <= told["waitMs"] <= 10000
        with server_on(tmp_path, sim, port):
            client.do("retry")
            client.await_event("subscribed")
            trade_and_drain(sim.rest_endpoint, 500)
            await_sums(client, sim)
        assert client.ask("report")["connections"] == 3
        assert client.stop() == 0


def test_a_login_its_watchlist_and_its_end(tmp_path: Path, sim: SimProcess) -> None:
    locked = {"WS_ANONYMOUS": "false", "EXCHANGE_SYMBOLS": "SOLUSDT"}
    with ServerProcess(tmp_path, sim, **locked) as server, RecorderProcess(tmp_path, sim):
        logins = Logins(tmp_path)
        alice = logins.user("alice", ("BTC*", "ETH*", "SOL*"))
        token = logins.login(alice)
        logins.accounts.set_watchlist(alice.id, ["BTCUSDT"])
        with Driven("updates.mjs", server.websocket, TRADEBACK_TOKEN=token) as client:
            client.do("connect")
            client.await_event("auto_subscribe", symbol="BTCUSDT")
            client.do("subscribe", symbols=["BTCUSDT", "ETHUSDT", "BNBUSDT"])
            assert [pair["symbol"] for pair in client.await_event("subscribed")] == SYMBOLS
            client.await_event("error", code="symbol_not_allowed", symbols=["BNBUSDT"])
            # No longer wanted here, and still on the watchlist.
            client.do("unsubscribe", symbols=SYMBOLS)
            assert [pair["symbol"] for pair in client.await_event("unsubscribed")] == ["ETHUSDT"]
            logins.accounts.watch(alice.id, "SOLUSDT")
            client.await_event("auto_subscribe", symbol="SOLUSDT")
            trade_and_drain(sim.rest_endpoint, 1_000)
            deadline = time.monotonic() + PATIENCE_S
            while not all(client.ask("report")["sums"].get(symbol) for symbol in ("BTCUSDT", "SOLUSDT")):
                assert time.monotonic() < deadline, client.ask("report")
            logins.accounts.unwatch(alice.id, "SOLUSDT")
            client.await_event("auto_unsubscribe", symbol="SOLUSDT")
            logins.logout(token)
            assert client.await_event("state", before="connected")["code"] == 4401
            # Before the upgrade nobody tells a browser why: the client asks whether there is a login.
            client.do("connect")
            told = client.await_event("state", state="unauthorized", before="connecting")
            assert "logged in" in told["sentence"]
            assert client.ask("report")["faults"] == 0
            assert client.stop() == 0
        logins.close()
