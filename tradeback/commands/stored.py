"""What commands that read the stores have in common: which exchange's, and which symbol."""

from __future__ import annotations

import contextlib

from tradeback.config import Config
from tradeback.errors import UnknownSymbolError
from tradeback.model import Symbol
from tradeback.store.catalog import open_catalog
from tradeback.store.history_sqlite import HISTORY_FILE


def decided(config: Config) -> Config:
    """With the exchange left to `auto`: binance where its history is there, else sim."""
    if config.exchange.name != "auto":
        return config
    return config.with_exchange("binance" if (config.data.of("binance") / HISTORY_FILE).exists() else "sim")


def known_symbol(config: Config, name: str) -> Symbol:
    """The symbol of this name. UnknownSymbolError where the catalog has none, DataFolderError where there is none."""
    with contextlib.closing(open_catalog(config, create=False)) as catalog:
        known = catalog.symbol(name)
    if known is None:
        raise UnknownSymbolError(
            f"{name} is no symbol of {config.exchange.name}: `tradeback symbols list --all` names them"
        )
    return known
