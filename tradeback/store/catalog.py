"""The catalog in a SQL database through SQLAlchemy Core: SQLite in the data folder, or MySQL 8 or MariaDB where
MYSQL_HOST names one.

The schema is made and changed by `migrations/` alone; the tables here must equal their sum (a test compares).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Context, Decimal, Inexact, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import structlog
from sqlalchemy import (
    TIMESTAMP,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from tradeback.config import Config
from tradeback.errors import CatalogError, ConfigError, DataFolderError, ExchangeError, SymbolLimitError
from tradeback.model import Symbol, SymbolInfo
from tradeback.store.base import SyncResult
from tradeback.store.database import Database, again_where_undone, mysql_database, sqlite_database
from tradeback.store.identity import exchange_of, has_journal, recognize
from tradeback.store.schema import bring_up_to_date, metadata, version_of
from tradeback.store.symbols_copy import kept_symbols

CATALOG_FILE = "catalog.sqlite"
ROWS_AT_ONCE = 5_000  # in one statement, whose length a server limits
LAST_STREAM_ID = 65_535
AMOUNT_DIGITS, AMOUNT_DECIMALS = 20, 8

log = structlog.get_logger(__name__)


class Amount(TypeDecorator[Decimal]):
    """DECIMAL(20,8), exactly. SQLite has no such type and would make a float of it: there it is text."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(AMOUNT_DIGITS + 1))
        return dialect.type_descriptor(Numeric(AMOUNT_DIGITS, AMOUNT_DECIMALS))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return f"{value:f}" if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


symbolsmap = Table(
    "symbolsmap",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("symbol", String(50), nullable=False, unique=True),
    Column("base_currency", String(50)),
    Column("quote_currency", String(50)),
    Column("is_active", Boolean),
    Column("price_precision", Integer),
    Column("quantity_precision", Integer),
    Column("min_quantity", Amount),
    Column("max_quantity", Amount),
    Column("step_size", Amount),
    Column("min_notional", Amount),
    Column("created_at", TIMESTAMP),
    Column("updated_at", TIMESTAMP),
    Column(
        "stream_id",
        SmallInteger().with_variant(mysql.SMALLINT(unsigned=True), "mysql", "mariadb"),
        nullable=False,
        unique=True,
    ),
    CheckConstraint(f"stream_id BETWEEN 1 AND {LAST_STREAM_ID}", name="stream_id_range"),
    sqlite_autoincrement=True,
)

# One row: the highest stream id ever given. Rows of symbolsmap may be deleted; their ids stay used up.
stream_id_mark = Table(
    "stream_id_mark",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("last_stream_id", Integer, nullable=False),
)

_INFO_COLUMNS = [symbolsmap.c[name] for name in SymbolInfo.__dataclass_fields__]


class SqlCatalog:
    """The `Catalog` in one SQL database. `open_catalog` makes it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.engine = database.engine

    def sync_symbols(self, infos: Iterable[SymbolInfo]) -> SyncResult:
        listed = {info.symbol: info for info in map(_storable, infos)}
        if not listed:
            raise ExchangeError("The exchange listed no symbol at all: the catalog stays as it is, try again")
        return self._sync(listed)

    @again_where_undone
    def _sync(self, listed: dict[str, SymbolInfo]) -> SyncResult:
        with self.database.change() as connection:
            # A write comes first: from here to the end this transaction is the only one that syncs.
            connection.execute(update(stream_id_mark).values(last_stream_id=stream_id_mark.c.last_stream_id))
            last_id = connection.execute(select(stream_id_mark.c.last_stream_id)).scalar_one()
            known = {symbol.name: symbol.info for symbol in _read(connection)}
            new = [info for name, info in listed.items() if name not in known]
            given = _insert(connection, new[: LAST_STREAM_ID - last_id], last_id)
            changed = [info for name, info in listed.items() if name in known and known[name] != info]
            _update(connection, changed)
            dropped = [name for name, info in known.items() if info.is_active and name not in listed]
            _deactivate(connection, dropped)
        if given < len(new):
            raise SymbolLimitError(
                f"All {LAST_STREAM_ID:,} stream ids are given, and none is ever given twice: "
                f"{new[given].symbol} and {len(new) - given - 1} more symbols got none and cannot be carried"
            )
        ended = [info.symbol for info in changed if known[info.symbol].is_active and not info.is_active]
        return SyncResult(
            added=tuple(info.symbol for info in new),
            changed=tuple(info.symbol for info in changed if info.symbol not in ended),
            deactivated=tuple(ended + dropped),
        )

    @again_where_undone
    def put_back(self, kept: Sequence[Symbol]) -> None:
        """Give the symbols that a data folder kept their stream ids again, where this catalog was restored from a copy
        that is older than they are: else the next new ones would get these ids, which the journal has for them.

        CatalogError where other symbols have got them already.
        """
        with self.database.read() as connection:
            newest = max((symbol.stream_id for symbol in kept), default=0)
            taken = _wrong(_read(connection), kept)
            lost = newest > connection.execute(select(stream_id_mark.c.last_stream_id)).scalar_one()
        if taken is None and not lost:
            return
        with self.database.change() as connection:
            connection.execute(update(stream_id_mark).values(last_stream_id=stream_id_mark.c.last_stream_id))
            last_id = connection.execute(select(stream_id_mark.c.last_stream_id)).scalar_one()
            known = _read(connection)
            taken = _wrong(known, kept)
            if taken is not None:
                raise CatalogError(
                    f"The database {self.database.place} gives the stream id {taken.stream_id} to another symbol than "
                    f"{taken.name}, which the journal has it for: it was restored from a copy that is too old. Restore "
                    "a newer one, or name another data folder with DATA_DIR"
                )
            names = {symbol.name for symbol in known}
            back = [one for one in kept if one.stream_id > last_id and one.name not in names]
            for start in range(0, len(back), ROWS_AT_ONCE):
                rows = [
                    _row(one.info) | {"stream_id": one.stream_id}
                    for one in back[start : start + ROWS_AT_ONCE]
                ]
                connection.execute(insert(symbolsmap), rows)
            connection.execute(update(stream_id_mark).values(last_stream_id=max(last_id, newest)))
        log.warning(
            "the catalog was older than the journal: symbols that it had lost have their stream ids again",
            catalog=self.database.place,
            symbols=len(back),
        )

    def symbols(self, *, active_only: bool = False) -> list[Symbol]:
        with self.database.read() as connection:
            return _read(connection, symbolsmap.c.is_active.is_(True)) if active_only else _read(connection)

    def symbol(self, name: str) -> Symbol | None:
        with self.database.read() as connection:
            found = next(iter(_read(connection, symbolsmap.c.symbol == name)), None)
        # MySQL takes a name with a space behind it for the same.
        return found if found is None or found.name == name else None

    def close(self) -> None:
        self.database.close()


def open_catalog(config: Config, *, create: bool = True) -> SqlCatalog:
    """The catalog of the configured exchange, its schema brought up to date.

    The exchange must be decided (`Config.with_exchange`). Where there is no catalog yet, it is made, or with
    `create=False` refused with a StoreError; so is one of another exchange, and one that the journal in the data
    folder is not of: it would give its stream ids to other symbols.
    """
    if config.exchange.name == "auto":
        raise ConfigError("exchange.name is auto: a catalog is that of one exchange, name binance or sim")
    folder = config.data.of(config.exchange.name)
    database = catalog_database(config, create=create)
    try:
        if database.mysql is not None and not create and version_of(database) is None:
            raise CatalogError(
                f"There is no catalog in the database {database.place} yet: `tradeback symbols sync` makes it"
            )
        bring_up_to_date(database)
        recognize(database, config.exchange.name, folder, create=create)
        catalog = SqlCatalog(database)
        if create and has_journal(folder):
            catalog.put_back(kept_symbols(folder))
    except BaseException:
        database.close()
        raise
    return catalog


def catalog_database(config: Config, *, create: bool = False) -> Database:
    """The database that the catalog is in, as it is. DataFolderError where there is no file and `create` is not given,
    or none may be made."""
    if config.database.mysql.host:
        return mysql_database(config.database.mysql)
    return sqlite_database(_file(config.data.of(config.exchange.name), create=create))


def noted_exchange(config: Config) -> Literal["binance", "sim"]:
    """Of which exchange the configured MySQL database is. CatalogError where there is no catalog in it yet, or it was
    never opened for an exchange."""
    with closing(mysql_database(config.database.mysql)) as database:
        exchange = None if version_of(database) is None else exchange_of(database)
    if exchange == "binance":
        return "binance"
    if exchange == "sim":
        return "sim"
    raise CatalogError(
        f"The database {database.place} does not tell of which exchange it is ({exchange}): choose with "
        "TRADEBACK_EXCHANGE, binance or sim"
    )


def _file(folder: Path, *, create: bool) -> Path:
    """Where the catalog is in a data folder, which is made. DataFolderError where it may not be made there."""
    path = folder / CATALOG_FILE
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFolderError(
                f"The data folder {folder} cannot be made ({error.strerror}): name another with DATA_DIR"
            ) from error
    elif not path.exists():
        raise DataFolderError(f"There is no catalog at {path} yet: `tradeback symbols sync` makes it")
    if not (path.exists() and path.stat().st_size) and has_journal(folder):
        raise DataFolderError(
            f"The catalog {path} is gone, and only it knows which symbols the journal beside it is of: restore it "
            "from a copy, or name another data folder with DATA_DIR"
        )
    return path


def _storable(info: SymbolInfo) -> SymbolInfo:
    """The same with amounts as the columns keep them; one that DECIMAL(20,8) cannot hold is None, as if the
    exchange had not given it."""
    return replace(
        info,
        min_quantity=_amount(info.min_quantity),
        max_quantity=_amount(info.max_quantity),
        step_size=_amount(info.step_size),
        min_notional=_amount(info.min_notional),
    )


def _amount(value: Decimal | None) -> Decimal | None:
    try:
        return None if value is None else value.quantize(_LAST_DECIMAL, context=_EXACT)
    except (InvalidOperation, Inexact):
        return None


_LAST_DECIMAL = Decimal(1).scaleb(-AMOUNT_DECIMALS)
_EXACT = Context(prec=AMOUNT_DIGITS, traps=[InvalidOperation, Inexact])


def _read(connection: Connection, *conditions: ColumnElement[bool]) -> list[Symbol]:
    rows = connection.execute(
        select(symbolsmap.c.stream_id, *_INFO_COLUMNS).where(*conditions).order_by(symbolsmap.c.stream_id)
    )
    return [Symbol(SymbolInfo(*values), stream_id) for stream_id, *values in rows]


def _wrong(known: Iterable[Symbol], kept: Iterable[Symbol]) -> Symbol | None:
    """One of `kept` whose stream id has another name in a catalog."""
    names = {symbol.stream_id: symbol.name for symbol in known}
    return next((one for one in kept if names.get(one.stream_id, one.name) != one.name), None)


def _insert(connection: Connection, infos: list[SymbolInfo], last_id: int) -> int:
    rows = [_row(info) | {"stream_id": last_id + n} for n, info in enumerate(infos, 1)]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        connection.execute(insert(symbolsmap), rows[start : start + ROWS_AT_ONCE])
    if rows:
        connection.execute(update(stream_id_mark).values(last_stream_id=last_id + len(rows)))
    return len(rows)


def _update(connection: Connection, infos: list[SymbolInfo]) -> None:
    if infos:
        values: dict[str, Any] = {column.name: bindparam(f"new_{column.name}") for column in _INFO_COLUMNS}
        statement = (
            update(symbolsmap)
            .where(symbolsmap.c.symbol == bindparam("new_symbol"))
            .values(values | {"updated_at": func.current_timestamp()})
        )
        rows = [{f"new_{name}": value for name, value in _row(info).items()} for info in infos]
        connection.execute(statement, rows)


def _deactivate(connection: Connection, names: list[str]) -> None:
    for start in range(0, len(names), ROWS_AT_ONCE):
        statement = (
            update(symbolsmap)
            .where(symbolsmap.c.symbol.in_(names[start : start + ROWS_AT_ONCE]))
            .values(is_active=False, updated_at=func.current_timestamp())
        )
        connection.execute(statement)


def _row(info: SymbolInfo) -> dict[str, Any]:
    return {column.name: getattr(info, column.name) for column in _INFO_COLUMNS}
