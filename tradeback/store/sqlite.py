"""SQLite: how its files are opened, and what its errors mean to the person who can mend the cause."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from tradeback.errors import DataFolderError

LOCK_PATIENCE_S = 5.0  # how long a statement waits for another process's transaction
TORN_CATALOG = "it is torn: restore it from a backup, for the stream ids in it must not change"
EMPTIED = "what it held is gone: if a copy is being put in its place, wait, else restore one"

_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process keeps it locked: stop that one, or try again",
    sqlite3.SQLITE_READONLY: "it is read-only: give this user the right to write the file and its folder",
    sqlite3.SQLITE_FULL: "the disk is full: make room on it",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: see that its folder exists and this user may use both",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database: move it away, or name another folder with DATA_DIR",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write it: see the system's log",
}


def sqlite_engine(path: Path) -> Engine:
    """An engine whose transactions are SQLAlchemy's alone; `begin="IMMEDIATE"` among the execution options of
    a connection takes the write lock at the start of each."""
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, connect_args={"timeout": LOCK_PATIENCE_S})

    # By itself Python's driver begins transactions late and ends them before a change of the schema.
    @event.listens_for(engine, "connect")
    def _leave_transactions_to_us(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', '')}")

    return engine


@contextmanager
def plain_errors(place: object, *, torn: str = TORN_CATALOG) -> Iterator[None]:
    """Turns SQLite's errors, of the bare driver or through SQLAlchemy, into a DataFolderError that names the file
    and the remedy (`torn`: that of a torn file); others pass."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        # The low byte is the kind of error, the rest tells where it arose.
        kind = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        remedy = torn if kind == sqlite3.SQLITE_CORRUPT else _REMEDIES.get(kind)
        if kind == sqlite3.SQLITE_ERROR and str(cause).startswith("no such table"):
            remedy = EMPTIED
        if remedy is None:
            raise
        raise DataFolderError(f"The database {place} cannot be used: {remedy}") from error
