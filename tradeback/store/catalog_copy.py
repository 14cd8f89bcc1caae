"""From the SQLite file of the data folder into MySQL: symbols with their stream ids, users, sessions, watchlists, and
which catalog it is, so that the journal beside the file goes on."""

from __future__ import annotations

from sqlalchemy import delete, func, insert, select, update

from tradeback.errors import CatalogError
from tradeback.store.accounts import accounts_mark, users
from tradeback.store.catalog import ROWS_AT_ONCE, symbolsmap
from tradeback.store.database import Database
from tradeback.store.schema import bring_up_to_date, metadata


def copy_catalog(source: Database, target: Database) -> dict[str, int]:
    """Copy all tables, in one transaction; rows by table. Nobody may write to either meanwhile.

    CatalogError where the target has symbols or users already. Both are brought up to date.
    """
    bring_up_to_date(source)
    bring_up_to_date(target)
    copied = {}
    with source.read() as reading, target.change() as writing:
        # A write comes first: two copies at once are made one after the other.
        writing.execute(update(accounts_mark).values(version=accounts_mark.c.version))
        for table in (symbolsmap, users):
            if writing.execute(select(func.count()).select_from(table)).scalar_one():
                raise CatalogError(
                    f"The database {target.place} has rows in {table.name} already: name an empty one with "
                    "MYSQL_DATABASE"
                )
        for table in metadata.sorted_tables:
            rows = [dict(row) for row in reading.execute(select(table)).mappings()]
            writing.execute(delete(table))
            for start in range(0, len(rows), ROWS_AT_ONCE):
                writing.execute(insert(table), rows[start : start + ROWS_AT_ONCE])
            copied[table.name] = len(rows)
    return copied
