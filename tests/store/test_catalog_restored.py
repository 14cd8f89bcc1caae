"""A catalog that was restored from a copy older than the journal: no stream id means two symbols."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.store.test_catalog import BTC, DOT, ETH, ids
from tradeback.config import Config
from tradeback.errors import CatalogError
from tradeback.recorder.symbols import SymbolBook
from tradeback.store.catalog import SqlCatalog, open_catalog
from tradeback.store.symbols_copy import keep_symbols


def folder_of(config: Config) -> Path:
    return config.data.of("sim")


def journaled(config: Config) -> None:
    """A catalog of two symbols, kept as a server keeps them, and a journal beside it."""
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([BTC, ETH])
        keep_symbols(folder_of(config), catalog.symbols())
    journal = folder_of(config) / "journal"
    journal.mkdir()
    (journal / "00000000000000000001.segment").touch()


def put_in_older_copy(catalog: SqlCatalog) -> None:
    """What a copy from before the second symbol has."""
    with catalog.database.change() as connection:
        connection.execute(text("DELETE FROM symbolsmap WHERE stream_id = 2"))
        connection.execute(text("UPDATE stream_id_mark SET last_stream_id = 1"))


def test_a_symbol_that_the_copy_lacks_has_its_stream_id_again(sql_config: Config) -> None:
    journaled(sql_config)
    with closing(open_catalog(sql_config)) as catalog:
        put_in_older_copy(catalog)
    with closing(open_catalog(sql_config)) as catalog:
        assert ids(catalog) == {"BTCUSDT": 1, "ETHUSDT": 2}
        assert [symbol.info for symbol in catalog.symbols()] == [BTC, ETH]
        catalog.sync_symbols([BTC, DOT, ETH])
        assert ids(catalog) == {"BTCUSDT": 1, "ETHUSDT": 2, "DOTUSDT": 3}


def test_a_catalog_that_gave_the_stream_id_to_another_is_refused(sql_config: Config) -> None:
    journaled(sql_config)
    with closing(open_catalog(sql_config)) as catalog:
        put_in_older_copy(catalog)
        catalog.sync_symbols([BTC, DOT])  # as from a machine that has no such journal
        assert ids(catalog) == {"BTCUSDT": 1, "DOTUSDT": 2}
    with pytest.raises(CatalogError, match="stream id 2 to another symbol than ETHUSDT"):
        open_catalog(sql_config)
    with closing(open_catalog(sql_config, create=False)) as catalog:  # as the API does
        assert len(catalog.symbols()) == 2


def test_a_row_that_was_deleted_stays_deleted(sql_config: Config) -> None:
    journaled(sql_config)
    with closing(open_catalog(sql_config)) as catalog, catalog.database.change() as connection:
        connection.execute(text("DELETE FROM symbolsmap WHERE stream_id = 2"))
    with closing(open_catalog(sql_config)) as catalog:
        assert ids(catalog) == {"BTCUSDT": 1}
        catalog.sync_symbols([BTC, ETH])
    with closing(open_catalog(sql_config)) as catalog:
        assert ids(catalog) == {"BTCUSDT": 1, "ETHUSDT": 3}


def test_without_a_journal_nothing_is_put_back(sql_config: Config) -> None:
    with closing(open_catalog(sql_config)) as catalog:
        catalog.sync_symbols([BTC, ETH])
        keep_symbols(folder_of(sql_config), catalog.symbols())
        put_in_older_copy(catalog)
    with closing(open_catalog(sql_config)) as catalog:
        assert ids(catalog) == {"BTCUSDT": 1}


def test_a_recorder_that_runs_knows_them_while_they_are_lost(sql_config: Config) -> None:
    journaled(sql_config)
    with closing(open_catalog(sql_config)) as catalog:
        book = SymbolBook(catalog)
        assert len(book.read()) == 2
        put_in_older_copy(catalog)
        assert len(book.read()) == 1
        assert book.quantity_precision(2) == ETH.quantity_precision
        assert book.named("ETHUSDT") is not None
