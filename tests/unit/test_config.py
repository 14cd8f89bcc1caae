"""What a user may write, what it becomes, and the sentence for what may not be written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as settings_of_run
from hypothesis import strategies as st

from tests.conftest import CHECKOUT
from tradeback.cli import main
from tradeback.config import Config, load_config, notices, settings
from tradeback.errors import ConfigError

# config.yaml and the environment as the architecture's specification prints them.
SPECIFIED_YAML = """
server:
  host: 0.0.0.0
  port: 8080
  cors:
    allowed_origins: ["http://localhost:5173"]
    allowed_methods: ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
    allowed_headers: ["Content-Type", "Authorization"]
    expose_headers: ["X-Total-Count"]
    allow_credentials: true
database:
  mysql:
    host: localhost
    port: 3306
    database: trading
    max_open_conns: 25
    max_idle_conns: 10
    conn_max_lifetime: 5m
  influx:
    url: http://localhost:8086
    org: trading-org
    bucket: trading
    timeout: 5s
cache:
  redis:
    addr: localhost:6379
    pool_size: 10
    min_idle_conns: 5
messaging:
  nats:
    url: nats://localhost:4222
    client_name: trade-back
    cluster_id: trading-cluster
exchange:
  ws_endpoint: wss://stream.binance.com:9443
  rest_endpoint: https://api.binance.com
  max_connections: 3
  reconnect_interval: 5s
  ping_interval: 30s
"""
SPECIFIED_ENVIRONMENT = {
    "SERVER_HOST": "0.0.0.0",
    "SERVER_PORT": "8080",
    "SERVER_READ_TIMEOUT": "15s",
    "SERVER_WRITE_TIMEOUT": "15s",
    "MYSQL_HOST": "localhost",
    "MYSQL_PORT": "3306",
    "MYSQL_DATABASE": "trading",
    "MYSQL_USER": "trading",
    "MYSQL_PASSWORD": "secret",
    "INFLUX_URL": "http://localhost:8086",
    "INFLUX_TOKEN": "my-super-secret-auth-token",
    "INFLUX_ORG": "trading-org",
    "INFLUX_BUCKET": "trading",
    "REDIS_ADDR": "localhost:6379",
    "REDIS_PASSWORD": "",
    "REDIS_DB": "0",
    "NATS_URL": "nats://localhost:4222",
    "EXCHANGE_WS_ENDPOINT": "wss://stream.binance.com:9443",
    "EXCHANGE_REST_ENDPOINT": "https://api.binance.com",
    "EXCHANGE_MAX_CONNECTIONS": "3",
    "FEATURE_ENIGMA_ENABLED": "true",
    "FEATURE_AGGREGATION_ENABLED": "true",
    "FEATURE_BINARY_WEBSOCKET": "true",
}


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def refused(**sources: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(**{"environ": {}, **sources})
    return str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    assert load_config(environ={}) == Config()


def test_the_specified_file_and_environment_load(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SPECIFIED_YAML), environ=SPECIFIED_ENVIRONMENT)
    assert config.server.cors.allowed_origins == ("http://localhost:5173",)
    assert config.database.mysql.conn_max_lifetime == 300.0
    assert config.database.mysql.password.get_secret_value() == "secret"
    assert config.exchange.reconnect_interval == 5.0
    assert notices(config, {}) == []


def test_each_source_wins_over_those_below_it(tmp_path: Path) -> None:
    path = write(tmp_path, "server: {port: 2, host: file, loop: asyncio}")
    config = load_config(
        environ={"CONFIG_PATH": str(path), "SERVER_PORT": "3", "SERVER_LOOP": "uvloop"},
        flags={"server.port": 4, "server.spin": None},
        defaults={"server.port": 1, "server.host": "default", "server.ws_port": 9},
    )
    server = config.server
    assert (server.port, server.loop, server.host, server.ws_port) == (4, "uvloop", "file", 9)


def test_sections_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().server.port = 1


def test_lists_take_commas_in_the_environment() -> None:
    config = load_config(
        environ={"EXCHANGE_SYMBOLS": "btcusdt, ETHUSDT,", "WS_ALLOWED_ORIGINS": "https://a.b"}
    )
    assert config.exchange.symbols == ("BTCUSDT", "ETHUSDT")
    assert config.websocket.allowed_origins == ("https://a.b",)


def test_origins_of_cors_hold_for_websockets_that_have_none_of_their_own() -> None:
    config = load_config(environ={"SERVER_CORS_ALLOWED_ORIGINS": "https://a.b"})
    assert config.websocket.allowed_origins == ("https://a.b",)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SERVER_PORT": "abc"}, "SERVER_PORT is 'abc': it must be a whole number from 0 to 65535"),
        ({"WS_MAX_CLIENTS": "0"}, "WS_MAX_CLIENTS is '0': it must be a whole number, at least 1"),
        ({"SERVER_LOOP": "trio"}, "SERVER_LOOP is 'trio': it must be epoll, asyncio or uvloop"),
        ({"FEATURE_ENIGMA_ENABLED": "maybe"}, "FEATURE_ENIGMA_ENABLED is 'maybe': it must be true or false"),
        (
            {"WS_BLOCKED_LIMIT": "1 minute"},
            "WS_BLOCKED_LIMIT is '1 minute': it must be a duration such as 250ms, 15s, 5m or 24h, above 0",
        ),
        (
            {"JOURNAL_SEGMENT_BYTES": "1KiB"},
            "JOURNAL_SEGMENT_BYTES is '1KiB': it must be a size such as 16384, 64KiB or 2GiB, at least 64KiB",
        ),
        (
            {"EXCHANGE_SYMBOLS": "BTCUSDT,BTC USDT"},
            "EXCHANGE_SYMBOLS is 'BTC USDT': it must be a list of symbols such as BTCUSDT,ETHUSDT",
        ),
        (
            {"EXCHANGE_WS_ENDPOINT": "http://x"},
            "EXCHANGE_WS_ENDPOINT is 'http://x': it must be a URL that begins with ws:// or wss://",
        ),
        ({"WS_PORT": "8080"}, "server.port and server.ws_port are both 8080"),
        ({"WS_PING_TIMEOUT": "30s"}, "websocket.ping_timeout is 30s and websocket.ping_interval 30s"),
        ({"JOURNAL_RETENTION_BYTES": "64MiB"}, "journal.retention_bytes is 64MiB: it must hold two segments"),
        ({"SERVER_CORS_ALLOWED_ORIGINS": "*"}, "server.cors.allowed_origins is * while"),
        ({"SESSION_RENEWAL": "7d"}, "session.renewal is 7d and session.idle 7d: the first must be shorter"),
        ({"SESSION_IDLE": "4000d"}, "session.idle is 4000d: give 1s to 3650d"),
        ({"SESSION_LIFETIME": "500ms"}, "session.lifetime is 500ms: give 1s to 3650d"),
        (
            {"SERVER_TRUSTED_PROXIES": "10.0.0.1/8"},
            "SERVER_TRUSTED_PROXIES is '10.0.0.1/8': it must be a list of addresses and networks",
        ),
        ({"WS_ALLOWED_ORIGINS": "*"}, "websocket.allowed_origins is * while"),
        ({"CONFIG_PATH": "/nowhere.yaml"}, "The configuration file /nowhere.yaml cannot be read"),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence(environ: dict[str, str], sentence: str) -> None:
    message = refused(environ=environ)
    assert message.startswith(sentence)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("server: {prot: 1}", "server.prot in {path} is no setting: did you mean server.port?"),
        ("nonsense: 1", "nonsense in {path} is no setting: known are server, websocket, exchange"),
        ("server: 5", "server in {path} is 5: it must be a section with host, port, ws_port"),
        (
            "server: {port: 70000}",
            "server.port in {path} is 70000: it must be a whole number from 0 to 65535",
        ),
        ("- server", "The configuration file {path} must hold sections"),
        ("server: {", "The configuration file {path} is no YAML"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, text)
    message = refused(path=path)
    assert message.startswith(sentence.replace("{path}", str(path)))
    assert "\n" not in message


def test_a_bad_flag_is_named_as_a_flag() -> None:
    assert refused(flags={"exchange.name": "nyse"}) == (
        "exchange.name on the command line is 'nyse': it must be auto, binance or sim"
    )


def test_a_star_is_allowed_without_credentials() -> None:
    open_to_all = {"SERVER_CORS_ALLOWED_ORIGINS": "*", "SERVER_CORS_ALLOW_CREDENTIALS": "no"}
    assert load_config(environ=open_to_all).websocket.allowed_origins == ("*",)


def test_an_empty_section_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "server:\n  # port: 1\n"), environ={}) == Config()


class TestSecrets:
    def test_are_never_printed(self, tmp_path: Path) -> None:
        config = load_config(environ={"INFLUX_TOKEN": "hush"})
        assert "hush" not in repr(config) + str(config) + config.model_dump_json()
        path = write(tmp_path, "database: {mysql: {password: [hush]}}")
        assert "hush" not in refused(path=path)

    def test_have_one_source(self) -> None:
        message = refused(environ={"MYSQL_PASSWORD": "a", "MYSQL_PASSWORD_FILE": "b"})
        assert message.startswith("MYSQL_PASSWORD and MYSQL_PASSWORD_FILE are both set")


def test_a_misspelled_variable_is_noticed() -> None:
    assert notices(Config(), {"SERVER_PROT": "1", "SERVER_SOFTWARE": "x", "HOME": "/"}) == [
        "The variable SERVER_PROT is no setting and has no effect: did you mean SERVER_PORT?"
    ]


def test_every_setting_has_a_doc_line_and_a_variable_of_its_own() -> None:
    every = list(settings())
    assert all(one.field.description and one.allowed for one in every)
    assert len({one.env for one in every}) == len({one.key for one in every}) == len(every)


def test_every_setting_is_read_somewhere_or_is_said_to_have_no_effect() -> None:
    package = CHECKOUT / "tradeback"
    code = "\n".join(
        path.read_text()
        for path in sorted(package.rglob("*.py*"))
        if path.suffix in {".py", ".pyx"} and path.parent != package / "config"
    )
    by_name = ("limits.", "history.")  # which are read by the name of a route or of what is kept
    unread = {
        one.key
        for one in settings()
        if not re.search(rf"\.{one.key.rpartition('.')[2]}\b", code) and not one.key.startswith(by_name)
    }
    assert unread == {one.key for one in settings() if "without effect" in str(one.field.description)}


DURATIONS = st.integers(1, 10**15).map(lambda ns: ns / 1e9)
ANY_CONFIG = st.fixed_dictionaries(
    {
        "server": st.fixed_dictionaries(
            {
                "port": st.integers(1, 30_000),
                "ws_port": st.integers(30_001, 65_535),
                "read_timeout": DURATIONS,
            }
        ),
        "websocket": st.fixed_dictionaries(
            {"blocked_limit": DURATIONS, "high_water": st.integers(0, 2**40), "anonymous": st.booleans()}
        ),
        "exchange": st.fixed_dictionaries(
            {
                "name": st.sampled_from(["auto", "binance", "sim"]),
                "linger": st.one_of(st.just(0.0), DURATIONS),
                "symbols": st.lists(st.from_regex(r"[A-Z0-9]{1,50}", fullmatch=True)),
            }
        ),
    }
)


@settings_of_run(deadline=None)
@given(values=ANY_CONFIG)
def test_what_is_printed_loads_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    config = Config.model_validate(values)
    path = write(tmp_path_factory.getbasetemp(), yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(path, environ={}) == config


@settings_of_run(deadline=None)
@given(values=ANY_CONFIG)
def test_the_environment_says_the_same_as_the_file(values: dict[str, object]) -> None:
    config = Config.model_validate(values)
    dumped = config.model_dump(mode="json")
    environ = {}
    for one in settings():
        value = dumped
        for place in one.key.split("."):
            value = value[place]
        environ[one.env] = ",".join(value) if isinstance(value, list) else str(value)
    assert load_config(environ=environ) == config


def test_passwords_in_addresses_are_not_printed() -> None:
    address = "nats://trader:hunter2@bus.example:4222"
    printed = CliRunner().invoke(main, ["config", "print"], env={"NATS_URL": address}).output
    assert "nats://trader:***@bus.example:4222" in printed
    refused = CliRunner().invoke(main, ["config", "print"], env={"NATS_URL": f"x{address}"}).output
    assert "trader:***@" in refused
    assert "hunter2" not in printed + refused
