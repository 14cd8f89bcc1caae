"""The catalog in a SQL database through SQLAlchemy Core: SQLite in the data folder, and no SQL that MySQL 8
or MariaDB would not run.

The schema is made and changed by `migrations/` alone; the tables here must equal their sum (a test compares).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
    bindparam,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from tradeback.config import Config
from tradeback.errors import ConfigError, DataFolderError, ExchangeError, SymbolLimitError
from tradeback.model import Symbol, SymbolInfo
from tradeback.store.base import SyncResult
from tradeback.store.sqlite import plain_errors, sqlite_engine

CATALOG_FILE = "catalog.sqlite"
JOURNAL_FOLDER = "journal"
SCHEMA_VERSION = "0003_changed_accounts"  # the newest migration
LAST_STREAM_ID = 65_535
AMOUNT_DIGITS, AMOUNT_DECIMALS = 20, 8


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


metadata = MetaData()

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
    """The `Catalog` in one SQL database. `open_catalog` makes it; `place` names the database in messages."""

    def __init__(self, engine: Engine, place: str) -> None:
        self.engine = engine
        self.place = place

    def sync_symbols(self, infos: Iterable[SymbolInfo]) -> SyncResult:
        listed = {info.symbol: info for info in map(_storable, infos)}
        if not listed:
            raise ExchangeError("The exchange listed no symbol at all: the catalog stays as it is, try again")
        with plain_errors(self.place), self.engine.begin() as connection:
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

    def symbols(self, *, active_only: bool = False) -> list[Symbol]:
        with plain_errors(self.place), self.engine.connect() as connection:
            return _read(connection, symbolsmap.c.is_active.is_(True)) if active_only else _read(connection)

    def symbol(self, name: str) -> Symbol | None:
        with plain_errors(self.place), self.engine.connect() as connection:
            return next(iter(_read(connection, symbolsmap.c.symbol == name)), None)

    def close(self) -> None:
        self.engine.dispose()


def open_catalog(config: Config, *, create: bool = True) -> SqlCatalog:
    """The catalog of the configured exchange, its schema brought up to date.

    The exchange must be decided (`Config.with_exchange`). Where there is no catalog yet, it is made, or with
    `create=False` refused with a DataFolderError; so is a folder whose journal is of a catalog that is lost, for a
    new one would give its stream ids to other symbols.
    """
    if config.exchange.name == "auto":
        raise ConfigError("exchange.name is auto: a catalog is that of one exchange, name binance or sim")
    folder = config.data.of(config.exchange.name)
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
    if not (path.exists() and path.stat().st_size) and any((folder / JOURNAL_FOLDER).glob("*.segment")):
        raise DataFolderError(
            f"The catalog {path} is gone, and only it knows which symbols the journal beside it is of: restore it "
            "from a copy, or name another data folder with DATA_DIR"
        )
    engine = sqlite_engine(path)
    try:
        with plain_errors(path):
            _migrate(engine, str(path))
    except BaseException:
        engine.dispose()
        raise
    return SqlCatalog(engine, str(path))


def _migrate(engine: Engine, place: str) -> None:
    """Bring the schema to SCHEMA_VERSION. Alembic is imported only where there is something to do."""
    with engine.connect() as connection:
        if _schema_version(connection, place) == SCHEMA_VERSION:
            return
    from tradeback.store.migrations import upgrade

    # Another process may be at the same file: whoever comes second waits here, and finds it done.
    with engine.connect().execution_options(begin="IMMEDIATE") as connection, connection.begin():
        if _schema_version(connection, place) != SCHEMA_VERSION:
            upgrade(connection)


def _schema_version(connection: Connection, place: str) -> str | None:
    """The newest migration that was run; None in an empty database. DataFolderError in a foreign one."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    version = None
    if "alembic_version" in tables:
        version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if version is None or version > SCHEMA_VERSION or "symbolsmap" not in tables:
        raise DataFolderError(
            f"The database {place} is no catalog of this version (its schema: {version or 'foreign'}, ours: "
            f"{SCHEMA_VERSION}): run the version that made it, or name another data folder with DATA_DIR"
        )
    return str(version)


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


def _insert(connection: Connection, infos: list[SymbolInfo], last_id: int) -> int:
    if infos:
        rows = [_row(info) | {"stream_id": last_id + n} for n, info in enumerate(infos, 1)]
        connection.execute(insert(symbolsmap), rows)
        connection.execute(update(stream_id_mark).values(last_stream_id=last_id + len(infos)))
    return len(infos)


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
    if names:
        statement = (
            update(symbolsmap)
            .where(symbolsmap.c.symbol == bindparam("name"))
            .values(is_active=False, updated_at=func.current_timestamp())
        )
        connection.execute(statement, [{"name": name} for name in names])


def _row(info: SymbolInfo) -> dict[str, Any]:
    return {column.name: getattr(info, column.name) for column in _INFO_COLUMNS}
