"""The four services over TLS, with the real servers: who is believed, and who is refused with what sentence."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import private
from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer
from tests.servers.server import RealServer
from tests.servers.tls import Certificates, TlsInflux, TlsMariadb, TlsNats, TlsRedis
from tradeback.config import Config, load_config
from tradeback.errors import BusError, ConfigError, StoreError, TradebackError
from tradeback.model import Price
from tradeback.store.accounts import open_accounts
from tradeback.store.announce_redis import RedisChannel
from tradeback.store.bus_layout import BusPrice
from tradeback.store.bus_nats import NatsBus
from tradeback.store.cache_redis import open_cache
from tradeback.store.database import mysql_database
from tradeback.store.influx import Influx

BTC = Price(42000.5, 42000.25, 42000.75, 812.125, 10**18, 10**18)
Use = Callable[[], None]


@contextlib.contextmanager
def redis_use(config: Config) -> Iterator[Use]:
    cache = open_cache(config)
    assert cache is not None
    channel = RedisChannel(config.cache.redis)

    def use() -> None:
        cache.write_prices({"BTCUSDT": BTC})
        assert cache.price("BTCUSDT") is not None
        channel.publish()

    with contextlib.closing(cache), contextlib.closing(channel):
        yield use


@contextlib.contextmanager
def mysql_use(config: Config) -> Iterator[Use]:
    database = mysql_database(config.database.mysql)

    def use() -> None:
        with database.read() as connection:
            [(_, cipher)] = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").all()
        assert bool(cipher) == config.database.mysql.tls
        open_accounts(config).close()

    with contextlib.closing(database):
        yield use


@contextlib.contextmanager
def influx_use(config: Config) -> Iterator[Use]:
    influx = Influx(config.database.influx)

    def use() -> None:
        influx.write(b"m f=1i 1000000000\n")
        influx.check()

    with contextlib.closing(influx):
        yield use


@contextlib.contextmanager
def nats_use(config: Config) -> Iterator[Use]:
    bus = NatsBus(config.messaging.nats)

    def use() -> None:
        bus.publish_price("BTCUSDT", 3, BusPrice(1.0, 0.9, 1.1, 7, 8))
        bus.flush()

    with contextlib.closing(bus):
        yield use


@dataclass(frozen=True)
class Service:
    """A service, with TLS and without, how it is used, and the settings that say where it is and who is believed."""

    server: type[RealServer]
    plain: type[RealServer]
    use: Callable[[Config], contextlib.AbstractContextManager[Use]]
    address: str
    ca: str
    tells_apart: bool = True  # whether its driver tells another authority from another name


SERVICES = {
    "redis": Service(TlsRedis, RedisServer, redis_use, "REDIS_ADDR", "REDIS_CA_FILE"),
    "mysql": Service(TlsMariadb, MariadbServer, mysql_use, "MYSQL_HOST", "MYSQL_CA_FILE", tells_apart=False),
    "influx": Service(TlsInflux, InfluxServer, influx_use, "INFLUX_URL", "INFLUX_CA_FILE"),
    "nats": Service(TlsNats, NatsServer, nats_use, "NATS_URL", "NATS_CA_FILE"),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=list(SERVICES))
def service(request: pytest.FixtureRequest) -> Service:
    return SERVICES[request.param]


@pytest.fixture(scope="module")
def believed(
    service: Service, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealServer]:
    """One with a certificate of our authority for 127.0.0.1."""
    with private(
        service.server, tmp_path_factory.mktemp("believed") / "server", certificates.of("right")
    ) as server:
        yield server


def config_of(server: RealServer, folder: Path, **settings: str) -> Config:
    environ = {"DATA_DIR": str(folder), "TRADEBACK_EXCHANGE": "sim", **server.environment, **settings}
    return load_config(environ=environ)


def refused(service: Service, config: Config) -> str:
    """The sentence with which it is, twice."""
    with service.use(config) as use:
        for _ in range(2):
            with pytest.raises((StoreError, BusError)) as caught:
                use()
    away(caught.value)
    return str(caught.value)


def away(error: TradebackError) -> None:
    """It is one sentence, tells no password, and counts as the service being away: the programs go on."""
    assert isinstance(error, BusError) or (isinstance(error, StoreError) and error.away)
    said = str(error)
    assert "\n" not in said
    assert MariadbServer.PASSWORD not in said
    assert InfluxServer.TOKEN not in said


def test_it_is_used_with_its_authority(
    service: Service, believed: RealServer, certificates: Certificates, tmp_path: Path
) -> None:
    with service.use(config_of(believed, tmp_path, **{service.ca: str(certificates.authority)})) as use:
        use()


def test_without_a_file_the_authorities_of_the_system_are_believed(
    service: Service,
    believed: RealServer,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = config_of(believed, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.other))
    said = refused(service, config)
    assert "its certificate is of no authority of this system" in said
    assert f"name the file of the one that signed it with {service.ca}" in said
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with service.use(config) as use:
        use()


def test_with_a_file_no_authority_of_the_system_is_believed(
    service: Service,
    believed: RealServer,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    said = refused(service, config_of(believed, tmp_path, **{service.ca: str(certificates.other)}))
    assert f"its certificate is of no authority that {service.ca} names" in said


def test_a_file_that_is_replaced_counts_from_the_next_connection_on(
    service: Service, believed: RealServer, certificates: Certificates, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    shutil.copy(certificates.other, file)
    with service.use(config_of(believed, tmp_path, **{service.ca: str(file)})) as use:
        with pytest.raises((StoreError, BusError), match=f"of no authority that {service.ca} names"):
            use()
        for spoiled, what in (
            ("nothing", "which holds no certificate"),
            (None, r"which cannot be read \(No such"),
        ):
            file.unlink()
            if spoiled is not None:
                file.write_text(spoiled)
            with pytest.raises(
                (StoreError, BusError), match=f"{service.ca} is .*, {what}.*: name the PEM"
            ) as caught:
                use()
            away(caught.value)
        shutil.copy(certificates.authority, file)
        use()


def test_a_certificate_for_another_name_is_refused(
    service: Service, certificates: Certificates, tmp_path: Path
) -> None:
    with private(service.server, tmp_path / "server", certificates.of("wrong")) as server:
        said = refused(service, config_of(server, tmp_path, **{service.ca: str(certificates.authority)}))
    assert f"not for the name in {service.address}" in said


def test_a_certificate_that_has_run_out_is_refused(
    service: Service, certificates: Certificates, tmp_path: Path
) -> None:
    with private(service.server, tmp_path / "server", certificates.of("old")) as server:
        said = refused(service, config_of(server, tmp_path, **{service.ca: str(certificates.authority)}))
    assert "its certificate has run out: give it a new one" in said or not service.tells_apart
    assert "certificate" in said


def test_a_server_without_tls_is_refused(
    service: Service, certificates: Certificates, tmp_path: Path
) -> None:
    settings = {service.ca: str(certificates.authority), "REDIS_TIMEOUT": "1s"}
    with private(service.plain, tmp_path / "server") as server:
        settings |= {"REDIS_TLS": "true", "MYSQL_TLS": "true"}
        for name in ("INFLUX_URL", "NATS_URL"):
            if name in server.environment:
                _, _, rest = server.environment[name].partition("://")
                settings[name] = f"{'https' if name == 'INFLUX_URL' else 'tls'}://{rest}"
        said = refused(service, config_of(server, tmp_path, **settings))
    if service.server is TlsMariadb:
        assert "it has no TLS, which MYSQL_TLS asks for: give the server a certificate" in said
    else:
        assert (
            f"it speaks no TLS there: set TLS up on it, or name the port that has it with {service.address}"
            in said
        )


def test_a_server_that_went_away_is_found_again(
    service: Service, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with private(service.server, tmp_path / "server", certificates.of("right")) as server:
        config = config_of(server, tmp_path, **{service.ca: str(certificates.authority)})
        with service.use(config) as use:
            use()
            server.kill()
            with pytest.raises((StoreError, BusError)) as caught:
                use()
            assert "certificate" not in str(caught.value)
            server.start()
            use()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_mysql_without_the_setting_is_as_before(certificates: Certificates, tmp_path: Path) -> None:
    """By TLS where the server has it, and nothing verified."""
    with private(TlsMariadb, tmp_path / "server", certificates.of("wrong")) as server:
        database = mysql_database(config_of(server, tmp_path, MYSQL_TLS="false").database.mysql)
        with contextlib.closing(database), database.read() as connection:
            [(_, cipher)] = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").all()
        assert cipher


def test_who_takes_tls_out_of_what_nats_says_is_given_nothing(
    certificates: Certificates, tmp_path: Path
) -> None:
    """NATS says in the clear whether it wants TLS."""
    seen = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def say() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(60)
                told = {"server_id": "x", "version": "2.15.0", "max_payload": 1 << 20, "auth_required": True}
                connection.sendall(b"INFO " + json.dumps(told).encode() + b"\r\n")
                seen.extend(connection.recv(4096))
                connection.sendall(b"-ERR 'Unknown Protocol Operation'\r\n")

        thread = threading.Thread(target=say)
        thread.start()
        url = f"tls://someone:hush@127.0.0.1:{port}"
        config = load_config(environ={"NATS_URL": url, "NATS_CA_FILE": str(certificates.authority)})
        with nats_use(config) as use, pytest.raises(BusError, match="it speaks no TLS there"):
            use()
        thread.join()
    assert seen[:1] == b"\x16"  # the handshake begins
    assert b"hush" not in seen


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"REDIS_CA_FILE": "{ca}"},
            "REDIS_CA_FILE is set while TLS is off, and has no effect so: set REDIS_TLS=true",
        ),
        (
            {"MYSQL_CA_FILE": "{ca}"},
            "MYSQL_CA_FILE is set while TLS is off, and has no effect so: set MYSQL_TLS=true",
        ),
        (
            {"INFLUX_URL": "http://h:1", "INFLUX_CA_FILE": "{ca}"},
            "INFLUX_CA_FILE is set while TLS is off, and has no effect so: give an INFLUX_URL with https://",
        ),
        (
            {"NATS_URL": "nats://h:1", "NATS_CA_FILE": "{ca}"},
            "NATS_CA_FILE is set while TLS is off, and has no effect so: give a NATS_URL with tls://",
        ),
        (
            {"REDIS_TLS": "true", "REDIS_CA_FILE": "{folder}/none.pem"},
            "REDIS_CA_FILE is {folder}/none.pem, which cannot be read (No such file or directory): name the PEM file",
        ),
        (
            {"MYSQL_TLS": "true", "MYSQL_CA_FILE": "{folder}/empty"},
            "MYSQL_CA_FILE is {folder}/empty, which holds no certificate: name the PEM file",
        ),
        (
            {"INFLUX_URL": "https://h:1", "INFLUX_CA_FILE": "{folder}/empty"},
            "INFLUX_CA_FILE is {folder}/empty, which holds no certificate",
        ),
        (
            {"NATS_URL": "tls://h:1", "NATS_CA_FILE": "{folder}"},
            "NATS_CA_FILE is {folder}, which",
        ),
        ({"NATS_URL": "tls://h:1,nats://i:1"}, "NATS_URL is 'tls://h:1,nats://i:1': it must be"),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_what_the_configuration_refuses(
    settings: dict[str, str], sentence: str, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    words = {"ca": str(certificates.authority), "folder": str(tmp_path)}
    with pytest.raises(ConfigError) as caught:
        load_config(environ={name: value.format(**words) for name, value in settings.items()})
    assert str(caught.value).startswith(sentence.format(**words))


def test_what_is_not_used_needs_no_tls(certificates: Certificates) -> None:
    """Such as `tradeback export` without INFLUX_URL, where the environment has all else."""
    load_config(environ={"INFLUX_CA_FILE": str(certificates.authority), "NATS_CA_FILE": "/none"})
