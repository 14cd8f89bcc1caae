"""The sections: every setting with its key, its variable, its default and a line that says what it means.

`docs/configuration.md` is printed from here. Durations are float seconds, sizes int bytes, lists tuples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from tradeback.config.files import check_ca_file
from tradeback.config.units import format_duration, format_size
from tradeback.config.values import (
    CaFile,
    ComponentLevels,
    Count,
    Duration,
    HeaderSecret,
    HttpUrl,
    NatsUrl,
    Networks,
    Origins,
    Port,
    Rate,
    Secret,
    Size,
    Span,
    Spin,
    Symbols,
    Text,
    Texts,
    WsUrl,
    allowed_values,
    servers_of,
    setting,
    without_passwords,
)
from tradeback.errors import ConfigError

LONGEST_SESSION = 3650 * 86_400.0  # seconds; a database's TIMESTAMP has an end


class Section(BaseModel):
    """A part of the configuration. `env_prefix` begins the names of its variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    env_prefix: ClassVar[str] = ""

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: object, info: ValidationInfo) -> object:
        """YAML takes yes, no, on and off for true and false: they are not to be taken for 1 and 0 then."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false are no number")
        return value


class CorsConfig(Section):
    """Which web pages may call, besides those served from the same host (which may on any port)."""

    env_prefix: ClassVar[str] = "SERVER_CORS_"
    allowed_origins: Origins = setting((), "origins of pages that may call, by HTTP and by WebSocket")
    allowed_methods: Texts = setting(("GET", "POST", "PUT", "DELETE", "OPTIONS"), "methods that they may use")
    allowed_headers: Texts = setting(("Content-Type", "Authorization"), "headers that they may send")
    expose_headers: Texts = setting(("X-Total-Count",), "headers that they may read")
    allow_credentials: bool = setting(True, "whether they may send cookies; then no origin may be *")

    @model_validator(mode="after")
    def _no_credentials_for_all(self) -> Self:
        if self.allow_credentials and "*" in self.allowed_origins:
            raise ConfigError(
                "server.cors.allowed_origins is * while server.cors.allow_credentials is true: any page "
                "could act for a user who is logged in; name the origins, or set allow_credentials to false"
            )
        return self


class ServerConfig(Section):
    """Addresses of the processes, and the event loop of the event server."""

    env_prefix: ClassVar[str] = "SERVER_"
    host: Text = setting(
        "0.0.0.0", "address to listen on; `tradeback up` takes 127.0.0.1 where none is given"
    )
    port: Port = setting(8080, "port of the REST API")
    ws_port: Port = setting(8081, "port of the WebSocket server", env="WS_PORT")
    workers: Annotated[int, Field(ge=1, le=64)] = setting(
        1, "processes that answer HTTP; more than one needs Redis, which counts requests for all"
    )
    read_timeout: Span = setting(
        "15s",
        "with `write_timeout`, added up: the time from a request's first bytes until its answer is taken",
    )
    write_timeout: Span = setting(
        "15s", "see `read_timeout`: a request that takes longer than both is cut off"
    )
    trusted_proxies: Networks = setting(
        (), "proxies whose X-Forwarded-For is believed; empty: a client's address is its connection's"
    )
    drain: Annotated[Duration, Field(le=5)] = setting(
        "0s",
        "how long the REST interface still answers after SIGTERM, while `/health/ready` says 503, for a balancer that "
        "asks there; at most 5s",
    )
    loop: Literal["epoll", "asyncio", "uvloop"] = setting("epoll", "event loop of the event server")
    spin: Spin = setting("0s", "how long the loop polls before it sleeps; `full`: for ever, it takes a core")
    cors: CorsConfig = CorsConfig()

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port == self.ws_port != 0:
            raise ConfigError(
                f"server.port and server.ws_port are both {self.port}: two processes listen, each on its own"
            )
        return self


class LimitsConfig(Section):
    """How many requests of a kind the REST interface answers a client: a session, or where there is none, an address.

    They are counted in memory; where Redis is configured there, for all processes.
    """

    env_prefix: ClassVar[str] = "LIMIT_"
    auth: Rate = setting("120/minute", "logging in and out, of an address")
    symbols: Rate = setting("1200/minute", "lists of symbols")
    price: Rate = setting("6000/minute", "current prices")
    bars: Rate = setting("3000/minute", "bars")
    enigma: Rate = setting("3000/minute", "Enigma levels")
    marketwatch: Rate = setting("1200/minute", "asking for the session, reading and changing watchlists")
    udf: Rate = setting("6000/minute", "all that TradingView's charting library asks")
    monitoring: Rate = setting(
        "1200/minute", "metrics and detailed health; whether the process lives is not limited"
    )
    page: Rate = setting("3000/minute", "everything else: the page, documents, paths that do not exist")


class WebSocketConfig(Section):
    """Limits of the WebSocket server, each for one client unless said."""

    env_prefix: ClassVar[str] = "WS_"
    anonymous: bool = setting(False, "whether clients without a session are served")
    allowed_origins: Origins = setting(
        (), "origins that may connect; empty: those of `server.cors.allowed_origins`"
    )
    max_clients: Count = setting(10_000, "clients of the server; further ones are answered 503")
    accepts_per_second: Count = setting(500, "handshakes a second of the server; others wait in the backlog")
    handshake_timeout: Span = setting("5s", "time for the upgrade request to arrive")
    max_message_bytes: Size = setting("16KiB", "longest message from a client; closed with 1009 beyond")
    messages_per_second: Count = setting(20, "messages a second; closed with 4429 beyond the burst")
    message_burst: Count = setting(100, "messages that may come at once")
    malformed_limit: Count = setting(5, "malformed messages until it is closed with 4400")
    max_symbols: Annotated[int, Field(ge=1, le=65535)] = setting(1024, "subscriptions")
    ping_interval: Span = setting("30s", "silence after which it is pinged")
    ping_timeout: Span = setting("60s", "silence after which it is dead and aborted")
    blocked_limit: Span = setting("60s", "time without taking data until it is closed with 4408")
    drain: Annotated[Duration, Field(le=10)] = setting(
        "5s", "longest time over which the server's clients are sent away with 1012 when it ends; at most 10s"
    )
    flush_budget: Span = setting("2ms", "longest chunk of a flush, between which the feeds are read")
    high_water: Size = setting(0, "unsent bytes beyond the kernel's at which it counts as blocked")
    notsent_lowat: Size = setting(
        "16KiB", "TCP_NOTSENT_LOWAT: bytes the kernel queues unsent; 0: its default"
    )
    receive_buffer: Size = setting("16KiB", "SO_RCVBUF; 0: the kernel's default")
    read_buffer: Annotated[Size, Field(ge=256)] = setting("2KiB", "first size of the read buffer")

    @model_validator(mode="after")
    def _time_to_answer_a_ping(self) -> Self:
        if self.ping_timeout <= self.ping_interval:
            raise ConfigError(
                f"websocket.ping_timeout is {format_duration(self.ping_timeout)} and websocket.ping_interval "
                f"{format_duration(self.ping_interval)}: the timeout must be longer, or no pong comes in time"
            )
        return self


class SessionConfig(Section):
    """Logins (docs/rest.md)."""

    env_prefix: ClassVar[str] = "SESSION_"
    secret: Secret = setting(
        "", "signs the tokens, 32 characters or more; empty: the first start makes one in the data folder"
    )
    lifetime: Span = setting("30d", "age at which a session ends, used or not")
    idle: Span = setting("7d", "time without use after which a session ends")
    renewal: Span = setting("5m", "least time between two notes that a session is used")
    cookie_secure: bool = setting(
        True, "whether browsers send the cookie by HTTPS only; false for plain HTTP on loopback"
    )

    @model_validator(mode="after")
    def _noted_before_it_ends(self) -> Self:
        for name, seconds in (("lifetime", self.lifetime), ("idle", self.idle)):
            if not 1 <= seconds <= LONGEST_SESSION:
                raise ConfigError(
                    f"session.{name} is {format_duration(seconds)}: give 1s to {format_duration(LONGEST_SESSION)}"
                )
        if self.renewal >= self.idle:
            raise ConfigError(
                f"session.renewal is {format_duration(self.renewal)} and session.idle {format_duration(self.idle)}: "
                "the first must be shorter, or a session that is in use ends"
            )
        return self


class ExchangeConfig(Section):
    """Where market data comes from."""

    env_prefix: ClassVar[str] = "EXCHANGE_"
    name: Literal["auto", "binance", "sim"] = setting(
        "auto",
        "`auto`: binance where it can be reached, else the simulated exchange",
        env="TRADEBACK_EXCHANGE",
    )
    ws_endpoint: WsUrl = setting("", "base of the WebSocket streams; empty: the exchange's own")
    rest_endpoint: HttpUrl = setting("", "base of the REST interface; empty: the exchange's own")
    max_connections: Annotated[int, Field(ge=3, le=100)] = setting(
        3,
        "connections that symbols are spread over, a third of them for each type of stream; more are opened where "
        "these have too many streams",
    )
    streams_per_connection: Annotated[int, Field(ge=1, le=1024)] = setting(1024, "streams a connection")
    messages_per_second: Annotated[int, Field(ge=1, le=5)] = setting(4, "messages a second to the exchange")
    reconnect_interval: Span = setting(
        "5s", "first wait before trying again, doubled up to 60 s; at once where data came"
    )
    ping_interval: Span = setting(
        "30s", "silence after which the exchange is pinged; at most half of mute_limit"
    )
    mute_limit: Span = setting("30s", "silence after which a connection is given up and made anew")
    connection_age: Span = setting("23h", "age at which a connection is replaced; the exchange cuts at 24 h")
    linger: Duration = setting("60s", "how long a symbol is carried after its last client left")
    symbols: Symbols = setting((), "symbols that are carried always")


class JournalConfig(Section):
    """The append-only log of trades."""

    env_prefix: ClassVar[str] = "JOURNAL_"
    segment_bytes: Annotated[Size, Field(ge=64 << 10)] = setting("64MiB", "size of one segment file")
    retention_bytes: Annotated[Size, Field(ge=128 << 10)] = setting(
        "2GiB", "all segments together; the oldest go first"
    )

    @model_validator(mode="after")
    def _room_for_two_segments(self) -> Self:
        if self.retention_bytes < 2 * self.segment_bytes:
            raise ConfigError(
                f"journal.retention_bytes is {format_size(self.retention_bytes)}: it must hold two "
                f"segments of {format_size(self.segment_bytes)}, the one being written and the next"
            )
        return self


class DataConfig(Section):
    """The data folder; each exchange has a folder of its own in it, so that data never mix."""

    env_prefix: ClassVar[str] = "DATA_"
    folder: Path = setting(Path("data"), "where everything is kept", env="DATA_DIR")

    def of(self, exchange: str) -> Path:
        """The folder of one exchange (`binance`, `sim`), with its journal, table, catalog and so on."""
        return self.folder / exchange


class ResourcesConfig(Section):
    """What a process may take of the machine, and when it says that there is little left (docs/operations.md)."""

    env_prefix: ClassVar[str] = "RESOURCES_"
    memory: Size = setting(
        0,
        "bytes that a process may grow to, without pages of files; close to it the server lets no further client in; "
        "0: what its container or `ulimit -v` allows",
    )
    disk_free: Size = setting("512MiB", "room on the disk of the data folder below which it is told")


class HistoryConfig(Section):
    """Ticks, bars and Enigma levels, and how long they are kept; age 0 keeps them for ever."""

    env_prefix: ClassVar[str] = "HISTORY_"
    keep_ticks: Duration = setting("7d", "age at which ticks are deleted")
    keep_1m: Duration = setting("90d", "age at which 1m bars are deleted, by whole UTC days")
    keep_5m: Duration = setting("0s", "age at which 5m bars are deleted")
    keep_15m: Duration = setting("0s", "age at which 15m bars are deleted")
    keep_1h: Duration = setting("0s", "age at which 1h bars are deleted")
    keep_4h: Duration = setting("0s", "age at which 4h bars are deleted")
    keep_1d: Duration = setting("0s", "age at which 1d bars are deleted")
    keep_enigma: Duration = setting("7d", "age at which Enigma levels are deleted")

    @model_validator(mode="after")
    def _minutes_of_two_days(self) -> Self:
        if 0 < self.keep_1m < 2 * 86_400:
            raise ConfigError(
                f"history.keep_1m is {format_duration(self.keep_1m)}: coarser bars are made of the 1m bars of "
                "their day, give at least 2d, or 0 to keep them"
            )
        return self


class RecorderConfig(Section):
    """The recorder: what it fetches from the exchange."""

    env_prefix: ClassVar[str] = "RECORDER_"
    batch_window: Span = setting("40ms", "how long ticks are gathered before they are written together")
    quote_window: Span = setting("100ms", "how often quotes are taken from the table for the cache")
    catalog_refresh: Span = setting("1h", "how often the exchange is asked for new and changed symbols")
    backfill_age: Duration = setting("1d", "how old a missed trade may be to be fetched; 0: none is fetched")
    history_days: Annotated[int, Field(ge=0, le=3650)] = setting(
        30, "days of bars that are fetched for a new symbol; 0: those of its first day"
    )
    end_limit: Annotated[Span, Field(le=15)] = setting(
        "15s", "longest time for its end, stores that hang included; at most 15s"
    )
    weight_share: Annotated[float, Field(gt=0, le=1)] = setting(
        0.5, "share of the exchange's request weight that fetching may take"
    )


class FeaturesConfig(Section):
    """What can be switched off."""

    env_prefix: ClassVar[str] = "FEATURE_"
    binary_websocket: bool = setting(True, "false: prices go out as JSON text instead of binary frames")
    aggregation_enabled: bool = setting(True, "false: no bars are built or served")
    enigma_enabled: bool = setting(True, "false: no Enigma levels are computed or served")


class LogConfig(Section):
    """What is logged, and how."""

    env_prefix: ClassVar[str] = "LOG_"
    level: Literal["debug", "info", "warning", "error"] = setting("info", "least level that is logged")
    levels: ComponentLevels = setting(
        (),
        "the level of some components, such as server.feed=debug,store=error: the longest name that fits counts",
    )
    performance: Duration = setting(
        "1m", "how often each process logs what it did since the last time; 0s: never"
    )
    format: Literal["auto", "console", "json"] = setting("auto", "`auto`: console on a terminal, else JSON")


class MysqlConfig(Section):
    """MySQL 8 or MariaDB (docs/mysql.md): symbols, users, sessions and watchlists, in place of the SQLite file of the
    data folder."""

    env_prefix: ClassVar[str] = "MYSQL_"
    host: Text = setting("", "empty: no MySQL")
    port: Port = setting(3306, "its port")
    database: Text = setting("trading", "name of the database, which is that of one exchange")
    user: Text = setting("trading", "name of the user")
    password: Secret = setting("", "password of the user")
    tls: bool = setting(
        False,
        "true: by TLS alone, to a server whose certificate is of an authority of `ca_file` and for the name in `host`; "
        "false: by TLS where the server has it, and nothing is verified",
    )
    ca_file: CaFile = setting("", "file of the authorities for `tls`; empty: those of the system")
    max_open_conns: Count = setting(
        25, "most connections of a process to the symbols, and as many to the accounts"
    )
    max_idle_conns: Count = setting(10, "as many of them are kept open while idle")
    conn_max_lifetime: Span = setting("5m", "age at which a connection is replaced")
    timeout: Span = setting(
        "5s", "longest time for connecting, for one statement, and for a connection of our own; at least 2s"
    )
    accounts_poll: Span = setting(
        "5s", "how often the recorder looks for changed accounts that were not announced; at most 5s"
    )

    @model_validator(mode="after")
    def _times_that_can_work(self) -> Self:
        if self.timeout < 2:
            raise ConfigError(f"database.mysql.timeout is {format_duration(self.timeout)}: give at least 2s")
        if self.accounts_poll > 5:
            raise ConfigError(
                f"database.mysql.accounts_poll is {format_duration(self.accounts_poll)}: give at most 5s, for who has "
                "just logged in waits for it where nothing announces logins"
            )
        check_ca_file("MYSQL_CA_FILE", self.ca_file, "" if self.tls else "set MYSQL_TLS=true")
        return self


class InfluxConfig(Section):
    """InfluxDB 2.7: ticks, bars and Enigma levels, in place of the SQLite file of the data folder."""

    env_prefix: ClassVar[str] = "INFLUX_"
    url: HttpUrl = setting(
        "", "empty: no InfluxDB; with https:// the server's certificate and its name are verified"
    )
    ca_file: CaFile = setting("", "file of the authorities for https://; empty: those of the system")
    token: HeaderSecret = setting("", "access token")
    org: Text = setting("trading-org", "organisation")
    bucket: Text = setting("trading", "bucket")
    timeout: Span = setting("5s", "longest time for one request")
    batch_points: Count = setting(
        100, "least trades in a request, unless the first has waited for batch_time"
    )
    batch_time: Span = setting("100ms", "longest time that a trade waits for others to be written with")

    @model_validator(mode="after")
    def _authorities(self) -> Self:
        if self.url:
            tls = self.url.startswith("https://")
            check_ca_file("INFLUX_CA_FILE", self.ca_file, "" if tls else "give an INFLUX_URL with https://")
        return self


class DatabaseConfig(Section):
    """Databases of other machines."""

    mysql: MysqlConfig = MysqlConfig()
    influx: InfluxConfig = InfluxConfig()


class RedisConfig(Section):
    """Redis: current prices, levels and logins for programs of other machines. The recorder writes them."""

    env_prefix: ClassVar[str] = "REDIS_"
    addr: Text = setting("", "host:port; empty: no Redis")
    username: Text = setting("", "user of its ACL; empty: its default user")
    password: Secret = setting("", "password")
    tls: bool = setting(
        False,
        "true: by TLS, to a server whose certificate is of an authority of `ca_file` and for the name in `addr`",
    )
    ca_file: CaFile = setting("", "file of the authorities for `tls`; empty: those of the system")
    db: Annotated[int, Field(ge=0)] = setting(0, "number of the database")
    pool_size: Count = setting(10, "most connections")
    min_idle_conns: Annotated[int, Field(ge=0)] = setting(
        5, "accepted, without effect: a connection is made when it is needed, and kept"
    )
    timeout: Span = setting("1s", "longest time for connecting, and for one answer")
    price_ttl: Span = setting("1m", "how long a price stays after the recorder wrote it last; at least 1s")
    bars_ttl: Span = setting("1m", "how long bars that were asked for stay; at least 1s")
    session_ttl: Span = setting(
        "1m",
        "how long logins and their watchlists stay after the recorder last knew them to hold; at least 10s",
    )
    stream_length: Count = setting(10_000, "about how many price updates the stream keeps")

    @model_validator(mode="after")
    def _host_and_port(self) -> Self:
        host, colon, port = self.addr.rpartition(":")
        plain = host and colon and not set("/@ ") & set(host)
        if self.addr and not (plain and port.isdecimal() and 0 < int(port) <= 65535):
            shown = without_passwords(repr(self.addr))
            raise ConfigError(f"cache.redis.addr is {shown}: give host:port, such as localhost:6379")
        for name, seconds in (("price_ttl", self.price_ttl), ("bars_ttl", self.bars_ttl)):
            if seconds < 1:
                raise ConfigError(f"cache.redis.{name} is {format_duration(seconds)}: give at least 1s")
        if self.session_ttl < 10:
            shown = format_duration(self.session_ttl)
            raise ConfigError(f"cache.redis.session_ttl is {shown}: give at least 10s")
        check_ca_file("REDIS_CA_FILE", self.ca_file, "" if self.tls else "set REDIS_TLS=true")
        return self


class CacheConfig(Section):
    """Caches of other machines."""

    redis: RedisConfig = RedisConfig()


class NatsConfig(Section):
    """The message bus on NATS (docs/bus.md)."""

    env_prefix: ClassVar[str] = "NATS_"
    url: NatsUrl = setting(
        "",
        "address of the server, or of each of a cluster, with user:password@ where it asks for them; with tls:// its "
        "certificate and its name are verified; empty: no bus",
    )
    ca_file: CaFile = setting("", "file of the authorities for tls://; empty: those of the system")
    client_name: Text = setting("trade-back", "name that is told to the server")
    jetstream: bool = setting(False, "true: NATS keeps the trades in a stream, for readers who come later")
    stream: Text = setting(
        "trades", "name of that stream, which is made where there is none; without . * > or spaces"
    )
    stream_age: Span = setting("24h", "how long the stream keeps a trade; at least 1s")
    stream_bytes: Size = setting("1GiB", "how much the stream keeps, the newest; at least 1MiB")
    cluster_id: Text = setting(
        "trading-cluster",
        "accepted, without effect: NATS Streaming asked for it, and NATS Server knows no such name",
    )

    @model_validator(mode="after")
    def _stream_that_can_be(self) -> Self:
        if not self.stream or set(self.stream) & set(".*>/\\ "):
            raise ConfigError(
                f"messaging.nats.stream is {self.stream!r}: give a name without . * > / \\ and spaces"
            )
        if self.stream_age < 1:
            raise ConfigError(
                f"messaging.nats.stream_age is {format_duration(self.stream_age)}: give at least 1s"
            )
        if self.stream_bytes < 1024 * 1024:
            raise ConfigError(f"messaging.nats.stream_bytes is {self.stream_bytes}: give at least 1MiB")
        if self.url:
            tls = self.url.startswith("tls://")
            check_ca_file("NATS_CA_FILE", self.ca_file, "" if tls else "give a NATS_URL with tls://")
        return self

    def servers(self) -> list[str]:
        """The address of each server of the cluster, credentials included."""
        return servers_of(self.url)

    @staticmethod
    def credentials(server: str) -> tuple[str | None, str | None, str | None]:
        """User, password and token as an address has them, decoded; a name without a password is a token."""
        parts = urlsplit(server)
        if parts.username is None:
            return None, None, None
        user = unquote(parts.username)
        return (None, None, user) if parts.password is None else (user, unquote(parts.password), None)


class MessagingConfig(Section):
    """Message brokers."""

    nats: NatsConfig = NatsConfig()


class Config(Section):
    """All sections. `load_config` makes one; `Config()` is the defaults alone."""

    server: ServerConfig = ServerConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    exchange: ExchangeConfig = ExchangeConfig()
    session: SessionConfig = SessionConfig()
    limits: LimitsConfig = LimitsConfig()
    journal: JournalConfig = JournalConfig()
    history: HistoryConfig = HistoryConfig()
    recorder: RecorderConfig = RecorderConfig()
    data: DataConfig = DataConfig()
    resources: ResourcesConfig = ResourcesConfig()
    features: FeaturesConfig = FeaturesConfig()
    log: LogConfig = LogConfig()
    database: DatabaseConfig = DatabaseConfig()
    cache: CacheConfig = CacheConfig()
    messaging: MessagingConfig = MessagingConfig()

    @model_validator(mode="after")
    def _counted_for_all_workers(self) -> Self:
        if self.server.workers > 1 and not self.cache.redis.addr:
            raise ConfigError(
                f"server.workers is {self.server.workers} and cache.redis.addr is empty: each worker would count the "
                "requests of a client for itself, and its limits would not hold; name a Redis (REDIS_ADDR), or leave "
                "it at 1, which has threads"
            )
        return self

    def with_exchange(self, name: Literal["binance", "sim"]) -> Config:
        """The same for the exchange that was decided on where `exchange.name` is `auto`."""
        return self.model_copy(update={"exchange": self.exchange.model_copy(update={"name": name})})

    def folders(self) -> list[Path]:
        """The exchange's folder in the data folder; of one that is left to `auto`, those that it may be."""
        auto = self.exchange.name == "auto"
        return [self.data.of(one) for one in (("binance", "sim") if auto else (self.exchange.name,))]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its key in the YAML file, its variable, its section and its field."""

    key: str
    env: str
    section: type[Section]
    field: FieldInfo

    @property
    def is_secret(self) -> bool:
        return self.field.annotation is SecretStr

    @property
    def allowed(self) -> str:
        """The values that it may have, in words."""
        return allowed_values(self.field)


def settings(section: type[Section] = Config, prefix: str = "") -> Iterator[Setting]:
    """Every setting, in the order of the code."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            extra = field.json_schema_extra
            env = extra["env"] if isinstance(extra, dict) else section.env_prefix + name.upper()
            yield Setting(f"{prefix}{name}", str(env), section, field)
