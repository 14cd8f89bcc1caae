"""Which history there is: InfluxDB where INFLUX_URL names one, else the SQLite file of the data folder."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress

from tradeback.config import Config
from tradeback.errors import DataFolderError, UnknownSymbolError
from tradeback.store.base import History
from tradeback.store.catalog import open_catalog
from tradeback.store.history_sqlite import SqliteHistory, open_sqlite_history

ASK_AGAIN_AFTER = 1.0


def open_history(config: Config, *, write: bool) -> History:
    """The history of the configured exchange, which must be decided (`Config.with_exchange`).

    With `write` it is made where there is none; without, a DataFolderError says that there is none. Readers of
    InfluxDB need no data folder.
    """
    if not config.database.influx.url:
        return open_sqlite_history(config, write=write)
    from tradeback.store.history_influx import InfluxHistory
    from tradeback.store.influx import Influx

    book: SqliteHistory | None = None
    with suppress(*(() if write else (DataFolderError,))):
        book = open_sqlite_history(config, write=write)
    names = SymbolNames(config)
    return InfluxHistory(
        Influx(config.database.influx),
        config.exchange.name,
        names.symbol_of,
        names.stream_ids,
        config.history,
        book,
        write=write,
    )


class SymbolNames:
    """The catalog's symbols by stream id, which never changes; read again when one is asked for that was not there, at
    most once a second. May be used from several threads."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._read_at = float("-inf")

    def symbol_of(self, stream_id: int) -> str:
        """The symbol. UnknownSymbolError where the catalog has none, DataFolderError where it cannot be read."""
        name = self._names.get(stream_id)
        if name is None:
            self._read()
            name = self._names.get(stream_id)
        if name is None:
            raise UnknownSymbolError(
                f"The stream id {stream_id} is that of no symbol of the catalog: "
                "`tradeback symbols list --all` names them"
            )
        return name

    def stream_ids(self) -> dict[str, int]:
        """The stream ids of all symbols. DataFolderError where the catalog cannot be read."""
        self._read()
        return {name: stream_id for stream_id, name in self._names.items()}

    def _read(self) -> None:
        with self._lock:
            if time.monotonic() - self._read_at > ASK_AGAIN_AFTER:
                with closing(open_catalog(self._config, create=False)) as catalog:
                    self._names = {symbol.stream_id: symbol.name for symbol in catalog.symbols()}
                self._read_at = time.monotonic()
