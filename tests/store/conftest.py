"""One fixture a store, parametrised over its backends: a backend is done when the suite passes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tradeback.config import Config, load_config
from tradeback.store.base import Catalog
from tradeback.store.catalog import open_catalog

OpenCatalog = Callable[[], Catalog]


def sqlite_config(folder: Path) -> Config:
    return load_config(environ={"DATA_DIR": str(folder), "TRADEBACK_EXCHANGE": "sim"})


@pytest.fixture(params=["sqlite"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenCatalog]:
    """Opens one and the same catalog, as often as it is called; all are closed at the end."""
    configs = {"sqlite": sqlite_config}
    config = configs[request.param](tmp_path)
    opened: list[Catalog] = []

    def open_one() -> Catalog:
        opened.append(open_catalog(config))
        return opened[-1]

    yield open_one
    for catalog in opened:
        catalog.close()


@pytest.fixture
def catalog(open_again: OpenCatalog) -> Catalog:
    return open_again()
