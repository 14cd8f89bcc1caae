"""What a program gets from a client, and the queue in which it waits for a program that is slower than the market."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

QUEUE_LIMIT = 10_000  # events that wait one by one; what comes beyond is conflated
LATEST_LIMIT = 4 * 65_536  # kinds of events that can be conflated, of as many symbols as there are stream ids


class Update(NamedTuple):
    """One record of a frame. `volume` is the base quantity of the trades it stands for; 0 in a snapshot."""

    symbol: str
    price: float
    volume: float


class Level(NamedTuple):
    """A symbol's Enigma level has changed: 0 to 100, None where `ath` and `atl` are equal.

    `fib_levels` are prices by Fibonacci level, such as "61.8"; `timestamp` is that of the latest trade, unix ms.
    """

    symbol: str
    level: float | None
    ath: float
    atl: float
    current_price: float
    fib_levels: Mapping[str, float]
    timestamp: int


class AutoSubscribed(NamedTuple):
    """The server subscribed the client to a symbol of the user's watchlist."""

    symbol: str


class AutoUnsubscribed(NamedTuple):
    """A symbol was taken off the watchlist: no more updates of it come, unless the program subscribed to it too."""

    symbol: str


class Refused(NamedTuple):
    """The server's answer to a command that it could not carry out, or not for these symbols."""

    code: str
    message: str
    symbols: tuple[str, ...]


Event = Update | Level | AutoSubscribed | AutoUnsubscribed | Refused


class Backlog:
    """Events that wait for the program: each of the first QUEUE_LIMIT, of those after them the latest a symbol.

    No volume is lost by that: of a symbol's updates, the price is the latest and the volume is the sum. So it holds
    QUEUE_LIMIT events and a few a symbol, however long nobody takes one. Of a server that names others with each
    connection no more than LATEST_LIMIT are kept. `conflated` counts those that are not there by themselves.
    """

    def __init__(self) -> None:
        self.conflated = 0
        self._events: deque[Event] = deque()
        self._latest: dict[tuple[object, str], Event] = {}

    def extend(self, updates: Sequence[Update]) -> None:
        """All records of a frame."""
        if len(self._events) + len(updates) <= QUEUE_LIMIT and not self._latest:
            self._events.extend(updates)
        else:
            for update in updates:
                self.put(update)

    def put(self, event: Event) -> None:
        if len(self._events) < QUEUE_LIMIT and not self._latest:
            self._events.append(event)
            return
        if isinstance(event, Update):
            key: tuple[object, str] = (Update, event.symbol)
            before = self._latest.get(key)
            if isinstance(before, Update):
                event = event._replace(volume=before.volume + event.volume)
        else:
            # The last word on a symbol's place in the watchlist counts, and goes where it was said.
            kind = AutoSubscribed if isinstance(event, AutoUnsubscribed) else type(event)
            key = (kind, "" if isinstance(event, Refused) else event.symbol)
            before = self._latest.pop(key, None)
        if before is not None:
            self.conflated += 1
        elif len(self._latest) >= LATEST_LIMIT:
            self.conflated += 1
            return
        self._latest[key] = event

    def take(self) -> Event | None:
        """The oldest; None where nothing waits."""
        if not self._events:
            if not self._latest:
                return None
            self._events.extend(self._latest.values())
            self._latest.clear()
        return self._events.popleft()

    def __len__(self) -> int:
        return len(self._events) + len(self._latest)
