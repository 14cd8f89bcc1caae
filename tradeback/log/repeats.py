"""RepeatLimit: warnings and errors of one event at a bounded rate, and the number of those that are left out."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from structlog.typing import EventDict, WrappedLogger

REPEATS = 5  # of one event, that are written in each window
WINDOW_S = 10.0
REMEMBERED_EVENTS = 1000
LIMITED = ("warning", "error", "critical")


class LeftOut(NamedTuple):
    """So many of an event were not written, of this component and at this level."""

    component: str
    level: str
    event: str
    suppressed: int


@dataclass(slots=True)
class _Seen:
    component: str
    level: str
    event: str
    since: float
    written: int = 0
    dropped: int = 0


class RepeatLimit:
    """A structlog processor that drops a warning or an error after its first REPEATS in a window.

    Two are the same where their events are, or what `same_as` gives in place of them, which is not written.
    The first one written afterwards carries `suppressed`, the number of those dropped since; where none comes,
    `take_due` has it once the window is over. From any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._due: list[LeftOut] = []  # of events that are remembered no longer
        self._look_at = float("inf")  # when one that drops may be due

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        name = str(event.pop("same_as", event["event"]))
        if method not in LIMITED:
            return event
        component = str(getattr(logger, "component", ""))
        with self._lock:
            now = self._clock()
            seen = self._seen.setdefault(name, _Seen(component, method, str(event["event"]), now))
            self._seen.move_to_end(name)
            if len(self._seen) > REMEMBERED_EVENTS:
                self._forget(self._seen.popitem(last=False)[1])
            if now - seen.since >= WINDOW_S:
                seen.since, seen.written = now, 0
            seen.written += 1
            if seen.written > REPEATS:
                seen.dropped += 1
                self._look_at = min(self._look_at, seen.since + WINDOW_S)
                raise structlog.DropEvent
            if seen.dropped:
                event["suppressed"] = seen.dropped
                seen.dropped = 0
        return event

    def take_due(self, *, all_of_them: bool = False) -> list[LeftOut]:
        """What was left out of events whose window is over, of all where asked for. Each is given once."""
        if not self._due and self._clock() < self._look_at and not all_of_them:
            return []
        with self._lock:
            now = self._clock()
            for seen in self._seen.values():
                if seen.dropped and (all_of_them or now - seen.since >= WINDOW_S):
                    self._forget(seen)
            waiting = [seen.since + WINDOW_S for seen in self._seen.values() if seen.dropped]
            self._look_at = min(waiting, default=float("inf"))
            due, self._due = self._due, []
            return due

    def begin_anew(self) -> None:
        """In a child of this process: what was left out so far is its parent's to tell."""
        self._lock = threading.Lock()
        self._seen.clear()
        self._due = []
        self._look_at = float("inf")

    def _forget(self, seen: _Seen) -> None:
        if seen.dropped:
            self._due.append(LeftOut(seen.component, seen.level, seen.event, seen.dropped))
        seen.dropped = 0
