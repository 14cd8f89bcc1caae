"""Sink: what every sink is. A thread with a durable cursor of its own in both journals, which falls behind, fails and
starts again without the others noticing.

A sink reads what is there from both journals, takes it, commits, and only then saves its cursors. So after a kill or
an error it sees again what was not committed, perhaps also what was: what it does must be idempotent.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from tradeback._fast.journal import JournalCursor, Record, drop_cursor, durable_places
from tradeback._fast.stats import Stats
from tradeback.errors import PlaceLostError, TradebackError

log = structlog.get_logger(__name__)

# The server's journal, and that of the recorder's own repairs. A gap is read before what fills it.
JOURNALS = ("journal", "repairs")
SINKS = (
    "history",
    "indicators",
    "cache",
    "bus",
)  # that there may be, for cursors of those no longer configured

READ_RECORDS = 32_768  # of one journal, the most in one batch
GATHER_LOOK = 0.005  # how often it is looked whether a batch is large enough
IDLE_MIN = 0.001
IDLE_MAX = 0.010
RETRY_MIN = 0.1
RETRY_MAX = 10.0
LAST_WORK = 2.0


def journal_end(folder: Path) -> int:
    """The next sequence number of the journal in `folder`; 0 where there is none yet."""
    with JournalCursor.open(folder, start="newest") as cursor:
        return cursor.seq


def drop_other_cursors(folder: Path, configured: set[str]) -> None:
    """Forget the places of sinks that are no longer configured, so that no journal waits for them."""
    for journal in JOURNALS:
        for name in durable_places(folder / journal):
            if name in SINKS and name not in configured:
                drop_cursor(folder / journal, name)
                log.info("a sink is no longer configured, its place is forgotten", sink=name, journal=journal)


class Enough(NamedTuple):
    """When a batch is committed: once it has so many records, or its first has waited for so many seconds."""

    records: int
    seconds: float


AT_ONCE = Enough(1, 0.0)


class Sink(ABC):
    """`folder` is the data folder of one exchange. `window` is how long records are gathered, in seconds, and `enough`
    what a batch must have beside that.

    `open`, `take`, `commit`, `lost` and `at_end` run in the sink's thread; whatever they raise is logged and counted,
    and the sink starts again with `open` from its saved places. The rest is for the owner's thread.
    """

    def __init__(
        self, name: str, folder: Path, stats: Stats, window: float, enough: Enough = AT_ONCE
    ) -> None:
        self.name = name
        self.places: dict[str, int] = {}  # next sequence numbers, as last committed
        self.error = ""
        self.errors = 0
        self.on_commit: Callable[[], None] = _nothing  # called in the sink's thread
        self._folder = folder
        self._stats = stats
        self._window = window
        self._enough = enough
        self._stopping = threading.Event()
        self._at_end = False
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)

    # ---- what a sink is made of

    @abstractmethod
    def open(self) -> Mapping[str, int] | None:
        """Make ready, forgetting whatever was taken and not committed. Returns the places that the store itself
        keeps with its data, where it does: a journal without one is read from its oldest record. None: it keeps
        none, the saved cursors hold."""

    @abstractmethod
    def take(self, journal: str, records: list[Record]) -> None:
        """Take records of one of the JOURNALS, in order."""

    @abstractmethod
    def commit(self, places: Mapping[str, int]) -> None:
        """Store what was taken; `places` are the next sequence numbers."""

    def finish(self) -> None:  # noqa: B027
        """Called once before the thread ends in good order."""

    def lost(self, journal: str) -> None:
        """Records were lost before those that come next: retention overtook this sink, or they were damaged."""
        self._stats.increase("places_lost")

    def at_end(self) -> bool:
        """All that there was is committed; called after each look. True where there is something to commit all the
        same."""
        return False

    # ---- for its owner

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Have it end after the batch that it is at; `join` waits for that."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until the thread has ended and its places are saved."""
        self._thread.join()

    def stop(self) -> None:
        """Finish the batch, save the places, end."""
        self.ask_to_stop()
        self.join()

    @property
    def caught_up(self) -> bool:
        """Whether it had all that there was when it last looked, a window ago at most."""
        return self._at_end

    def state(self) -> dict[str, Any]:
        """For the control socket: places, how many records behind, the last error (empty while all is well)."""
        journals = {}
        for journal, place in list(self.places.items()):
            end = journal_end(self._folder / journal)
            journals[journal] = {"place": place, "end": end, "lag": max(end - place, 0)}
        return {
            "name": self.name,
            "journals": journals,
            "caught_up": self.caught_up,
            "error": self.error,
            "errors": self.errors,
        }

    # ---- the thread

    def _run(self) -> None:
        pause = RETRY_MIN
        while not self._stopping.is_set():
            committed = dict(self.places)
            try:
                self._follow()
                return
            except Exception as error:  # noqa: BLE001  whatever it is, the sink goes on, and it is told
                self._failed(error)
            if self.places != committed:
                pause = RETRY_MIN
            self._stopping.wait(pause)
            pause = min(pause * 2, RETRY_MAX)

    def _failed(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if not isinstance(error, TradebackError):
            log.exception("a sink failed, it tries again from its place", sink=self.name)
        elif said != self.error:
            # Once, not at each try.
            log.error("a sink failed, it tries again from its place", sink=self.name, reason=said)
        self.error = said
        self.errors += 1
        self._at_end = False
        self._stats.increase("sink_errors")

    def _follow(self) -> None:
        with ExitStack() as stack:
            known = {journal: self.name in durable_places(self._folder / journal) for journal in JOURNALS}
            cursors = {
                journal: stack.enter_context(JournalCursor.open(self._folder / journal, self.name))
                for journal in JOURNALS
            }
            stored = self.open()
            if stored is not None:
                for journal, cursor in cursors.items():
                    self._go_to_truth(journal, cursor, known[journal], stored.get(journal))
            self.places = {journal: cursor.seq for journal, cursor in cursors.items()}
            self._go_on(cursors)
            self.finish()

    def _go_to_truth(self, journal: str, cursor: JournalCursor, saved: bool, stored: int | None) -> None:
        """Where store and cursor differ, a machine crashed or one of them was replaced: reading too much does no
        harm, reading too little does."""
        if stored is None or not saved:
            cursor.seek("oldest")
        elif stored < cursor.seq:
            log.warning("the store is behind its cursor", sink=self.name, journal=journal, place=stored)
            cursor.seek(stored)

    def _go_on(self, cursors: dict[str, JournalCursor]) -> None:
        idle = IDLE_MIN
        last_moment = float("inf")
        taken, first_at = 0, 0.0  # of the batch that is being gathered
        while True:
            began = time.monotonic()
            # Asked before the journals are read: the end comes after a look that found nothing more.
            stopping = self._stopping.is_set()
            if stopping:
                # What is there is stored before the end, as far as that is soon done.
                last_moment = min(last_moment, began + LAST_WORK)
                if began > last_moment:
                    return
            most = 0
            for journal, cursor in cursors.items():
                if most == READ_RECORDS:
                    # What repairs bring is told by what was journaled before them: they wait until that is read.
                    break
                records = self._read(journal, cursor)
                if records:
                    self.take(journal, records)
                    most = max(most, len(records))
                    first_at = first_at if taken else began
                    taken += len(records)
            if most == READ_RECORDS:
                self._at_end = False
            moved = any(cursor.seq != self.places[journal] for journal, cursor in cursors.items())
            left = first_at + self._enough.seconds - time.monotonic()
            if moved and taken < self._enough.records and left > 0 and not self._stopping.is_set():
                self._stopping.wait(min(GATHER_LOOK, left))
                continue
            if moved:
                self._commit(cursors)
                taken = 0
            if most == READ_RECORDS:
                continue
            self._at_end = True
            self.error = ""
            if self.at_end():
                self._commit(cursors)
            if moved:
                idle = IDLE_MIN
                self._stopping.wait(max(began + self._window - time.monotonic(), 0.0))
            elif stopping:
                return
            else:
                self._stopping.wait(idle)
                idle = min(idle * 1.5, IDLE_MAX)

    def _commit(self, cursors: dict[str, JournalCursor]) -> None:
        began = time.monotonic_ns()
        places = {journal: cursor.seq for journal, cursor in cursors.items()}
        self.commit(places)
        for cursor in cursors.values():
            cursor.save()
        self.places = places
        self.error = ""
        self._stats.observe_ns("commit", time.monotonic_ns() - began)
        self.on_commit()

    def _read(self, journal: str, cursor: JournalCursor) -> list[Record]:
        damaged = cursor.damaged
        try:
            records = cursor.read(READ_RECORDS)
        except PlaceLostError as error:
            log.error("a sink lost its place", sink=self.name, journal=journal, reason=str(error))
            cursor.seek(error.oldest_seq)
            self.lost(journal)
            return []
        if cursor.damaged != damaged:
            log.error(
                "damaged records were passed over",
                sink=self.name,
                journal=journal,
                records=cursor.damaged - damaged,
            )
            self.lost(journal)
        return records


def _nothing() -> None:
    """Nobody wants to know."""
