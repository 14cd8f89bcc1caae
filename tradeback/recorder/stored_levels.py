"""StoredLevels: the levels in the history, written and read in a thread of its own, so that a history that is away,
slow or hangs keeps no level from those that are told of it at once."""

from __future__ import annotations

import threading
from typing import NamedTuple

import structlog

from tradeback.errors import StoreError
from tradeback.model import EnigmaLevel, Symbol, Tick
from tradeback.recorder.symbols import SymbolBook
from tradeback.store.base import History

log = structlog.get_logger(__name__)

# What was traded after a symbol's last published level is taken from the store at start, as far as this: more trades
# than that show a symbol that trades on, whose next trade tells its level.
TICKS_AT_START = 1_000
FAR_FUTURE_NS = 2**63 - 1
RETRY_MIN = 0.5
RETRY_MAX = 10.0
LAST_WORK = 2.0


class Before(NamedTuple):
    """What is stored of a symbol: its newest level, None where it has none, and its first trades from then on. Of one
    without a level, the newest trades."""

    symbol: Symbol
    level: EnigmaLevel | None
    ticks: list[Tick]


def stored_before(history: History, symbols: SymbolBook) -> list[Before]:
    """Of every symbol that has trades or a level. StoreError where it cannot be read."""
    found = []
    covered = history.covered()
    for symbol in symbols.read():
        level = history.enigma(symbol.stream_id)
        if level is not None:
            since = level.ts_event
        elif symbol.stream_id in covered:
            since = history.newest_tick(symbol.stream_id)
        else:
            continue
        ticks = list(history.ticks(symbol.stream_id, since, FAR_FUTURE_NS, limit=TICKS_AT_START))
        found.append(Before(symbol, level, ticks))
    return found


class StoredLevels:
    """Stores the latest level of each symbol, again and again until the history takes it; and reads what was stored
    before, where that could not be read at once. `start` it once; the rest may be called from any thread."""

    def __init__(self, history: History, symbols: SymbolBook) -> None:
        self._history = history
        self._symbols = symbols
        self._news = threading.Condition()
        self._waiting: dict[int, EnigmaLevel] = {}
        self._wanted = False
        self._found: list[Before] = []
        self._ending = threading.Event()
        self._error = ""
        self._thread = threading.Thread(target=self._run, name="stored levels", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, level: EnigmaLevel) -> None:
        """Have a level stored, in the place of one of this symbol that still waits."""
        with self._news:
            self._waiting[level.stream_id] = level
            self._news.notify()

    def read_later(self) -> None:
        """Have `stored_before` read as soon as that can be done; `taken` gives it."""
        with self._news:
            self._wanted = True
            self._news.notify()

    def taken(self) -> list[Before]:
        """What was read since `read_later`, once."""
        if not self._found:
            return []
        with self._news:
            found, self._found = self._found, []
        return found

    def stop(self) -> None:
        """Store what waits, as far as that is done in LAST_WORK seconds, and end."""
        self._ending.set()
        with self._news:
            self._news.notify()
        self._thread.join(LAST_WORK)

    def _run(self) -> None:
        pause = RETRY_MIN
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._wanted or self._ending.is_set())
                levels, wanted = dict(self._waiting), self._wanted
            if not levels and self._ending.is_set():
                return
            try:
                self._store(levels)
                if wanted:
                    self._read()
            except Exception as error:  # noqa: BLE001  whatever it is, later levels are stored
                self._failed(error)
                if self._ending.is_set():
                    return
                self._ending.wait(pause)
                pause = min(pause * 2, RETRY_MAX)
            else:
                pause = RETRY_MIN
                if self._error:
                    log.info("levels are stored again")
                self._error = ""

    def _store(self, levels: dict[int, EnigmaLevel]) -> None:
        if not levels:
            return
        self._history.write_enigma(list(levels.values()))
        with self._news:
            for stream_id, level in levels.items():
                if self._waiting[stream_id] is level:
                    del self._waiting[stream_id]

    def _read(self) -> None:
        found = stored_before(self._history, self._symbols)
        with self._news:
            self._found, self._wanted = found, False

    def _failed(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if not isinstance(error, StoreError):
            log.exception("levels are published and not stored")
        elif said != self._error:
            log.error("levels are published and not stored", reason=said)
        self._error = said
