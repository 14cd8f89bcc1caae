"""A SQL database as catalog and accounts use it: SQLite in the data folder, or MySQL where MYSQL_HOST names one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection, Engine

from tradeback.config.sections import MysqlConfig
from tradeback.errors import DataFolderError
from tradeback.store import mysql, sqlite
from tradeback.store.timing import timed

UNDONE_TRIES = 6
UNDONE_PAUSE_S = 0.01  # doubled with each try, and less at random, so that two do not meet again

P = ParamSpec("P")
R = TypeVar("R")


class Database:
    """An engine, what its database is called in messages, and its errors as sentences of ours. `mysql` is its
    configuration where it is one. Safe from several threads."""

    def __init__(
        self,
        engine: Engine,
        place: str,
        errors: Callable[[str], AbstractContextManager[None]],
        mysql: MysqlConfig | None = None,
    ) -> None:
        self.engine = engine
        self.place = place
        self.mysql = mysql
        self._errors = errors

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Within it the database's errors are StoreErrors that name it and the remedy."""
        try:
            with self._errors(self.place):
                yield
        except DataFolderError:
            # SQLite may never notice that a file that it found empty was restored.
            self.engine.dispose()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to read by; what it reads is of one moment, that of the first statement."""
        with timed("database", "read"), self.plain_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """A transaction: all of it is done, or none where it raises. What a store changes begins with a write to a
        row of its own, so that from there to the end it is the only one that does."""
        with timed("database", "write"), self.plain_errors(), self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


def sqlite_database(path: Path) -> Database:
    """The database in this file, which is made where there is none."""
    return Database(sqlite.sqlite_engine(path), str(path), sqlite.plain_errors)


def mysql_database(config: MysqlConfig) -> Database:
    """The database that is configured. Nothing is connected yet."""
    errors = partial(mysql.plain_errors, trust=mysql.trust_of(config))
    return Database(mysql.mysql_engine(config), mysql.place_of(config), errors, config)


def again_where_undone(change: Callable[P, R]) -> Callable[P, R]:
    """For what makes one transaction: where the database undid it in favour of another, it is made again, a few
    times."""

    @wraps(change)
    def changing(*args: P.args, **kwargs: P.kwargs) -> R:
        for tries in range(UNDONE_TRIES - 1):
            try:
                return change(*args, **kwargs)
            except mysql.TransactionUndone:
                time.sleep(random.random() * UNDONE_PAUSE_S * 2**tries)
        return change(*args, **kwargs)

    return changing
