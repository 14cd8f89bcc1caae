"""What is MySQL's own: the driver, the schema, the errors as sentences, and several processes at one database.

MariaDB stands in for MySQL 8, of which there is no package.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import mysql.connector
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, text

from tests.servers.mariadb import MariadbServer
from tests.servers.server import free_port
from tests.store.conftest import PATIENT, sqlite_config
from tests.store.test_catalog import BTC, ETH
from tests.waiting import await_true
from tradeback.config import Config
from tradeback.config.sections import MysqlConfig
from tradeback.errors import AccountError, CatalogError, ConfigError, DataFolderError
from tradeback.store.accounts import metadata, open_accounts
from tradeback.store.catalog import noted_exchange, open_catalog
from tradeback.store.mysql import plain_errors

NOW = 1_800_000_000
T = TypeVar("T")

# Of the specification, as SHOW CREATE TABLE tells them.
SPECIFIED = {
    "symbolsmap": """
        `id` int(11) NOT NULL AUTO_INCREMENT
        `symbol` varchar(50) NOT NULL
        `base_currency` varchar(50) DEFAULT NULL
        `quote_currency` varchar(50) DEFAULT NULL
        `is_active` tinyint(1) DEFAULT 1
        `price_precision` int(11) DEFAULT NULL
        `quantity_precision` int(11) DEFAULT NULL
        `min_quantity` decimal(20,8) DEFAULT NULL
        `max_quantity` decimal(20,8) DEFAULT NULL
        `step_size` decimal(20,8) DEFAULT NULL
        `min_notional` decimal(20,8) DEFAULT NULL
        `created_at` timestamp NULL DEFAULT current_timestamp()
        `updated_at` timestamp NULL DEFAULT current_timestamp() ON UPDATE current_timestamp()
        `stream_id` smallint(5) unsigned NOT NULL
        PRIMARY KEY (`id`)
        UNIQUE KEY `symbol` (`symbol`)
        UNIQUE KEY `stream_id` (`stream_id`)
    """,
    "market_watch": """
        `id` int(11) NOT NULL AUTO_INCREMENT
        `session_id` varchar(255) NOT NULL
        `symbol` varchar(50) NOT NULL
        `display_order` int(11) DEFAULT 0
        `created_at` timestamp NULL DEFAULT current_timestamp()
        UNIQUE KEY `unique_session_symbol` (`session_id`,`symbol`)
    """,
    "user_sessions": """
        `id` int(11) NOT NULL AUTO_INCREMENT
        `session_token` varchar(255) NOT NULL
        `user_id` varchar(255) DEFAULT NULL
        `ip_address` varchar(45) DEFAULT NULL
        `user_agent` text DEFAULT NULL
        `is_active` tinyint(1) DEFAULT 1
        `last_activity` timestamp NULL DEFAULT current_timestamp() ON UPDATE current_timestamp()
        `created_at` timestamp NULL DEFAULT current_timestamp()
        `expires_at` timestamp NULL DEFAULT NULL
        UNIQUE KEY `session_token` (`session_token`)
    """,
}


def with_settings(config: Config, **changes: Any) -> Config:
    """The same with other settings of MySQL."""
    mysql_config = config.database.mysql.model_copy(update=changes)
    database = config.database.model_copy(update={"mysql": mysql_config})
    return config.model_copy(update={"database": database})


def database_of(config: Config) -> str:
    return config.database.mysql.database


def test_the_driver_is_the_compiled_one() -> None:
    assert mysql.connector.HAVE_CEXT
    assert (9, 7) <= mysql.connector.version.VERSION[:2] < (26, 0)


def test_the_driver_in_use_is_the_compiled_one(mariadb_config: Config) -> None:
    with closing(open_catalog(mariadb_config)) as catalog:
        connection = catalog.engine.raw_connection()
        assert type(connection.driver_connection).__name__ == "CMySQLConnection"
        connection.close()


def test_localhost_is_this_machine_by_tcp(mariadb_config: Config) -> None:
    """As the specification's example has it. The client library takes that name for a socket's, elsewhere."""
    with closing(open_catalog(with_settings(mariadb_config, host="localhost"))) as catalog:
        catalog.sync_symbols([BTC])
    with closing(open_catalog(mariadb_config)) as catalog:
        assert [symbol.name for symbol in catalog.symbols()] == ["BTCUSDT"]


def test_the_tables_are_what_the_migrations_make(mariadb_config: Config) -> None:
    with closing(open_catalog(mariadb_config)) as catalog, catalog.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.parametrize("table", SPECIFIED)
def test_the_tables_are_the_specified_ones(
    mariadb_config: Config, mariadb_server: MariadbServer, table: str
) -> None:
    open_catalog(mariadb_config).close()
    ((_, told),) = mariadb_server.run(f"SHOW CREATE TABLE {table}", database=database_of(mariadb_config))
    lines = {" ".join(line.split()).rstrip(",") for line in told.splitlines()}
    missing = {" ".join(line.split()) for line in SPECIFIED[table].strip().splitlines()} - lines
    assert missing == set(), told
    assert re.search(r"ENGINE=InnoDB.* CHARSET=utf8mb4 COLLATE=utf8mb4_bin$", told)


def test_a_session_is_as_we_need_it_whatever_the_server_has_as_its_defaults(mariadb_config: Config) -> None:
    """The server of the tests is in latin1 and another time zone."""
    config = with_settings(mariadb_config, timeout=MysqlConfig().timeout)
    with closing(open_catalog(config)) as catalog, catalog.engine.connect() as connection:
        asked = "SELECT @@time_zone, @@tx_isolation, @@sql_mode, @@character_set_connection, @@innodb_lock_wait_timeout"
        (found,) = connection.execute(text(asked)).all()
    assert tuple(found) == (
        "+00:00",
        "REPEATABLE-READ",
        "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
        "utf8mb4",
        2,
    )


def test_times_are_utc_on_the_disk(mariadb_config: Config, mariadb_server: MariadbServer) -> None:
    with closing(open_accounts(mariadb_config)) as accounts:
        accounts.add_user("alice", "hash", now=NOW)
    asked = "SELECT UNIX_TIMESTAMP(created_at) FROM users"
    assert mariadb_server.run(asked, database=database_of(mariadb_config)) == [(NOW,)]


def test_a_change_touches_updated_at(mariadb_config: Config, mariadb_server: MariadbServer) -> None:
    name = database_of(mariadb_config)
    with closing(open_catalog(mariadb_config)) as catalog:
        catalog.sync_symbols([BTC, ETH])
        mariadb_server.run("UPDATE symbolsmap SET updated_at = '2020-01-01'", database=name)
        catalog.sync_symbols([ETH])
    rows = mariadb_server.run(
        "SELECT symbol, YEAR(updated_at) > 2020 FROM symbolsmap ORDER BY symbol", database=name
    )
    assert rows == [("BTCUSDT", 1), ("ETHUSDT", 0)]


def test_names_differ_by_case_and_spaces_at_their_end_are_no_name(mariadb_config: Config) -> None:
    with closing(open_catalog(mariadb_config)) as catalog:
        catalog.sync_symbols([BTC])
        assert catalog.symbol("btcusdt") is None
        assert catalog.symbol("BTCUSDT ") is None
    with closing(open_accounts(mariadb_config)) as accounts:
        alice = accounts.add_user("alice", "hash")
        assert accounts.user("alice ") is None
        assert accounts.set_watchlist(alice.id, ["BTCUSDT", "btcusdt", "₿😀"]) == [
            "BTCUSDT",
            "btcusdt",
            "₿😀",
        ]
        assert accounts.unwatch(alice.id, "BTCUSDT ") == ["BTCUSDT", "btcusdt", "₿😀"]
        with pytest.raises(AccountError, match="is no name of a symbol"):
            accounts.watch(alice.id, "BTCUSDT ")


def test_a_session_beyond_the_last_timestamp_ends_there(mariadb_config: Config) -> None:
    from tests.store.test_accounts import login

    with closing(open_accounts(mariadb_config)) as accounts:
        alice = accounts.add_user("alice", "hash")
        accounts.add_session(login(alice, "a", expires_at=2**31 + 1000))
        assert accounts.active_sessions(now=NOW)[0].expires_at == 2**31 - 1


# ------------------------------------------------------------------ which catalog it is


def test_a_database_is_of_one_exchange(mariadb_config: Config) -> None:
    with pytest.raises(CatalogError, match="does not tell of which exchange"):
        noted_exchange(mariadb_config)
    open_catalog(mariadb_config).close()
    assert noted_exchange(mariadb_config) == "sim"
    with pytest.raises(CatalogError, match="has the symbols of the exchange sim, and binance is asked for"):
        open_catalog(mariadb_config.with_exchange("binance"))


def test_without_create_an_empty_database_is_refused_and_stays_empty(
    mariadb_config: Config, mariadb_server: MariadbServer
) -> None:
    with pytest.raises(CatalogError, match="`tradeback symbols sync` makes it"):
        open_catalog(mariadb_config, create=False)
    assert mariadb_server.run("SHOW TABLES", database=database_of(mariadb_config)) == []


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A data folder with a journal."""
    segment = tmp_path / "sim" / "journal" / "00000000000000000001.segment"
    segment.parent.mkdir(parents=True)
    segment.touch()
    return tmp_path / "sim"


def test_beside_a_journal_an_empty_catalog_is_one_that_is_lost(mariadb_config: Config, journal: Path) -> None:
    with pytest.raises(CatalogError, match=r"has no symbols, and the journal in .* has"):
        open_catalog(mariadb_config)
    with pytest.raises(CatalogError, match="has no symbols"):
        open_accounts(mariadb_config)
    shutil.rmtree(journal / "journal")
    open_catalog(mariadb_config).close()


def test_beside_a_journal_another_catalog_is_refused(
    mariadb_config: Config, mariadb_server: MariadbServer, journal: Path
) -> None:
    (journal / "journal").rename(journal / "away")
    other = with_settings(mariadb_config, database=mariadb_server.new_database())
    for config in (mariadb_config, other):
        with closing(open_catalog(config)) as catalog:
            catalog.sync_symbols([BTC])
    (journal / "away").rename(journal / "journal")
    open_catalog(other).close()
    for create in (True, False):
        with pytest.raises(DataFolderError, match="was written with another catalog"):
            open_catalog(mariadb_config, create=create)
    # The embedded one is another as well.
    (journal / "journal").rename(journal / "away")
    open_catalog(sqlite_config(journal.parent)).close()
    (journal / "away").rename(journal / "journal")
    with pytest.raises(DataFolderError, match="was written with another catalog"):
        open_catalog(other)


def test_a_folder_from_before_the_note_takes_the_catalog_that_it_has(
    mariadb_config: Config, journal: Path
) -> None:
    (journal / "journal").rename(journal / "away")
    with closing(open_catalog(mariadb_config)) as catalog:
        catalog.sync_symbols([BTC])
    (journal / "away").rename(journal / "journal")
    (journal / "catalog.id").unlink()
    open_catalog(mariadb_config).close()
    kept = (journal / "catalog.id").read_text()
    assert re.fullmatch(r"[0-9a-f]{32}\n", kept)


# ------------------------------------------------------------------ errors


def test_errors_are_sentences_that_name_the_database_and_the_remedy(
    mariadb_config: Config, mariadb_server: MariadbServer
) -> None:
    cases = {
        r"cannot be reached: .*MYSQL_HOST and MYSQL_PORT": {"port": free_port()},
        r"refuses the user: .*MYSQL_PASSWORD": {
            "password": type(mariadb_config.database.mysql.password)("no")
        },
        r"lacks a right: GRANT": {"database": "mysql"},
        r"lacks a right|no such database": {"database": "nowhere"},
    }
    for sentence, changes in cases.items():
        with pytest.raises(CatalogError, match=sentence) as caught:
            open_catalog(with_settings(mariadb_config, **changes))
        assert str(caught.value).startswith("The database ")
        assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (1114, "its disk is full"),
        (1021, "its disk is full"),
        (1205, "another transaction keeps it locked"),
        (1290, "it is read-only"),
        (1792, "it is read-only"),
        (1040, "no connection left"),
        (1146, "tradeback migrate status"),
        (1053, "starts or stops"),
        (1142, "lacks a right"),
        (1999, "it says told by the test"),
    ],
)
def test_what_the_server_says_is_told(mariadb_config: Config, number: int, sentence: str) -> None:
    said = f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'told by the test'"
    with (
        closing(open_catalog(mariadb_config)) as catalog,
        pytest.raises(CatalogError, match=sentence),
        catalog.database.read() as connection,
    ):
        connection.exec_driver_sql(said)


def test_a_server_that_became_read_only_is_read_from(
    own_mariadb_server: MariadbServer, tmp_path: Path
) -> None:
    config = sqlite_config(tmp_path, **own_mariadb_server.environment, **PATIENT)
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([BTC])
        own_mariadb_server.run("SET GLOBAL read_only = 1")
        assert [symbol.name for symbol in catalog.symbols()] == ["BTCUSDT"]
        with pytest.raises(CatalogError, match="it is read-only"):
            catalog.sync_symbols([BTC, ETH])
        with closing(open_catalog(config)) as again:
            assert len(again.symbols()) == 1


def once_there(ask: Callable[[], T]) -> T:
    """The answer, as soon as there is one; until then the database is away."""
    answers: list[T] = []

    def answered() -> bool:
        try:
            answers.append(ask())
        except CatalogError as error:
            if not error.away:
                raise
        return bool(answers)

    await_true(answered, "it stays away")
    return answers[0]


def test_one_that_hangs_is_told_in_time_and_one_that_is_started_again_is_used_again(
    own_mariadb_server: MariadbServer, tmp_path: Path
) -> None:
    """Two seconds are for what hangs; whoever else is asked has the time that the machine takes."""
    config = sqlite_config(tmp_path, **own_mariadb_server.environment, **PATIENT)
    hasty = with_settings(config, timeout=2.0)
    with (
        closing(open_accounts(config)) as accounts,
        closing(once_there(lambda: open_accounts(hasty))) as soon,
    ):
        accounts.add_user("alice", "hash")
        assert len(once_there(soon.users)) == 1
        own_mariadb_server.halt()
        with pytest.raises(CatalogError, match=r"does not answer in time|cannot be reached") as caught:
            soon.users()
        assert caught.value.away
        with pytest.raises(CatalogError) as caught:
            open_catalog(hasty)
        assert caught.value.away
        own_mariadb_server.go_on()
        assert len(once_there(soon.users)) == 1
        own_mariadb_server.kill()
        with pytest.raises(CatalogError, match="cannot be reached"):
            accounts.add_user("bob", "hash")
        own_mariadb_server.start()
        assert accounts.add_user("bob", "hash").id == 2
        own_mariadb_server.stop()
        own_mariadb_server.start()
        assert accounts.version() == 2


def test_a_connection_that_the_driver_has_given_up_is_one_that_is_away(mariadb_config: Config) -> None:
    """It gives no number to that, which happens where a server hangs at the wrong moment."""
    with closing(open_catalog(mariadb_config)) as catalog, catalog.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.close()
        with (
            pytest.raises(CatalogError, match="has closed the connection") as caught,
            plain_errors("trading"),
        ):
            connection.execute(text("SELECT 1"))
        assert caught.value.away


def test_more_at_once_than_there_are_connections_wait_and_then_are_told(
    mariadb_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_settings(mariadb_config, max_open_conns=2, max_idle_conns=1)
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([BTC])
        with ThreadPoolExecutor(8) as threads:
            assert all(list(threads.map(lambda _: len(catalog.symbols()), range(64))))
        pool = catalog.engine.pool
        assert pool.timeout() == config.database.mysql.timeout
        monkeypatch.setattr(pool, "_timeout", 0.1)
        with (
            catalog.engine.connect(),
            catalog.engine.connect(),
            pytest.raises(CatalogError, match="raise MYSQL_MAX_OPEN_CONNS"),
        ):
            catalog.symbols()
        assert len(catalog.symbols()) == 1


def test_settings_of_the_pool_hold(mariadb_config: Config, mariadb_server: MariadbServer) -> None:
    config = with_settings(mariadb_config, max_open_conns=6, max_idle_conns=2)
    asked = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = %s"

    def connected() -> int:
        return int(mariadb_server.run(asked, database_of(config))[0][0])

    with closing(open_catalog(config)) as catalog:
        opened = [catalog.engine.connect() for _ in range(6)]
        for connection in opened:
            connection.execute(text("SELECT 1"))
        # With what made the tables, which the server may take a moment to let go of.
        await_true(lambda: connected() == 6, "not as many connections as are in use")
        for connection in opened:
            connection.close()
        await_true(lambda: connected() == 2, "idle connections are not closed")
    await_true(lambda: connected() == 0, "connections are not closed")


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"MYSQL_TIMEOUT": "1s"}, "give at least 2s"),
    ({"MYSQL_ACCOUNTS_POLL": "6s"}, "give at most 5s"),
    ({"MYSQL_MAX_IDLE_CONNS": "0"}, "MYSQL_MAX_IDLE_CONNS"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sqlite_config(tmp_path, **changes)


# ------------------------------------------------------------------ several at once


@contextmanager
def transaction(server: MariadbServer, database: str) -> Iterator[Any]:
    """A cursor of root within a transaction, which is rolled back at the end."""
    with server.root(database) as cursor:
        cursor.execute("BEGIN")
        yield cursor
        cursor.execute("ROLLBACK")


def waits_for_a_lock(server: MariadbServer) -> Callable[[], bool]:
    asked = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'"
    return lambda: server.run(asked)[0][1] not in (0, "0")


def test_who_is_undone_in_a_deadlock_tries_again(own_mariadb_server: MariadbServer, tmp_path: Path) -> None:
    server, database = own_mariadb_server, own_mariadb_server.DATABASE
    config = sqlite_config(tmp_path, **server.environment, **PATIENT)
    with closing(open_accounts(config)) as accounts, ThreadPoolExecutor(1) as threads:
        alice = accounts.add_user("alice", "hash")
        with transaction(server, database) as other:
            # The one with less to undo is undone: that is to be ours.
            for n in range(50):
                other.execute(
                    "INSERT INTO users (username, password_hash, symbol_patterns) VALUES (%s, '', '*')", (n,)
                )
            other.execute("UPDATE users SET is_active = 1, version = 99 WHERE id = 1")
            changing = threads.submit(accounts.set_patterns, alice.id, ["BTC*"])
            await_true(waits_for_a_lock(server), "ours does not wait")
            other.execute("UPDATE accounts_mark SET version = version + 100")
        changing.result(60)
        assert accounts.users()[0].symbol_patterns == ("BTC*",)
        assert server.run("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")[0][1] not in (0, "0")


def test_a_row_that_somebody_keeps_locked_is_told(
    mariadb_config: Config, mariadb_server: MariadbServer
) -> None:
    def in_a_second(connection: Any, *_: object) -> None:
        with closing(connection.cursor()) as cursor:
            cursor.execute("SET innodb_lock_wait_timeout = 1")

    with closing(open_accounts(mariadb_config)) as accounts:
        # Sooner than it is given up that the server answers.
        event.listen(accounts.engine, "checkout", in_a_second)
        alice = accounts.add_user("alice", "hash")
        with transaction(mariadb_server, database_of(mariadb_config)) as other:
            other.execute("UPDATE accounts_mark SET version = version + 1")
            with pytest.raises(CatalogError, match="another transaction keeps it locked"):
                accounts.watch(alice.id, "BTCUSDT")
            assert accounts.watchlist(alice.id) == []  # reading waits for nobody
        assert accounts.watch(alice.id, "BTCUSDT") == ["BTCUSDT"]
