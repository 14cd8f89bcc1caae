"""The contract of Announcements on real brokers that are killed, hang or refuse: who changes accounts never waits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.servers.nats import NET, Listener, NatsServer, subscribed_socket
from tests.servers.redis import RedisServer
from tests.store.conftest import sqlite_config
from tests.waiting import await_true
from tradeback.config import Config
from tradeback.errors import BusError
from tradeback.model import Session
from tradeback.store import announce_nats, nats_connection
from tradeback.store.accounts import open_accounts
from tradeback.store.announce_nats import NatsChannel
from tradeback.store.announcements import open_announcements
from tradeback.store.base import Announcements

Broker = NatsServer | RedisServer
NOWHERE = {"MYSQL_HOST": "127.0.0.1"}  # named only: announcements do not ask it


@pytest.fixture(params=["nats_server", "redis_server"])
def broker(request: pytest.FixtureRequest) -> Broker:
    server: Broker = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def open_one(broker: Broker, tmp_path: Path) -> Iterator[Callable[..., Announcements]]:
    """Opens one more; what it is given are settings."""
    opened: list[Announcements] = []

    def open_again(**settings: str) -> Announcements:
        config = sqlite_config(tmp_path, **NOWHERE, **broker.environment, **settings)
        announcements = open_announcements(config)
        assert announcements is not None
        opened.append(announcements)
        return announcements

    yield open_again
    for one in opened:
        one.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker is away only because the machine is busy: nothing is told twice, and none of it is an error."""
    monkeypatch.setattr(nats_connection, "CONNECT_TIMEOUT", NET)
    monkeypatch.setattr(announce_nats, "FLUSH_TIMEOUT", NET)
    monkeypatch.setattr(announce_nats, "CALL_TIMEOUT", 2 * NET)


class Woken:
    """Counts its wake-ups."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def heard_by(announcements: Announcements) -> Woken:
    """Who listens from now on, already woken for what may have been missed before."""
    woken = Woken()
    announcements.listen(woken)
    await_true(lambda: bool(woken.times), "nobody listens")
    return woken


def test_who_listens_is_woken_by_each_who_changed_something(open_one: Callable[..., Announcements]) -> None:
    woken = heard_by(open_one())
    for teller in (open_one(), open_one()):
        for _ in range(3):
            before = woken.times
            teller.announce()
            await_true(lambda before=before: woken.times > before, "an announcement was lost")


@pytest.mark.usefixtures("patient")
def test_many_at_once_become_few_and_the_last_is_heard(
    open_one: Callable[..., Announcements], monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is dropped where it is heard, so that one that was lost is missed.
    monkeypatch.setattr(announce_nats, "PENDING", 1_000_000)
    monkeypatch.setattr(announce_nats, "PENDING_BYTES", 1 << 30)
    woken, teller = heard_by(open_one()), open_one(REDIS_TIMEOUT="60s")
    for _ in range(20_000):
        teller.announce()
    told = teller.counts()["announcements"]
    assert told < 10_000
    # Of what came after the last one that was told by now, something is told.
    teller.announce()
    teller.close()
    assert teller.counts()["announcement_errors"] == 0
    await_true(lambda: woken.times >= teller.counts()["announcements"], "the last ones were lost")


def test_what_was_announced_last_is_told_before_the_end(open_one: Callable[..., Announcements]) -> None:
    woken = heard_by(open_one())
    before = woken.times
    teller = open_one()
    teller.announce()
    teller.close()
    teller.close()
    teller.announce()  # nobody hears it
    await_true(lambda: woken.times > before, "it was lost")


def test_who_changes_nothing_has_no_thread(open_one: Callable[..., Announcements]) -> None:
    before = threading.active_count()
    open_one().close()
    open_one()
    assert threading.active_count() <= before  # some of what was before may end only now


def test_a_broker_that_was_killed_is_found_again_by_both(
    broker: Broker, open_one: Callable[..., Announcements]
) -> None:
    hearer, teller = open_one(), open_one()
    woken = heard_by(hearer)
    teller.announce()
    await_true(lambda: woken.times > 1, "it was lost")
    broker.kill()
    await_true(lambda: not hearer.state()["listening"], "the broken connection was not noticed")
    teller.announce()
    await_true(lambda: bool(teller.state()["error"]), "nobody says that it cannot be told")
    before = woken.times
    broker.start()
    # Once for what may have been missed, and once for what was announced meanwhile: in which order, is open.
    await_true(lambda: woken.times > before, "nobody listens again")
    await_true(lambda: not teller.state()["error"], "it was never told")
    await_true(lambda: hearer.state() == {"listening": True, "error": ""}, "it is not content again")
    for one in (teller, hearer):
        assert one.counts()["announcement_errors"]


def test_a_broker_that_hangs_holds_nobody_up(broker: Broker, open_one: Callable[..., Announcements]) -> None:
    hearer, teller = open_one(), open_one()
    woken = heard_by(hearer)
    broker.halt()
    try:
        for _ in range(1_000):
            teller.announce()
        await_true(lambda: teller.counts()["announcement_errors"] > 1, "it hangs, and nobody says so")
        await_true(lambda: not hearer.state()["listening"], "it hangs, and the listener does not notice")
    finally:
        broker.go_on()
    before = woken.times
    teller.announce()
    await_true(lambda: woken.times > before, "nobody is woken again")
    await_true(lambda: not teller.state()["error"], "it was never told")


def test_what_comes_with_an_announcement_is_not_looked_at(
    broker: Broker, open_one: Callable[..., Announcements]
) -> None:
    woken = heard_by(open_one())
    for content in (b"", b"\xff" * 10_000, b'{"version":99999999999999999999}'):
        before = woken.times
        publish(broker, content)
        await_true(lambda before=before: woken.times > before, "a message was lost")


def publish(broker: Broker, content: bytes) -> None:
    if isinstance(broker, RedisServer):
        words = b"".join(
            b"$%d\r\n%b\r\n" % (len(one), one) for one in (b"PUBLISH", b"accounts.changed", content)
        )
        text = b"*3\r\n" + words
        with socket.create_connection(("127.0.0.1", broker.port)) as connection:
            connection.sendall(text)
            assert connection.recv(100).startswith(b":")
        return
    with subscribed_socket(broker.port, "nothing") as connection:
        connection.sendall(b"PUB accounts.changed %d\r\n%b\r\nPING\r\n" % (len(content), content))
        seen = b""
        while b"PONG\r\n" not in seen:
            seen += connection.recv(100)


def test_wrong_credentials_are_told_without_the_password(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats", "--user", "someone", "--pass", "right") as server:
        config = sqlite_config(tmp_path, **NOWHERE, NATS_URL=f"nats://someone:wrong@127.0.0.1:{server.port}")
        refused(config, "uthorization", but_not="wrong")
    with RedisServer(tmp_path / "redis", "--requirepass", "right") as server:
        config = sqlite_config(tmp_path, **NOWHERE, REDIS_ADDR=server.addr, REDIS_PASSWORD="wrong")
        refused(config, "REDIS_PASSWORD", but_not="wrong ")


@pytest.mark.usefixtures("patient")
def test_a_user_of_nats_who_may_not_is_told(tmp_path: Path) -> None:
    rights = tmp_path / "rights.conf"
    rights.write_text(
        'authorization { users: [ { user: u, password: p, permissions: { publish: ["trades.*"], '
        'subscribe: ["trades.*"] } } ] }'
    )
    with NatsServer(tmp_path / "nats", "-c", str(rights)) as server:
        config = sqlite_config(tmp_path, **NOWHERE, NATS_URL=f"nats://u:p@127.0.0.1:{server.port}")
        refused(config, "ermissions", but_not="u:p")
        channel = NatsChannel(config.messaging.nats)
        with closing(channel):
            for _ in range(100):  # nothing counts as told that is still on its way
                with pytest.raises(BusError, match="ermissions"):
                    channel.publish()


def refused(config: Config, said: str, but_not: str) -> None:
    """Both ends say so, and go on."""
    announcements = open_announcements(config)
    assert announcements is not None
    with closing(announcements):
        woken = Woken()
        announcements.listen(woken)
        await_true(lambda: said in announcements.state()["error"], "nobody says why nothing is heard")
        assert but_not not in announcements.state()["error"]
        announcements.announce()
        await_true(lambda: announcements.state()["error"].count(said) > 1, "nobody says why nothing is told")
        assert but_not not in announcements.state()["error"]
        assert not woken.times


def test_accounts_in_a_file_are_not_announced(tmp_path: Path) -> None:
    assert open_announcements(sqlite_config(tmp_path, NATS_URL="nats://127.0.0.1:1")) is None
    assert open_announcements(sqlite_config(tmp_path, **NOWHERE)) is None


@pytest.mark.usefixtures("patient")
def test_every_change_of_accounts_is_announced(mariadb_config: Config, nats_server: NatsServer) -> None:
    nats = mariadb_config.messaging.nats.model_copy(update={"url": nats_server.url})
    messaging = mariadb_config.messaging.model_copy(update={"nats": nats})
    config = mariadb_config.model_copy(update={"messaging": messaging})
    token = bytes(32)
    with (
        closing(open_accounts(config)) as accounts,
        Listener(nats_server.port, "accounts.changed") as listener,
    ):
        user = accounts.add_user("alice", "hash")
        changes: list[Callable[[], object]] = [
            lambda: accounts.add_user("bob", "hash"),
            lambda: accounts.add_session(Session(token, user.id, "::1", "test", 1, 2**31 - 2, 1)),
            lambda: accounts.watch(user.id, "BTCUSDT"),
            lambda: accounts.unwatch(user.id, "BTCUSDT"),
            lambda: accounts.set_watchlist(user.id, ["ETHUSDT"]),
            lambda: accounts.set_patterns(user.id, ["*USDT"]),
            lambda: accounts.renew(token, 2**31 - 2),
            lambda: accounts.end_session(token),
            lambda: accounts.end_sessions(user.id),
            lambda: accounts.set_password(user.id, "another"),
            lambda: accounts.set_active(user.id, False),
        ]
        await_true(lambda: bool(listener.messages), "the first change was not announced")
        for number, change in enumerate(changes, 2):
            change()
            await_true(
                lambda number=number: len(listener.messages) >= number, f"change {number} was not announced"
            )
        told = len(listener.messages)
        accounts.login_attempt("alice", "::1", 1.0)
        accounts.login_succeeded("alice", "::1")
        accounts.watchlist(user.id)
        accounts.set_active(user.id, True)
        await_true(lambda: len(listener.messages) > told, "a change was not announced")
        assert listener.messages[told:] == [("accounts.changed", b"")], (
            "who fails to log in changes no accounts"
        )
