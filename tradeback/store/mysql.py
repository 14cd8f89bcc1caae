"""MySQL 8 and MariaDB: how they are reached, and what their errors mean to the person who can mend the cause.

No SQL here or in `migrations/` is that of one of the two alone. Names are `utf8mb4_bin`: case-sensitive, and known to
both. Every session is in UTC, strict, and at REPEATABLE READ, whatever the server's own defaults are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft
from sqlalchemy.pool import NullPool, QueuePool

from tradeback.config.sections import MysqlConfig
from tradeback.errors import CatalogError
from tradeback.store.tls import Trust

CHARSET, COLLATION = "utf8mb4", "utf8mb4_bin"
# What a table is made with; SQLite passes them over.
TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": CHARSET,
    "mysql_collate": COLLATION,
}
MIGRATION_TIMEOUT_S = 600.0  # for one statement of a migration, which may rebuild a table
MIGRATION_PATIENCE_S = 60  # how long one waits for the transactions of others
LAST_MOMENT = 2**31 - 1  # of a TIMESTAMP, unix seconds

_AWAY = "it cannot be reached: see that it runs, and what MYSQL_HOST and MYSQL_PORT name"
_SLOW = "it does not answer in time (MYSQL_TIMEOUT), or has closed the connection: see that it runs well"
_REFUSED = (
    "it refuses the user: see MYSQL_USER and MYSQL_PASSWORD, and that the user may come from this machine"
)
_RIGHTS = "the user lacks a right: GRANT ALL on the database to MYSQL_USER; migrations take CREATE, ALTER, DROP, INDEX"
_BUSY = "it has no connection left: raise its max_connections, or lower MYSQL_MAX_OPEN_CONNS"
_FULL = "its disk is full: make room on it"
_LOCKED = "another transaction keeps it locked: end that one, or try again"
_READ_ONLY = "it is read-only: name the server that takes writes with MYSQL_HOST"
_TABLES = (
    "its tables are not those of its version: see `tradeback migrate status`, or restore it from a backup"
)
_STARTING = "it starts or stops: try again"
# The driver tells no more apart than these, by its text alone.
_NO_TLS = 2026
_NOT_BELIEVED, _NO_AUTHORITIES, _PLAIN = "verify", "verify_paths", "doesn't support it"

_REMEDIES = {
    **dict.fromkeys((2002, 2003, 2005, 2009, 1042), _AWAY),
    **dict.fromkeys((2006, 2013, 2014, 2026, 2045, 2048, 2055, 1927, 3169, 4031), _SLOW),
    **dict.fromkeys((1045, 1130, 1129, 1251, 1698, 1820, 1862, 1524, 2054, 2059, 2061, 3118, 3955), _REFUSED),
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370), _RIGHTS),
    1049: "there is no such database: make it with CREATE DATABASE, or name another with MYSQL_DATABASE",
    **dict.fromkeys((1040, 1203, 1226), _BUSY),
    **dict.fromkeys((1021, 1114, 1041), _FULL),
    **dict.fromkeys((1205, 3572, 1907), _LOCKED),
    **dict.fromkeys((1290, 1792, 1836, 3989), _READ_ONLY),
    **dict.fromkeys((1054, 1146, 1932), _TABLES),
    **dict.fromkeys((1053, 1317, 3032), _STARTING),
}
_OUR_FAULTS = {"IntegrityError", "ProgrammingError", "DataError", "NotSupportedError"}
_UNDONE = {1213, 1020, 1180, 1179}  # deadlock; the row changed meanwhile; certification failed in a cluster


class TransactionUndone(CatalogError):
    """The database undid a transaction in favour of another one: the same may be begun again."""


def place_of(config: MysqlConfig) -> str:
    """What the database is called in messages."""
    return f"{config.database} at {config.host}:{config.port}"


def trust_of(config: MysqlConfig) -> Trust | None:
    """Whom the configured database is believed by; None where nothing is verified."""
    return Trust(config.ca_file, "MYSQL_CA_FILE", "MYSQL_HOST") if config.tls else None


def mysql_engine(config: MysqlConfig, *, migrating: bool = False) -> Engine:
    """An engine with a pool of its own; `migrating`: one without, whose statements may take long."""
    seconds = math.ceil(MIGRATION_TIMEOUT_S if migrating else config.timeout)
    kept = min(config.max_idle_conns, config.max_open_conns)
    pool: dict[str, Any] = {"poolclass": NullPool}
    if not migrating:
        pool = {
            "poolclass": QueuePool,
            "pool_size": kept,
            "max_overflow": config.max_open_conns - kept,
            "pool_recycle": max(1, round(config.conn_max_lifetime)),
            "pool_timeout": config.timeout,
            "pool_pre_ping": True,  # a connection that the server has closed meanwhile is made anew
        }
    trust = trust_of(config)
    verified: dict[str, Any] = {}
    if trust is not None:
        # The driver's own OpenSSL does not know where the system has its authorities. Without any it connects nowhere.
        verified = {"ssl_ca": trust.file(), "ssl_verify_cert": True, "ssl_verify_identity": True}
    engine = create_engine(
        URL.create(
            "mysql+mysqlconnector",
            username=config.user,
            password=config.password.get_secret_value() or None,
            host=config.host,
            port=config.port,
            database=config.database,
        ),
        connect_args={
            "use_pure": False,  # it fails where there is no C extension; by default the slow one takes over
            "charset": CHARSET,
            "collation": COLLATION,
            "connection_timeout": math.ceil(config.timeout),
            "read_timeout": seconds,
            "write_timeout": seconds,
            **verified,
        },
        isolation_level="REPEATABLE READ",
        **pool,
    )
    patience = MIGRATION_PATIENCE_S if migrating else max(1, int(config.timeout / 2))

    @event.listens_for(engine, "connect")
    def _settle(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(
            "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
            f"innodb_lock_wait_timeout = {patience}, lock_wait_timeout = {patience}"
        )
        cursor.close()

    return engine


def lock_name(config: MysqlConfig) -> str:
    """The name under which migrations of this database wait for one another; such names are the whole server's."""
    return f"tradeback.migrate.{hashlib.sha256(config.database.encode()).hexdigest()[:32]}"


@contextmanager
def plain_errors(place: str, trust: Trust | None = None) -> Iterator[None]:
    """Turns the server's and the driver's errors, of the bare driver or through SQLAlchemy, into a CatalogError that
    names the database and the remedy; faults of our own statements pass. `trust`: where TLS is verified."""
    try:
        yield
    except NoConnectionLeft as error:
        remedy = "all its connections are in use here: raise MYSQL_MAX_OPEN_CONNS"
        raise CatalogError(f"The database {place} cannot be used: {remedy}") from error
    except Exception as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        plain = _plain(place, cause, trust)
        if plain is None:
            raise
        raise plain from error


def _plain(place: str, cause: BaseException | None, trust: Trust | None) -> CatalogError | None:
    number = getattr(cause, "errno", None)
    if number is None or not type(cause).__module__.startswith("mysql."):
        return None
    if number in _UNDONE:
        return TransactionUndone(f"The database {place} undid a transaction that was in the way of another")
    remedy = _REMEDIES.get(number)
    if number == _NO_TLS and trust is not None:
        remedy = _tls_remedy(str(cause), trust)
    if remedy is None and "not available" in str(cause):
        remedy = _SLOW  # the driver found its own connection closed: it gives no number to that
    if remedy is None:
        if type(cause).__name__ in _OUR_FAULTS:
            return None
        remedy = f"it says {getattr(cause, 'msg', None) or cause}"
    plain = CatalogError(f"The database {place} cannot be used: {remedy}")
    plain.away = number == _NO_TLS or remedy in (_AWAY, _SLOW, _STARTING, _BUSY, _REFUSED)
    return plain


def _tls_remedy(said: str, trust: Trust) -> str:
    if _PLAIN in said:
        return "it has no TLS, which MYSQL_TLS asks for: give the server a certificate and its key (ssl_cert, ssl_key)"
    if _NO_AUTHORITIES in said:
        return trust.of_ca_file() or "this system has no authorities: name a file of them with MYSQL_CA_FILE"
    if _NOT_BELIEVED in said:
        return trust.unbelieved
    return _SLOW
