"""The schema of the catalog's database: which version it is of, and how it is brought to another.

Two that migrate at once wait for one another: in SQLite by its write lock, in MySQL by a lock of its own. SQLite
migrates in one transaction. MySQL ends a transaction with each change of the schema, so a migration that was cut off is
half done: every step looks whether it was done already, and the next run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, MetaData, inspect, text

from tradeback.errors import CatalogError, DataFolderError, StoreError
from tradeback.store.database import Database
from tradeback.store.mysql import lock_name, mysql_engine

# Of the tables in `catalog.py`, `accounts.py` and so on; they equal the migrations' sum.
metadata = MetaData()

SCHEMA_VERSION = "0004_catalog_of"  # the newest migration
VERSION_TABLE = "alembic_version"
OUR_TABLES = {
    VERSION_TABLE,
    "symbolsmap",
    "stream_id_mark",
    "users",
    "market_watch",
    "user_sessions",
    "login_failures",
    "accounts_mark",
    "catalog_of",
}
LOCK_PATIENCE_S = 120.0  # how long another process may migrate
LOCK_LOOK_S = 1  # each time; a connection that waits in silence for longer is taken for dead


def schema_version(connection: Connection, place: str) -> str | None:
    """The newest migration that was run to its end; None in an empty database. StoreError in a foreign one."""
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    version = None
    if VERSION_TABLE in tables:
        version = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
        if version is None and tables <= OUR_TABLES:
            return None  # the first migration was cut off, or was taken back
    if version is None or version > SCHEMA_VERSION or "symbolsmap" not in tables:
        raise _error_of(connection)(
            f"The database {place} is no catalog of this version (its schema: {version or 'foreign'}, ours: "
            f"{SCHEMA_VERSION}): run the version that made it, or name another {_setting_of(connection)}"
        )
    return str(version)


def version_of(database: Database) -> str | None:
    """The newest migration that was run; None where there is no catalog yet. StoreError where it is foreign."""
    with database.read() as connection:
        return schema_version(connection, database.place)


def bring_up_to_date(database: Database) -> None:
    """Bring the schema to SCHEMA_VERSION. Alembic is imported only where there is something to do."""
    if version_of(database) == SCHEMA_VERSION:
        return
    from tradeback.store.migrations import upgrade

    # Another process may be at the same: whoever comes second waits here, and finds it done.
    with migrating(database) as connection:
        if schema_version(connection, database.place) != SCHEMA_VERSION:
            upgrade(connection)


def take_back(database: Database, *, lose: bool) -> tuple[str, str | None]:
    """Take back the newest migration; it, and the one before it. StoreError where there is none, or where data would be
    lost and that is not allowed with `lose`."""
    from tradeback.store.migrations import downgrade, loses, versions

    with migrating(database) as connection:
        version = schema_version(connection, database.place)
        if version is None:
            raise _error_of(connection)(
                f"The database {database.place} has no schema: there is nothing to take back"
            )
        lost = loses(connection, version)
        if lost and not lose:
            raise _error_of(connection)(
                f"{version} is not taken back, for {lost} in {database.place} would be lost: make a backup, and then "
                "say so with `tradeback migrate down --yes`"
            )
        downgrade(connection, version)
    known = list(versions())
    before = known.index(version) - 1
    return version, known[before] if before >= 0 else None


@contextmanager
def migrating(database: Database) -> Iterator[Connection]:
    """A connection to change the schema by, while nobody else does. StoreError where somebody does for too long."""
    if database.mysql is None:
        with (
            database.plain_errors(),
            database.engine.connect().execution_options(begin="IMMEDIATE") as connection,
            connection.begin(),
        ):
            yield connection
        return
    engine = mysql_engine(database.mysql, migrating=True)
    try:
        with database.plain_errors(), engine.connect() as connection:
            name = lock_name(database.mysql)
            _lock(connection, name, database.place)
            try:
                with connection.begin():
                    yield connection
            finally:
                # The lock ends with the connection, where that was lost.
                if not connection.invalidated:
                    connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})
    finally:
        engine.dispose()


def _lock(connection: Connection, name: str, place: str) -> None:
    until = time.monotonic() + LOCK_PATIENCE_S
    while True:
        got = connection.execute(
            text("SELECT GET_LOCK(:name, :seconds)"), {"name": name, "seconds": LOCK_LOOK_S}
        ).scalar()
        connection.rollback()
        if got == 1:
            return
        if time.monotonic() >= until:
            raise CatalogError(
                f"The database {place} is being migrated by another process for {LOCK_PATIENCE_S:.0f} s: wait for its "
                "end, or end that process, and try again"
            )


def _error_of(connection: Connection) -> type[StoreError]:
    return DataFolderError if connection.dialect.name == "sqlite" else CatalogError


def _setting_of(connection: Connection) -> str:
    return (
        "data folder with DATA_DIR" if connection.dialect.name == "sqlite" else "database with MYSQL_DATABASE"
    )
