"""What the recorder knows of symbols: the catalog as it is, also where the server learnt of new ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.mariadb import MariadbServer
from tests.servers.slow import SlowWay
from tests.store.conftest import PATIENT
from tests.waiting import await_true
from tradeback.config import Config, load_config
from tradeback.errors import CatalogError
from tradeback.model import SymbolInfo
from tradeback.recorder import symbols
from tradeback.recorder.symbols import PRECISION_UNKNOWN, SymbolBook
from tradeback.store.catalog import SqlCatalog, open_catalog


def info(name: str, quantity_precision: int = 5) -> SymbolInfo:
    return SymbolInfo(name, name[:3], "USDT", True, 2, quantity_precision)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    opened = open_catalog(Config.model_validate({"data": {"folder": tmp_path}, "exchange": {"name": "sim"}}))
    yield opened
    opened.close()


def test_a_symbol_that_was_added_meanwhile_is_found_at_once(catalog: SqlCatalog) -> None:
    catalog.sync_symbols([info("BTCUSDT")])
    book = SymbolBook(catalog)
    assert book.quantity_precision(1) == 5
    assert book.named("BTCUSDT") == book.symbol(1)
    assert book.symbol(7) is None
    catalog.sync_symbols([info("BTCUSDT"), info("ETHUSDT", 4)])
    assert book.quantity_precision(2) == 4


def test_a_symbol_that_is_not_there_is_looked_for_again_a_second_later(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.sync_symbols([info("BTCUSDT")])
    book = SymbolBook(catalog)
    assert symbols.ASK_AGAIN_AFTER == 1.0
    monkeypatch.setattr(symbols, "ASK_AGAIN_AFTER", 3600.0)
    assert book.named("ETHUSDT") is None
    catalog.sync_symbols([info("BTCUSDT"), info("ETHUSDT", 4)])
    assert book.named("ETHUSDT") is None
    monkeypatch.setattr(symbols, "ASK_AGAIN_AFTER", 0.0)
    assert book.named("ETHUSDT") is not None


def test_a_precision_that_changed_is_seen_within_a_minute(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.sync_symbols([info("BTCUSDT")])
    book = SymbolBook(catalog)
    assert book.quantity_precision(1) == 5
    catalog.sync_symbols([info("BTCUSDT", 8)])
    monkeypatch.setattr(symbols, "READ_AGAIN_AFTER", 0.0)
    await_true(lambda: book.quantity_precision(1) == 8, "the precision is read again")


def test_a_catalog_that_was_lost_costs_no_digit(catalog: SqlCatalog) -> None:
    assert SymbolBook(catalog).quantity_precision(1) == PRECISION_UNKNOWN


def test_a_catalog_that_is_away_leaves_what_is_known(
    mariadb_server: MariadbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = mariadb_server.environment_of(mariadb_server.new_database())
    with SlowWay(mariadb_server.port) as way:
        environ = {"DATA_DIR": str(tmp_path), "TRADEBACK_EXCHANGE": "sim", **settings, **PATIENT}
        catalog = open_catalog(load_config(environ=environ | {"MYSQL_PORT": str(way.port)}))
        catalog.sync_symbols([info("BTCUSDT")])
        book = SymbolBook(catalog)
        assert book.quantity_precision(1) == 5
    monkeypatch.setattr(symbols, "READ_AGAIN_AFTER", 0.0)
    assert book.quantity_precision(1) == 5
    with pytest.raises(CatalogError, match="it cannot be reached"):
        book.symbol(2)
    catalog.close()


def test_nobody_who_asks_for_what_is_known_waits_for_a_catalog_that_hangs(
    mariadb_server: MariadbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = mariadb_server.environment_of(mariadb_server.new_database()) | {"MYSQL_TIMEOUT": "10m"}
    with SlowWay(mariadb_server.port) as way:
        environ = {"DATA_DIR": str(tmp_path), "TRADEBACK_EXCHANGE": "sim", **settings}
        catalog = open_catalog(load_config(environ=environ | {"MYSQL_PORT": str(way.port)}))
        catalog.sync_symbols([info("BTCUSDT")])
        book = SymbolBook(catalog)
        assert book.quantity_precision(1) == 5
        catalog.sync_symbols([info("BTCUSDT", 4)])
        way.delay = 3.0  # for each piece, of which a question has some
        monkeypatch.setattr(symbols, "READ_AGAIN_AFTER", 0.0)
        assert book.quantity_precision(1) == 5
        reading = [thread for thread in threading.enumerate() if thread.name == "symbols"]
        assert len(reading) == 1
        assert book.quantity_precision(1) == 5
        assert reading[0].is_alive()
        way.delay = 0.0
        await_true(lambda: book.quantity_precision(1) == 4, "what it was asked comes")
    catalog.close()
