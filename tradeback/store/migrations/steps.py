"""The steps of migrations. Each looks whether it was done already, as some are where a run on MySQL was cut off."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.engine.reflection import Inspector

from tradeback.store.mysql import TABLE_OPTIONS


def on_sqlite() -> bool:
    """Whether this is SQLite, which differs where the types of MySQL are none of it."""
    return bool(op.get_bind().dialect.name == "sqlite")


def now(*, touched: bool = False) -> Any:
    """The default of a time; `touched`: on MySQL each change of the row sets it, which SQLite cannot."""
    on_update = " ON UPDATE CURRENT_TIMESTAMP" if touched and not on_sqlite() else ""
    return sa.text(f"CURRENT_TIMESTAMP{on_update}")


def create_table(name: str, *parts: sa.schema.SchemaItem, sqlite_autoincrement: bool = False) -> sa.Table:
    """The table with its indexes; what of it is there stays."""
    table = sa.Table(name, sa.MetaData(), *parts, sqlite_autoincrement=sqlite_autoincrement, **TABLE_OPTIONS)
    bind = op.get_bind()
    if name not in _inspector().get_table_names():
        bind.execute(sa.schema.CreateTable(table))
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        _create_index(index)
    return table


def drop_table(name: str) -> None:
    """Drop the table, where it is there."""
    if name in _inspector().get_table_names():
        op.drop_table(name)


def add_column(table: str, column: sa.Column[Any], *, index: str) -> None:
    """The column with an index on it; what of it is there stays."""
    if column.name not in _columns(table):
        op.add_column(table, column)
    _create_index(
        sa.Index(index, sa.Table(table, sa.MetaData(), sa.Column(column.name, column.type)).columns[0])
    )


def drop_column(table: str, column: str, *, index: str) -> None:
    """Drop the column with its index, as far as they are there."""
    if index in _indexes(table):
        op.drop_index(index, table)
    if column in _columns(table):
        op.drop_column(table, column)


def insert_first(table: sa.Table, row: dict[str, Any]) -> None:
    """A row of a table of one row; where it is there, it stays."""
    bind = op.get_bind()
    if bind.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0:
        bind.execute(sa.insert(table).values(row))


def count(table: str, *, where: str = "") -> int:
    """How many rows there are; 0 where there is no such table."""
    if table not in _inspector().get_table_names():
        return 0
    return int(op.get_bind().execute(sa.text(f"SELECT COUNT(*) FROM {table} {where}")).scalar_one())


def _create_index(index: sa.Index) -> None:
    table = index.table
    if table is not None and index.name not in _indexes(table.name):
        op.get_bind().execute(sa.schema.CreateIndex(index))


def _inspector() -> Inspector:
    # A new one each time: it remembers what it saw.
    return sa.inspect(op.get_bind())


def _columns(table: str) -> set[str]:
    return {column["name"] for column in _inspector().get_columns(table)}


def _indexes(table: str) -> set[str | None]:
    return {index["name"] for index in _inspector().get_indexes(table)}
