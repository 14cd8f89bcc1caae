"""What is SQLite's own: the file, its schema, its errors, and several processes at one file."""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from tests.store.conftest import sqlite_config
from tests.store.test_catalog import BTC, DOT, ETH, listing
from tradeback.config import Config
from tradeback.errors import ConfigError, DataFolderError
from tradeback.store import sqlite
from tradeback.store.accounts import metadata, open_accounts
from tradeback.store.catalog import SqlCatalog, open_catalog
from tradeback.store.migrations import alembic_config
from tradeback.store.schema import SCHEMA_VERSION


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return sqlite_config(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "sim").mkdir()
    return tmp_path / "sim" / "catalog.sqlite"


def test_an_exchange_must_be_decided_on(config: Config) -> None:
    auto = config.model_copy(update={"exchange": config.exchange.model_copy(update={"name": "auto"})})
    with pytest.raises(ConfigError, match=r"exchange\.name is auto"):
        open_catalog(auto)
    with closing(open_catalog(auto.with_exchange("sim"))):
        pass


def test_each_exchange_has_a_catalog_of_its_own(config: Config) -> None:
    with (
        closing(open_catalog(config)) as sim,
        closing(open_catalog(config.with_exchange("binance"))) as binance,
    ):
        sim.sync_symbols([BTC])
        assert binance.symbols() == []


def test_the_tables_are_what_the_migrations_make(config: Config) -> None:
    with closing(open_catalog(config)) as catalog, catalog.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == SCHEMA_VERSION


def test_a_catalog_of_the_first_version_is_brought_up_to_date_with_what_is_in_it(
    config: Config, path: Path
) -> None:
    engine = sqlite.sqlite_engine(path)
    with engine.connect().execution_options(begin="IMMEDIATE") as connection, connection.begin():
        command.upgrade(alembic_config(connection), "0001_symbolsmap")
        row = "INSERT INTO symbolsmap (symbol, is_active, stream_id) VALUES ('OLDUSDT', 1, 7)"
        connection.exec_driver_sql(row)
        connection.exec_driver_sql("UPDATE stream_id_mark SET last_stream_id = 7")
    engine.dispose()
    with closing(open_accounts(config)) as accounts:
        accounts.add_user("someone", "hash")
    with closing(open_catalog(config)) as catalog:
        assert [(symbol.name, symbol.stream_id) for symbol in catalog.symbols()] == [("OLDUSDT", 7)]
        catalog.sync_symbols([BTC])
        assert catalog.symbols()[-1].stream_id == 8


def test_amounts_are_kept_exactly(config: Config, path: Path) -> None:
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([BTC])
    with closing(sqlite3.connect(path)) as raw:
        row = raw.execute("SELECT min_quantity, typeof(min_quantity), is_active FROM symbolsmap").fetchone()
    assert row == ("0.00000100", "text", 1)


def test_a_deleted_symbols_id_is_not_given_again(config: Config, path: Path) -> None:
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([BTC, ETH])
        with closing(sqlite3.connect(path)) as raw, raw:
            raw.execute("DELETE FROM symbolsmap WHERE symbol = 'ETHUSDT'")
        catalog.sync_symbols([BTC, DOT])
        assert [symbol.stream_id for symbol in catalog.symbols()] == [1, 3]


def test_without_create_a_missing_catalog_is_refused(config: Config, path: Path) -> None:
    with pytest.raises(DataFolderError, match="`tradeback symbols sync` makes it"):
        open_catalog(config, create=False)
    assert not path.exists()


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_a_catalog_that_is_lost_is_not_made_anew_beside_its_journal(
    config: Config, path: Path, left: str
) -> None:
    """The next symbols would get the ids under which others were journaled."""
    segment = path.parent / "journal" / "00000000000000000001.segment"
    segment.parent.mkdir(parents=True)
    segment.touch()
    if left == "an empty file":
        path.touch()
    with pytest.raises(DataFolderError, match=r"catalog\.sqlite is gone, .*: restore it from a copy"):
        open_catalog(config)
    assert path.exists() == (left == "an empty file")
    segment.unlink()
    open_catalog(config).close()


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match=r"The data folder .* cannot be made"):
        open_catalog(sqlite_config(tmp_path / "file"))


def test_a_path_that_is_no_file(config: Config, path: Path) -> None:
    path.mkdir()
    with pytest.raises(DataFolderError, match="cannot be opened"):
        open_catalog(config)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"no database, but longer than a header of SQLite's " * 40, "is no SQLite database"),
     (b"SQLite format 3\0" + b"\x10\0\1\1\0\x40\x20\x20" + b"\xff" * 5000, "is torn|is no SQLite database")],
)  # fmt: skip
def test_a_file_that_is_no_database(config: Config, path: Path, content: bytes, sentence: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataFolderError, match=sentence):
        open_catalog(config)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE recipes (id INTEGER)",
        "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('9999_newer')",
        "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('0000_other')",
    ],
)
def test_a_foreign_or_newer_database_is_left_alone(config: Config, path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(script)
        before = raw.execute("SELECT * FROM sqlite_master").fetchall()
        with pytest.raises(DataFolderError, match="is no catalog of this version"):
            open_catalog(config)
        assert raw.execute("SELECT * FROM sqlite_master").fetchall() == before


def limit_pages(catalog: SqlCatalog) -> None:
    """A disk that is full, as far as SQLite can tell."""
    event.listen(
        catalog.engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1")
    )


def test_a_full_disk_changes_nothing(config: Config) -> None:
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([BTC])
        limit_pages(catalog)
        with pytest.raises(DataFolderError, match="the disk is full"):
            catalog.sync_symbols([BTC, *listing(5000)])
        assert [symbol.info for symbol in catalog.symbols()] == [BTC]


def test_a_read_only_file_can_be_read(config: Config, path: Path) -> None:
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([BTC])
        event.listen(
            catalog.engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA query_only = 1")
        )
        assert catalog.symbols()[0].info == BTC
        with pytest.raises(DataFolderError, match="it is read-only"):
            catalog.sync_symbols([ETH])


def test_a_locked_file(config: Config, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOCK_PATIENCE_S", 0.05)
    with (
        closing(open_catalog(config)) as catalog,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataFolderError, match="another process keeps it locked"):
            catalog.sync_symbols([BTC])
        with pytest.raises(DataFolderError, match="another process keeps it locked"):
            catalog.symbols()
        other.execute("ROLLBACK")
        catalog.sync_symbols([BTC])


def sync_in_a_process(config: Config, start: Barrier, first: int, count: int) -> None:
    start.wait(300)
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols(listing(count, first))


def test_processes_that_make_and_sync_one_catalog_at_once(sql_config: Config) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    lists = [(0, 600), (300, 600), (0, 900)]
    processes = [
        context.Process(target=sync_in_a_process, args=(sql_config, start, first, count))
        for first, count in lists
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with closing(open_catalog(sql_config)) as catalog:
        symbols = catalog.symbols()
    assert {symbol.name for symbol in symbols} == {f"S{n}" for n in range(900)}
    assert [symbol.stream_id for symbol in symbols] == list(range(1, 901))
