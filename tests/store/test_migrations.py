"""`tradeback migrate`, and migrations that are killed, run at once, or taken back, on SQLite and MariaDB alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from tests.conftest import CHECKOUT
from tests.servers.mariadb import MariadbServer
from tests.store.conftest import sqlite_config
from tests.store.test_catalog import BTC, DOT, ETH
from tradeback.config import Config
from tradeback.errors import CatalogError, StoreError
from tradeback.model import Session
from tradeback.store import schema
from tradeback.store.accounts import metadata, open_accounts
from tradeback.store.catalog import catalog_database, open_catalog
from tradeback.store.migrations import versions
from tradeback.store.mysql import lock_name
from tradeback.store.schema import SCHEMA_VERSION, bring_up_to_date, migrating, take_back, version_of

NOW = 1_800_000_000

# Runs a command and is killed, as by `kill -9`, once it has run so many statements that change the schema.
KILLED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tradeback.cli import main
left = int(sys.argv.pop(1))

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, parameters, context, many):
    global left
    if statement.split()[0] in ("CREATE", "ALTER", "DROP"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

main()
"""


def environment_of(config: Config) -> dict[str, str]:
    """The variables of the environment that make this configuration."""
    mysql = config.database.mysql
    return {
        **os.environ,
        "DATA_DIR": str(config.data.folder),
        "TRADEBACK_EXCHANGE": "sim",
        "MYSQL_HOST": mysql.host,
        "MYSQL_PORT": str(mysql.port),
        "MYSQL_DATABASE": mysql.database,
        "MYSQL_USER": mysql.user,
        "MYSQL_PASSWORD": mysql.password.get_secret_value(),
    }


def run(config: Config, *arguments: str, kill_after: int | None = None) -> tuple[int, str]:
    """How the command ended, and what it printed."""
    program = ["-m", "tradeback"] if kill_after is None else ["-c", KILLED, str(kill_after)]
    done = subprocess.run(
        [sys.executable, *program, "migrate", *arguments],
        env=environment_of(config),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def shape(config: Config) -> dict[str, list[str]]:
    """Tables, columns and indexes as they are."""
    with closing(catalog_database(config)) as database, database.read() as connection:
        seen = inspect(connection)
        return {
            table: [
                *(f"{column['name']} {column['type']!r}" for column in seen.get_columns(table)),
                *sorted(str(index) for index in seen.get_indexes(table)),
            ]
            for table in seen.get_table_names()
        }


def test_up_and_down_and_status(sql_config: Config) -> None:
    names = list(versions())
    assert names == sorted(names)
    assert names[-1] == SCHEMA_VERSION
    code, said = run(sql_config, "up")
    assert (code, said.split(": ")[1]) == (0, f"from nothing to {SCHEMA_VERSION}.\n")
    assert run(sql_config, "up")[1].endswith("is the newest.\n")
    code, said = run(sql_config, "status")
    assert code == 0
    assert "of the exchange sim" in said
    assert [line.split()[:2] for line in said.splitlines()[1:]] == [["done", name] for name in names]
    whole = shape(sql_config)
    assert run(sql_config, "down")[0] == 0
    code, said = run(sql_config, "status")
    assert code == 1
    assert said.splitlines()[-1].split()[:2] == ["missing", SCHEMA_VERSION]
    with closing(catalog_database(sql_config)) as database:
        for _ in names[:-1]:
            take_back(database, lose=False)
        assert version_of(database) is None
        with pytest.raises(StoreError, match="there is nothing to take back"):
            take_back(database, lose=False)
    assert set(shape(sql_config)) == {"alembic_version"}
    open_catalog(sql_config).close()
    assert shape(sql_config) == whole


def test_data_are_not_lost_unless_that_is_said(sql_config: Config) -> None:
    with closing(open_catalog(sql_config)) as catalog:
        catalog.sync_symbols([BTC, ETH])
    with closing(open_accounts(sql_config)) as accounts:
        alice = accounts.add_user("alice", "hash")
        accounts.watch(alice.id, "BTCUSDT")
    with closing(catalog_database(sql_config)) as database:
        take_back(database, lose=False)
        take_back(database, lose=False)
    # What was taken back comes again, and the catalog is known again.
    with closing(open_accounts(sql_config)) as accounts:
        assert accounts.watchlist(alice.id) == ["BTCUSDT"]
    with closing(catalog_database(sql_config)) as database:
        take_back(database, lose=False)
        take_back(database, lose=False)
    code, said = run(sql_config, "down")
    assert code == 1
    assert "1 users with 0 sessions and 1 symbols of watchlists" in said
    assert "tradeback migrate down --yes" in said
    assert run(sql_config, "down", "--yes")[0] == 0
    code, said = run(sql_config, "down")
    assert code == 1
    assert "2 symbols with their stream ids" in said
    with closing(open_catalog(sql_config)) as catalog:
        assert [symbol.stream_id for symbol in catalog.symbols()] == [1, 2]


def test_a_catalog_is_known_again_after_a_step_back(sql_config: Config) -> None:
    folder = sql_config.data.of("sim")
    folder.mkdir(parents=True)
    with closing(open_catalog(sql_config)) as catalog:
        catalog.sync_symbols([BTC])
    (folder / "journal").mkdir()
    (folder / "journal" / "00000000000000000001.segment").touch()
    kept = (folder / "catalog.id").read_text()
    with closing(catalog_database(sql_config)) as database:
        take_back(database, lose=False)
    open_catalog(sql_config).close()
    assert (folder / "catalog.id").read_text() == kept


def test_every_table_is_known_as_ours() -> None:
    assert {*metadata.tables, schema.VERSION_TABLE} == schema.OUR_TABLES


@pytest.mark.timeout(300)
def test_a_migration_that_is_killed_anywhere_goes_on(mariadb_config: Config, tmp_path: Path) -> None:
    """On MySQL each statement that changes the schema stays done; each run here is killed after its first."""
    kills = 0
    while (code := run(mariadb_config, "up", kill_after=1)[0]) == -signal.SIGKILL:
        kills += 1
        assert kills < 40
    assert code == 0
    assert kills >= 12
    left = shape(mariadb_config)
    with closing(open_catalog(mariadb_config)) as catalog:
        catalog.sync_symbols([BTC])
    with closing(open_accounts(mariadb_config)) as accounts:
        assert accounts.watch(accounts.add_user("alice", "hash").id, "BTCUSDT") == ["BTCUSDT"]
    embedded = sqlite_config(tmp_path / "embedded")
    open_catalog(embedded).close()
    assert (shape(embedded).keys() - {"sqlite_sequence"}) == left.keys()
    # And down again, killed all the way.
    for _ in range(40):
        if version_in(mariadb_config) is None:
            break
        assert run(mariadb_config, "down", "--yes", kill_after=1)[0] in (0, -signal.SIGKILL)
    assert version_in(mariadb_config) is None
    open_catalog(mariadb_config).close()
    assert shape(mariadb_config) == left


def version_in(config: Config) -> str | None:
    with closing(catalog_database(config)) as database:
        return version_of(database)


def test_who_migrates_waits_for_another_who_does(
    mariadb_config: Config, mariadb_server: MariadbServer
) -> None:
    lock = lock_name(mariadb_config.database.mysql)
    opening = threading.Thread(target=lambda: open_catalog(mariadb_config).close())
    with mariadb_server.root(mariadb_config.database.mysql.database) as other:
        other.execute("SELECT GET_LOCK(%s, 0)", (lock,))
        assert other.fetchall() == [(1,)]
        opening.start()
        opening.join(2.5)
        assert opening.is_alive()
        other.execute("SHOW TABLES")
        assert other.fetchall() == []
        # Ended without a word: the lock goes with the connection.
    opening.join(300)
    assert version_in(mariadb_config) == SCHEMA_VERSION


def test_who_waits_for_too_long_says_so(
    mariadb_config: Config, mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_PATIENCE_S", 0.5)
    with mariadb_server.root() as other:
        other.execute("SELECT GET_LOCK(%s, 0)", (lock_name(mariadb_config.database.mysql),))
        other.fetchall()
        with pytest.raises(CatalogError, match="is being migrated by another process"):
            open_catalog(mariadb_config)


def test_a_migration_that_fails_lets_go_of_the_lock(mariadb_config: Config) -> None:
    with closing(catalog_database(mariadb_config)) as database:
        for _ in range(2):
            with pytest.raises(CatalogError), migrating(database) as connection:
                connection.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114"))
        bring_up_to_date(database)


def test_without_the_right_to_change_the_schema_that_is_said(
    mariadb_config: Config, mariadb_server: MariadbServer
) -> None:
    name = mariadb_config.database.mysql.database
    mariadb_server.run(f"REVOKE ALL ON {name}.* FROM 'trading'@'%'")
    mariadb_server.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO 'trading'@'%'")
    with pytest.raises(CatalogError, match="migrations take CREATE, ALTER, DROP, INDEX"):
        open_catalog(mariadb_config)
    mariadb_server.run(f"GRANT ALL ON {name}.* TO 'trading'@'%'")
    open_catalog(mariadb_config).close()
    mariadb_server.run(f"REVOKE ALL ON {name}.* FROM 'trading'@'%'")
    mariadb_server.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO 'trading'@'%'")
    with closing(open_catalog(mariadb_config)) as catalog:
        catalog.sync_symbols([BTC])


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE symbolsmap (id INT)"],
        ["CREATE TABLE recipes (id INT)"],
        [
            "CREATE TABLE alembic_version (version_num VARCHAR(32))",
            "INSERT INTO alembic_version VALUES ('9999_newer')",
        ],
    ],
)
def test_a_foreign_or_newer_database_is_left_alone(
    mariadb_config: Config, mariadb_server: MariadbServer, statements: list[str]
) -> None:
    name = mariadb_config.database.mysql.database
    for statement in statements:
        mariadb_server.run(statement, database=name)
    before = mariadb_server.run("SHOW TABLES", database=name)
    with pytest.raises(CatalogError, match=r"is no catalog of this version .*MYSQL_DATABASE"):
        open_catalog(mariadb_config)
    assert mariadb_server.run("SHOW TABLES", database=name) == before


def test_a_catalog_is_copied_into_mysql_and_its_journal_goes_on(
    mariadb_config: Config, tmp_path: Path
) -> None:
    embedded = sqlite_config(tmp_path)
    session = Session(b"t" * 32, 1, "::1", "a browser", NOW, NOW + 100, NOW)
    with closing(open_catalog(embedded)) as catalog:
        catalog.sync_symbols([ETH])
        catalog.sync_symbols([BTC])  # ETHUSDT is inactive now
        symbols = catalog.symbols()
    with closing(open_accounts(embedded)) as accounts:
        alice = accounts.add_user("alice", "hash", now=NOW)
        accounts.set_watchlist(alice.id, ["ETHUSDT", "BTCUSDT"])
        accounts.add_session(session)
        version = accounts.version()
    (tmp_path / "sim" / "journal").mkdir()
    (tmp_path / "sim" / "journal" / "00000000000000000001.segment").touch()
    with pytest.raises(StoreError):
        open_catalog(mariadb_config)
    code, said = run(mariadb_config, "copy")
    assert (code, said.split(": ")[-1]) == (0, "2 symbols, 1 users, 2 symbols of watchlists.\n")
    with closing(open_catalog(mariadb_config)) as catalog:
        assert catalog.symbols() == symbols
        catalog.sync_symbols([BTC, ETH, DOT])
        assert [symbol.stream_id for symbol in catalog.symbols()] == [1, 2, 3]
    with closing(open_accounts(mariadb_config)) as accounts:
        assert accounts.user("alice") == (alice, "hash")
        assert accounts.watchlist(alice.id) == ["ETHUSDT", "BTCUSDT"]
        assert accounts.active_sessions(now=NOW) == [session]
        assert accounts.version() == version
        assert accounts.add_user("bob", "hash").id == alice.id + 1
    code, said = run(mariadb_config, "copy")
    assert code == 1
    assert "has rows in symbolsmap already" in said
