"""Which history there is: InfluxDB where INFLUX_URL names one, else the SQLite file of the data folder."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress

import structlog

from tradeback.config import Config
from tradeback.errors import DataFolderError, UnknownSymbolError
from tradeback.store.base import History
from tradeback.store.catalog import open_catalog
from tradeback.store.history_sqlite import SqliteHistory, open_sqlite_history
from tradeback.store.symbols_copy import kept_symbols

ASK_AGAIN_AFTER = 1.0

log = structlog.get_logger(__name__)


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
    names = SymbolNames(config, write=write)
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
    most once a second. A catalog that was restored from an older copy may lack some: the copy of the symbols in the
    data folder has them. May be used from several threads.

    With `write`, what neither of them can name is stored under a name of its own, `#` and the stream id, and told in
    the log: one symbol must not hold up all others.
    """

    def __init__(self, config: Config, *, write: bool) -> None:
        self._config = config
        self._folder = config.data.of(config.exchange.name)
        self._write = write
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._unnamed: set[int] = set()
        self._read_at = float("-inf")

    def symbol_of(self, stream_id: int) -> str:
        """The symbol. UnknownSymbolError where the catalog has none, DataFolderError where it cannot be read."""
        name = self._names.get(stream_id)
        if name is None:
            self._read()
            name = self._names.get(stream_id)
        if name is not None:
            return name
        if not self._write:
            raise UnknownSymbolError(
                f"The stream id {stream_id} is that of no symbol of the catalog: "
                "`tradeback symbols list --all` names them"
            )
        stand_in = f"#{stream_id}"
        if stream_id not in self._unnamed:
            self._unnamed.add(stream_id)
            log.error(
                "the journal has a stream id that the catalog does not know: restore the catalog",
                stream_id=stream_id,
                stored_as=stand_in,
            )
        return stand_in

    def stream_ids(self) -> dict[str, int]:
        """The stream ids of all symbols. DataFolderError where the catalog cannot be read."""
        self._read()
        return {name: stream_id for stream_id, name in self._names.items()}

    def _read(self) -> None:
        with self._lock:
            if time.monotonic() - self._read_at > ASK_AGAIN_AFTER:
                with closing(open_catalog(self._config, create=False)) as catalog:
                    known = [*kept_symbols(self._folder), *catalog.symbols()]
                self._names |= {symbol.stream_id: symbol.name for symbol in known}
                self._read_at = time.monotonic()
