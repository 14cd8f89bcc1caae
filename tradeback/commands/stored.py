"""What commands that read the stores have in common: which exchange's, and which symbol."""

from __future__ import annotations

import contextlib

from tradeback.config import Config
from tradeback.errors import UnknownSymbolError
from tradeback.model import Symbol
from tradeback.store.catalog import CATALOG_FILE, noted_exchange, open_catalog
from tradeback.store.history_sqlite import HISTORY_FILE


def decided(config: Config) -> Config:
    """With the exchange left to `auto`: that of the MySQL that is configured; else binance where its history or its
    catalog is there, else sim. CatalogError where MySQL cannot tell."""
    if config.exchange.name != "auto":
        return config
    if config.database.mysql.host:
        return config.with_exchange(noted_exchange(config))
    folder = config.data.of("binance")
    there = (folder / HISTORY_FILE).exists() or (folder / CATALOG_FILE).exists()
    return config.with_exchange("binance" if there else "sim")


def known_symbol(config: Config, name: str) -> Symbol:
    """The symbol of this name. UnknownSymbolError where the catalog has none, DataFolderError where there is none."""
    with contextlib.closing(open_catalog(config, create=False)) as catalog:
        known = catalog.symbol(name)
    if known is None:
        raise UnknownSymbolError(
            f"{name} is no symbol of {config.exchange.name}: `tradeback symbols list --all` names them"
        )
    return known
