"""The contract of a Bus, on a real server that is killed, hangs, refuses, or has a subscriber who does not read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import private
from tests.servers.nats import Listener, NatsServer, subscribed_socket
from tests.servers.server import free_port
from tests.waiting import await_true
from tradeback.config import NatsConfig
from tradeback.errors import BusError
from tradeback.store.base import Bus
from tradeback.store.bus_layout import BusLevel, BusPrice, BusTrade, decode_message
from tradeback.store.bus_nats import NatsBus

TRADES = [BusTrade(1.5, 0.25, 1.4, 1.6, number, 10**18 + number, -3, 1, 16) for number in range(2_500)]


def publish(bus: Bus, times: int = 1) -> None:
    for _ in range(times):
        bus.publish_trades("BTCUSDT", 3, TRADES)
    bus.flush()


@pytest.fixture
def bus(nats_server: NatsServer) -> Iterator[Bus]:
    bus = NatsBus(NatsConfig(url=nats_server.url))
    yield bus
    bus.close()


def test_what_is_published_and_flushed_arrives_in_order(nats_server: NatsServer, bus: Bus) -> None:
    price, level = BusPrice(1.0, 0.9, 1.1, 7, 8), BusLevel.of(50.0, 2.0, 1.0, 1.5, 9)
    with Listener(nats_server.port) as listener:
        bus.publish_trades("BTCUSDT", 3, TRADES)
        bus.publish_price("BTCUSDT", 3, price)
        bus.publish_enigma("BTCUSDT", 3, level)
        bus.flush()
        await_true(lambda: len(listener.messages) == 5, "five messages never came")
        decoded = [decode_message(payload) for payload in listener.of("trades.BTCUSDT")]
        assert [stream_id for stream_id, _ in decoded] == [3, 3, 3]
        assert [trade for _, trades in decoded for trade in trades] == TRADES
        assert [decode_message(one) for one in listener.of("prices.BTCUSDT")] == [(3, [price])]
        assert [decode_message(one) for one in listener.of("enigma.BTCUSDT")] == [(3, [level])]


def test_a_server_that_was_killed_is_told_and_connected_anew(nats_server: NatsServer, bus: Bus) -> None:
    bus.publish_trades("BTCUSDT", 3, TRADES)
    bus.flush()
    nats_server.kill()
    for _ in range(2):
        with pytest.raises(BusError, match="see that it runs, and NATS_URL"):
            publish(bus)
    nats_server.start()
    with Listener(nats_server.port) as listener:
        bus.publish_trades("BTCUSDT", 3, TRADES)
        bus.flush()
        await_true(lambda: len(listener.messages) == 3, "three messages never came")


def test_a_server_that_hangs_takes_bounded_time_and_memory(nats_server: NatsServer, bus: Bus) -> None:
    bus.flush()
    nats_server.halt()
    try:
        with pytest.raises(BusError, match="took nothing"):
            publish(bus, 1_000)  # 160 MB, were they all taken
    finally:
        nats_server.go_on()
    bus.publish_trades("BTCUSDT", 3, TRADES)
    bus.flush()


def test_wrong_credentials_are_told_without_the_password(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats", "--user", "someone", "--pass", "right") as server:
        for password, taken in (("wrong", False), ("right", True)):
            bus = NatsBus(NatsConfig(url=f"nats://someone:{password}@127.0.0.1:{server.port}"))
            try:
                if taken:
                    bus.flush()
                    continue
                with pytest.raises(BusError, match="Authorization Violation") as told:
                    bus.flush()
                assert password not in str(told.value)
            finally:
                bus.close()


def test_a_subscriber_who_does_not_read_holds_up_nobody(nats_server: NatsServer, bus: Bus) -> None:
    with subscribed_socket(nats_server.port, ">"), Listener(nats_server.port) as listener:
        for _ in range(200):  # 32 MB: more than the sockets hold
            bus.publish_trades("BTCUSDT", 3, TRADES)
        bus.flush()
        await_true(lambda: len(listener.messages) == 600, "the one who reads did not get all")


def test_user_and_password_may_hold_any_sign(tmp_path: Path) -> None:
    user, password = "trad@r", "p@ss/w:o%r$HOME${X}#?&*!'`\\,;="
    with NatsServer(tmp_path / "nats", "--user", user, "--pass", password) as server:
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        for address, answers in ((f"nats://{login}@127.0.0.1:{server.port}", True), (server.url, False)):
            bus = NatsBus(NatsConfig(url=address))
            with contextlib.closing(bus), contextlib.nullcontext() if answers else pytest.raises(BusError):
                publish(bus)


class TestACluster:
    def test_each_of_its_servers_is_tried(self, nats_server: NatsServer, tmp_path: Path) -> None:
        with private(NatsServer, tmp_path / "second", "--user", "someone", "--pass", "right") as second:
            nowhere = f"nats://127.0.0.1:{free_port()}"
            third = f"nats://someone:right@127.0.0.1:{second.port}"
            with contextlib.closing(NatsBus(NatsConfig(url=f"{nowhere},{nats_server.url}, {third}"))) as bus:
                publish(bus)
                for gone in (nats_server, second):
                    gone.kill()
                    with pytest.raises(BusError):
                        publish(bus)  # on the connection that is gone
                    publish(bus)
                    gone.start()

    def test_one_that_hangs_is_not_the_first_of_the_next_call(
        self, nats_server: NatsServer, tmp_path: Path
    ) -> None:
        with private(NatsServer, tmp_path / "second") as second:
            bus = NatsBus(NatsConfig(url=f"{nats_server.url},{second.url}"))
            with contextlib.closing(bus):
                publish(bus)
                nats_server.halt()
                try:
                    with pytest.raises(BusError):
                        publish(bus, 1_000)
                    with Listener(second.port) as listener:
                        publish(bus)
                        await_true(lambda: len(listener.messages) == 3, "it went to none")
                finally:
                    nats_server.go_on()

    def test_messages_name_all_servers_and_no_password(self) -> None:
        ports = free_port(), free_port()
        url = ",".join(f"nats://trader:hu%2Csh@127.0.0.1:{port}" for port in ports)
        with contextlib.closing(NatsBus(NatsConfig(url=url))) as bus, pytest.raises(BusError) as told:
            publish(bus)
        assert f"NATS at 127.0.0.1:{ports[0]}, 127.0.0.1:{ports[1]} took nothing" in str(told.value)
        assert "sh" not in str(told.value).replace("Errno", "")
