"""The stores that answers come from, opened when they are first needed and again where their file was replaced.

A store that cannot be opened or read makes `Unavailable`, which is answered 503 with the component's name; what was in
the way may be gone at the next request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from tradeback.errors import DataFolderError, StoreError, TradebackError
from tradeback.store.base import Accounts, Catalog, History, Prices
from tradeback.store.stats import Reading


class Closable(Protocol):
    """What a store can do at least."""

    def close(self) -> None: ...


Kind = TypeVar("Kind", bound=Closable)


class Unavailable(TradebackError):
    """A store cannot be read. `component` is its name, the message is for the operator's log alone."""

    def __init__(self, component: str, message: str) -> None:
        super().__init__(message)
        self.component = component


class Store(Generic[Kind]):
    """One store: its name, the file that it is in (None: it is on another machine), and how it is opened. May be used
    from several threads.

    Whether another file stands at its place is looked after at each use, or, where that is not to be expected, no
    more often than every `look_again` seconds.
    """

    def __init__(
        self, name: str, path: Path | None, open_it: Callable[[], Kind], look_again: float = 0.0
    ) -> None:
        self.name = name
        self.path = path
        self._open = open_it
        self._lock = threading.Lock()
        self._opened: Kind | None = None
        self._file: tuple[int, int] | None = None
        self._look_again = look_again
        self._look_at = 0.0

    def use(self) -> AbstractContextManager[Kind]:
        """The store, for as long as the block lasts. StoreError within it becomes `Unavailable`."""
        return _Use(self)

    def current(self) -> Kind:
        """The store as it stands now. StoreError where there is none."""
        opened = self._opened
        if self._look_again and opened is not None and time.monotonic() < self._look_at:
            return opened
        file = self.place()
        with self._lock:
            if self._opened is None or self._file != file:
                # What was opened before is not closed: another thread may be reading it. Its last user frees it.
                self._opened = self._open()
                self._file = file
            self._look_at = time.monotonic() + self._look_again
            return self._opened

    def place(self) -> tuple[int, int]:
        """Which file stands at its path: device and inode; the same for ever where it has none. DataFolderError."""
        if self.path is None:
            return 0, 0
        try:
            status = self.path.stat()
        except OSError as error:
            raise DataFolderError(f"{self.path}: {error.strerror}; start what makes it") from error
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Close it, where it is open."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = None


class _Use(Generic[Kind]):
    """One use of a store. A class, for a generator would cost as much as reading a price."""

    __slots__ = ("_store",)

    def __init__(self, store: Store[Kind]) -> None:
        self._store = store

    def __enter__(self) -> Kind:
        try:
            return self._store.current()
        except StoreError as error:
            raise Unavailable(self._store.name, str(error)) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StoreError):
            raise Unavailable(self._store.name, str(error)) from error


@dataclass(frozen=True, slots=True)
class Stores:
    """All that the API reads. `counters` gives the mapped counters of every process that ran here, by its name."""

    catalog: Store[Catalog]
    accounts: Store[Accounts]
    history: Store[History]
    prices: Store[Prices]
    counters: Callable[[], Mapping[str, Reading]]

    def close(self) -> None:
        for store in (self.catalog, self.accounts, self.history, self.prices):
            store.close()
