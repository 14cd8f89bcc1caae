"""The file of the SQLite history: its schema, its connections and its transactions.

WAL mode: readers, in this process or others, never wait for the writer, nor it for them. With `synchronous=NORMAL`
a commit waits for no disk, so a power loss may take the last commits, whole ones, never a part of one. No data are
lost by that: the places in the journals are committed together with what was read from there, so after the loss they
are the older ones, and the sink reads on from them. (A process that is killed loses nothing.)
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradeback.errors import DataFolderError
from tradeback.store.sqlite import LOCK_PATIENCE_S, plain_errors
from tradeback.store.timing import timed

SCHEMA_VERSION = 1
APPLICATION_ID = 0x54424831  # "TBH1": tells our files from another program's
WAL_PAGES = 4_000  # 16 MiB: a page that is changed over and over is copied to the file once in a while only
WRITER_CACHE_KIB = 32_768  # the pages that are written again and again: some of each symbol
WAL_LIMIT_BYTES = 64 << 20  # what is left of it after a long reader made it grow
LOCK_POLL_S = 0.01
TORN = (
    "it is torn: restore it from a backup; or move it away, then the recorder makes a new one out of the journal, "
    "and `tradeback backfill` fetches the bars"
)

_NUMBER = "BETWEEN 0 AND 1.7976931348623157e308"  # not infinite; NaN becomes NULL on its way
# Without a rowid a table is its own index: a range of times is read in one go, and no second tree is written.
_SCHEMA = f"""
CREATE TABLE ticks (
    stream_id INTEGER NOT NULL, ts_event INTEGER NOT NULL, trade_id INTEGER NOT NULL,
    trade_count INTEGER NOT NULL, price REAL NOT NULL, volume REAL NOT NULL, bid REAL NOT NULL, ask REAL NOT NULL,
    flags INTEGER NOT NULL, PRIMARY KEY (stream_id, ts_event, trade_id), CONSTRAINT whole CHECK (
        trade_id >= 0 AND price {_NUMBER} AND volume {_NUMBER} AND bid {_NUMBER} AND ask {_NUMBER})
) WITHOUT ROWID;
CREATE TABLE bars (
    resolution INTEGER NOT NULL, stream_id INTEGER NOT NULL, open_time INTEGER NOT NULL,
    open REAL NOT NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL,
    trade_count INTEGER NOT NULL, PRIMARY KEY (resolution, stream_id, open_time), CONSTRAINT whole CHECK (
        open {_NUMBER} AND high {_NUMBER} AND low {_NUMBER} AND close {_NUMBER} AND volume {_NUMBER})
) WITHOUT ROWID;
CREATE TABLE due (
    resolution INTEGER NOT NULL, stream_id INTEGER NOT NULL, open_time INTEGER NOT NULL,
    PRIMARY KEY (resolution, stream_id, open_time)
) WITHOUT ROWID;
CREATE TABLE extremes (stream_id INTEGER PRIMARY KEY, high REAL NOT NULL, low REAL NOT NULL);
CREATE TABLE covered (
    stream_id INTEGER NOT NULL, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL,
    PRIMARY KEY (stream_id, first_id), CONSTRAINT ids CHECK (0 <= first_id AND first_id <= last_id)
) WITHOUT ROWID;
CREATE TABLE gaps (
    stream_id INTEGER NOT NULL, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL, ts_event INTEGER NOT NULL,
    reason INTEGER NOT NULL, unfillable TEXT NOT NULL, PRIMARY KEY (stream_id, first_id),
    CONSTRAINT ids CHECK (0 <= first_id AND first_id <= last_id)
) WITHOUT ROWID;
CREATE TABLE places (journal TEXT PRIMARY KEY, next_seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE enigma (
    stream_id INTEGER NOT NULL, ts_event INTEGER NOT NULL, price REAL NOT NULL, level REAL,
    ath REAL NOT NULL, atl REAL NOT NULL, PRIMARY KEY (stream_id, ts_event),
    CONSTRAINT whole CHECK (price {_NUMBER} AND ath {_NUMBER} AND atl {_NUMBER})
) WITHOUT ROWID;
CREATE TABLE jobs (
    stream_id INTEGER NOT NULL, resolution INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    done_to INTEGER NOT NULL, error TEXT NOT NULL, PRIMARY KEY (stream_id, resolution, start)
) WITHOUT ROWID;
"""


class HistoryFile:
    """One connection that writes, under a lock, and as many that read as ever did at once.

    `changed_by_others` tells, within a transaction, whether what this process remembers may be wrong: another
    process wrote in between, or the last transaction was undone.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self.place = str(path)
        self.changed_by_others = True
        self._path = path
        self._write = write
        self._closed = False
        self._seen = -1
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._writer = _open(path, write=write)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of the writer: all of it, or nothing where an exception leaves it.

        Raises ValueError where a row breaks the constraints of the schema.
        """
        if not self._write:
            raise DataFolderError(
                f"The history {self.place} was opened for reading alone: nothing can be stored"
            )
        with timed("history", "write"), self._lock, plain_errors(self.place, torn=TORN):
            connection = self._usable(self._writer)
            connection.execute("BEGIN IMMEDIATE")
            try:
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                self.changed_by_others = version != self._seen
                self._seen = version
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                self._seen = -1
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.IntegrityError | OverflowError):
                    raise ValueError(
                        f"The history takes no such row ({error}): prices and volumes must be finite and not "
                        "negative, ids, counts and times integers below 2**63"
                    ) from error
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that reads; a transaction that is left open ends with it."""
        with timed("history", "read"), plain_errors(self.place, torn=TORN):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = _open(self._path, write=False)
            try:
                yield self._usable(connection)
            finally:
                if self._closed:
                    connection.close()
                else:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    self._idle.append(connection)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._writer.close()

    def _usable(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        if self._closed:
            raise DataFolderError(f"The history {self.place} was closed: open it again")
        return connection


def _open(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection to a file of this version, which is made where `write` is true and there is none."""
    with plain_errors(path, torn=TORN):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'rwc' if write else 'rw'}",
            uri=True,
            timeout=LOCK_PATIENCE_S,
            isolation_level=None,  # transactions are ours
            check_same_thread=False,  # one thread at a time uses it, not always the same
        )
        try:
            if _version_now(connection, path) == 0:
                if not write:
                    raise DataFolderError(f"There is no history at {path} yet: `tradeback recorder` makes it")
                _create(connection, path)
            if write:
                _use_wal(connection)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
                connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
                connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
            else:
                connection.execute("PRAGMA query_only = 1")
        except BaseException:
            connection.close()
            raise
        return connection


def _version_now(connection: sqlite3.Connection, path: Path) -> int:
    """`_version`, all of it at one moment: another process may be making the file."""
    connection.execute("BEGIN")
    try:
        return _version(connection, path)
    finally:
        connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """SCHEMA_VERSION, or 0 where the file is empty; within a transaction. DataFolderError where it is another's or
    newer."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (version, application, tables) == (0, 0, 0):
        return 0
    if (version, application) != (SCHEMA_VERSION, APPLICATION_ID):
        found = version if application == APPLICATION_ID else "foreign"
        raise DataFolderError(
            f"The database {path} is no history of this version (its schema: {found}, ours: {SCHEMA_VERSION}): "
            "run the version that made it, or name another data folder with DATA_DIR"
        )
    return SCHEMA_VERSION


def _create(connection: sqlite3.Connection, path: Path) -> None:
    # Another process may be at the same file: whoever comes second waits here, and finds it done.
    connection.execute("BEGIN IMMEDIATE")
    if _version(connection, path) == 0:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _use_wal(connection: sqlite3.Connection) -> None:
    """A new file, and one restored by SQLite's own tools, is not in WAL mode yet."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # This one statement needs the file alone, and does not wait for that by itself.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(LOCK_POLL_S)
