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
from tradeback.store.base import Accounts, Cache, Catalog, Elsewhere, History, Prices
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


AWAY_S = 1.0  # how long nobody asks a store of another machine that did not answer
PROBE_S = 30.0  # how long the others wait for the one that asks again, should it never come back


class Store(Generic[Kind]):
    """One store: its name, the file that it is in (None: it is on another machine), and how it is opened. With
    `elsewhere` it is on another machine for as long as there is no such file. May be used from several threads.

    Whether another file stands at its place is looked after at each use, or, where that is not to be expected, no
    more often than every `look_again` seconds. Another machine may take its time not to answer: for `away` seconds
    (None: AWAY_S) it is not asked again, and then by one request at a time, until it answers; the others are told at
    once that it is away.
    """

    def __init__(
        self,
        name: str,
        path: Path | None,
        open_it: Callable[[], Kind],
        look_again: float = 0.0,
        *,
        elsewhere: bool = False,
        away: float | None = None,
    ) -> None:
        self.name = name
        self.path = path
        self._elsewhere = elsewhere
        self._away_s = away
        self._open = open_it
        self._lock = threading.Lock()
        self._opened: Kind | None = None
        self._file: tuple[int, int] | None = None
        self._look_again = look_again
        self._look_at = 0.0
        self._turn = threading.Lock()
        self._away: StoreError | None = None  # what it did not answer with last
        self._away_until = 0.0
        self._asking = 0  # the thread that asks again
        self._use = _Use(self)

    def use(self) -> AbstractContextManager[Kind]:
        """The store, for as long as the block lasts. StoreError within it becomes `Unavailable`."""
        return self._use

    def current(self) -> Kind:
        """The store as it stands now. StoreError where there is none."""
        if self._away is not None:
            self._stay_away()
        opened = self._opened
        if self._look_again and opened is not None and time.monotonic() < self._look_at:
            return opened
        file = self.place()
        with self._lock:
            if self._opened is None or self._file != file:
                if self._away is not None and self._asking != threading.get_ident():
                    self._stay_away()  # it was found to be away while this thread waited for the lock
                # What was opened before is not closed: another thread may be reading it. Its last user frees it.
                try:
                    self._opened = self._open()
                except StoreError as error:
                    self.failed(error)
                    raise
                self._file = file
            self._look_at = time.monotonic() + self._look_again
            return self._opened

    def _stay_away(self) -> None:
        """Raise that it is away, unless this is the one request that is to ask again."""
        with self._turn:
            away, now = self._away, time.monotonic()
            if away is None:
                return
            if now < self._away_until:
                raise type(away)(*away.args)
            self._away_until = now + PROBE_S
            self._asking = threading.get_ident()

    @property
    def opened(self) -> Kind | None:
        """The store as it was opened last; None where nobody has asked for it."""
        return self._opened

    @property
    def is_away(self) -> bool:
        """Whether it did not answer the last one that asked."""
        return self._away is not None

    def failed(self, error: StoreError) -> None:
        """A use of it ended so."""
        if error.away:
            self._away = error
            self._away_until = time.monotonic() + (AWAY_S if self._away_s is None else self._away_s)
        else:
            self._away = None

    def answered(self) -> None:
        """A use of it ended well."""
        self._away = None

    def place(self) -> tuple[int, int]:
        """Which file stands at its path: device and inode; the same for ever where it has none. DataFolderError."""
        if self.path is None:
            return 0, 0
        try:
            status = self.path.stat()
        except OSError as error:
            if self._elsewhere:
                return 0, 0
            raise DataFolderError(f"{self.path}: {error.strerror}; start what makes it") from error
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Close it, where it is open."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = None


class _Use(Generic[Kind]):
    """The uses of a store: it knows nothing of any one of them. A class, for a generator would cost as much as reading
    a price."""

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
            self._store.failed(error)
            raise Unavailable(self._store.name, str(error)) from error
        if self._store.is_away:
            self._store.answered()


@dataclass(frozen=True, slots=True)
class Stores:
    """All that the API reads. `counters` gives the mapped counters of every process that ran here, by its name;
    `elsewhere` are server and recorder where they may be on another machine; `cache` keeps bars where the
    history is."""

    catalog: Store[Catalog]
    accounts: Store[Accounts]
    history: Store[History]
    prices: Store[Prices]
    counters: Callable[[], Mapping[str, Reading]]
    elsewhere: Elsewhere | None = None
    cache: Store[Cache] | None = None

    def close(self) -> None:
        for store in (self.catalog, self.accounts, self.history, self.prices):
            store.close()
        if self.cache is not None:
            self.cache.close()
        if self.elsewhere is not None:
            self.elsewhere.close()
