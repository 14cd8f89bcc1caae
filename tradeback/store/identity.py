"""Which catalog this is: of which exchange, and whether it is the one whose stream ids the data folder is written in.

The catalog has a name of its own, made at random, and the data folder keeps it in `catalog.id`. Another catalog would
give the stream ids in the journal to other symbols, so beside a journal it is refused.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sqlalchemy import Column, Integer, String, Table, insert, select, text
from sqlalchemy.exc import IntegrityError

from tradeback.errors import CatalogError, DataFolderError
from tradeback.store.database import Database
from tradeback.store.schema import metadata

IDENTITY_FILE = "catalog.id"
JOURNAL_FOLDER = "journal"

# One row.
catalog_of = Table(
    "catalog_of",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("exchange", String(50), nullable=False),
    Column("identity", String(32), nullable=False),
)


def has_journal(folder: Path) -> bool:
    """Whether trades were journaled in the data folder."""
    return any((folder / JOURNAL_FOLDER).glob("*.segment"))


def recognize(database: Database, exchange: str, folder: Path, *, create: bool) -> None:
    """Note in a catalog that is new of which exchange it is, and with `create` in the data folder which catalog.

    CatalogError where it is that of another exchange, or has lost the symbols of the journal in the folder;
    DataFolderError where that journal was written with another catalog.
    """
    noted, last_id = _read(database)
    journal, kept = has_journal(folder), _kept(folder)
    if journal and not last_id and database.mysql is not None:
        raise CatalogError(
            f"The database {database.place} has no symbols, and the journal in {folder} has: only the catalog that it "
            "was written with knows which. Restore that one, or name another data folder with DATA_DIR"
        )
    if noted is None:
        # Where the note was lost with a downgrade, the folder has it still.
        noted = _noted(database, exchange, kept if kept and last_id else secrets.token_hex(16))
    noted_exchange, identity = noted
    if noted_exchange != exchange:
        raise CatalogError(
            f"The database {database.place} has the symbols of the exchange {noted_exchange}, and {exchange} is asked "
            "for: choose with TRADEBACK_EXCHANGE, or name another database; each is of one exchange"
        )
    if kept == identity:
        return
    if kept is not None and journal:
        raise DataFolderError(
            f"The journal in {folder} was written with another catalog than {database.place}, and its stream ids are "
            "those of other symbols: name that catalog with the settings of MYSQL_HOST, or another folder with DATA_DIR"
        )
    if create and folder.is_dir():
        _keep(folder, identity)


def exchange_of(database: Database) -> str | None:
    """Of which exchange the symbols are; None where that was not noted yet. The schema must be of this version."""
    noted, _ = _read(database)
    return None if noted is None else noted[0]


def _read(database: Database) -> tuple[tuple[str, str] | None, int]:
    with database.read() as connection:
        noted = connection.execute(select(catalog_of.c.exchange, catalog_of.c.identity)).first()
        last_id = connection.execute(text("SELECT last_stream_id FROM stream_id_mark")).scalar_one()
    return None if noted is None else (noted.exchange, noted.identity), last_id


def _noted(database: Database, exchange: str, identity: str) -> tuple[str, str]:
    try:
        with database.change() as connection:
            connection.execute(
                insert(catalog_of).values({"id": 1, "exchange": exchange, "identity": identity})
            )
    except IntegrityError:
        noted, _ = _read(database)  # another process was first
        if noted is None:
            raise
        return noted
    return exchange, identity


def _kept(folder: Path) -> str | None:
    try:
        return (folder / IDENTITY_FILE).read_text("ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataFolderError(
            f"{folder / IDENTITY_FILE} cannot be read ({error}): it tells which catalog the journal is of; give this "
            "user the right to, or restore it from a copy"
        ) from error


def _keep(folder: Path, identity: str) -> None:
    path = folder / IDENTITY_FILE
    part = folder / f".{IDENTITY_FILE}.{secrets.token_hex(8)}.part"
    try:
        part.write_text(identity + "\n", "ascii")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataFolderError(
            f"{path} cannot be written ({error.strerror}): give this user the right to write in the folder, and make "
            "room on its disk"
        ) from error
