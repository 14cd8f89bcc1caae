"""Which streams a connection asks the exchange for next, and which it leaves out because the exchange refuses them.

The exchange answers a SUBSCRIBE as a whole: one stream that it does not want spoils up to 200. So a refused message
is halved until the refused stream stands alone; what is good is asked for first. No I/O and no clock in here: `now`
is in seconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tradeback.errors import ExchangeError

RETRY_FIRST = 60.0
RETRY_CAP = 3600.0
REFUSED_IN_A_ROW = 16  # streams; then it is hardly the streams' fault, and no more are tried

Method = Literal["SUBSCRIBE", "UNSUBSCRIBE"]


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the exchange."""

    method: Method
    streams: list[str]


@dataclass(slots=True)
class Refusal:
    """What the exchange said of a stream, and when that is asked for again."""

    reason: str
    delay: float
    due: float


class Refusals:
    """The streams of a feed that the exchange refuses. They outlive the connection that was told so."""

    def __init__(self) -> None:
        self._refused: dict[str, Refusal] = {}

    def __contains__(self, stream: str) -> bool:
        return stream in self._refused

    def __len__(self) -> int:
        return len(self._refused)

    def reasons(self, limit: int) -> dict[str, str]:
        """What the exchange said, by stream, of the first ones by name."""
        return {stream: self._refused[stream].reason for stream in sorted(self._refused)[:limit]}

    def note(self, stream: str, reason: str, now: float) -> bool:
        """The stream was refused; it is tried again after a minute, then ever more rarely. True where that is news."""
        before = self._refused.get(stream)
        delay = RETRY_FIRST if before is None else min(before.delay * 2, RETRY_CAP)
        self._refused[stream] = Refusal(reason, delay, now + delay)
        return before is None

    def forget(self, stream: str) -> bool:
        """The stream was accepted. True where it had been refused."""
        return self._refused.pop(stream, None) is not None

    def keep(self, wanted: set[str]) -> None:
        """Forget the streams that nobody wants any more."""
        for stream in self._refused.keys() - wanted:
            del self._refused[stream]

    def first_due(self) -> tuple[float, str] | None:
        """The stream to be tried again first, and when; None without any."""
        return min(((refusal.due, stream) for stream, refusal in self._refused.items()), default=None)


class Subscriptions:
    """What one connection is to carry, carries, and is not given. `limit` is the exchange's, of streams a connection.

    Take `next_request`, send it, and tell `accepted` or `refused` before taking the next.
    """

    def __init__(self, refusals: Refusals, *, limit: int, per_message: int) -> None:
        self.wanted: set[str] = set()
        self.subscribed: set[str] = set()
        self.refusals = refusals
        self._limit = limit
        self._per_message = per_message
        self._suspects: list[list[str]] = []  # parts of refused messages; the next one is the last
        self._doubted: dict[
            str, str
        ] = {}  # refused while nothing was accepted yet: is it the stream's fault?
        self._in_a_row = 0

    def next_request(self, now: float) -> Request | None:
        """The next message to the exchange, None where all is as it should be until `refusals.first_due`."""
        streams = self._to_ask(now)
        surplus = sorted(self.subscribed - self.wanted)[: self._per_message]
        # Where one goes as another comes there must be room first; else what is missed comes first.
        if surplus and (not streams or len(self.subscribed) + len(streams) > self._limit):
            return Request("UNSUBSCRIBE", surplus)
        return Request("SUBSCRIBE", streams) if streams else None

    def _to_ask(self, now: float) -> list[str]:
        if unasked := self._unasked():
            return sorted(unasked)[: self._per_message]
        while self._suspects:
            group = [stream for stream in self._suspects[-1] if stream in self.wanted]
            if group:
                self._suspects[-1] = group
                return group
            self._suspects.pop()
        due = self.refusals.first_due()
        return [due[1]] if due is not None and due[0] <= now and due[1] in self.wanted else []

    def _unasked(self) -> set[str]:
        unasked = (self.wanted - self.subscribed).difference(self._doubted, *self._suspects)
        return {stream for stream in unasked if stream not in self.refusals}

    def accepted(self, request: Request, now: float) -> tuple[list[str], dict[str, str]]:
        """The exchange did as asked. Returns the streams that it had refused before and does no longer, and those
        that are left out from now on, with its words: now it is clear that it does not refuse just everything."""
        if request.method == "UNSUBSCRIBE":
            self.subscribed.difference_update(request.streams)
            return [], {}
        self._take_off(request)
        self.subscribed.update(request.streams)
        self._in_a_row = 0
        left_out = self._leave_out(self._doubted, now)
        self._doubted = {}
        return [stream for stream in request.streams if self.refusals.forget(stream)], left_out

    def refused(self, request: Request, reason: str, now: float) -> dict[str, str]:
        """The exchange answered with an error. Returns the streams that are left out from now on, with its words.

        Raises ExchangeError where it refuses everything, or refuses to take something off: then the connection is
        of no use.
        """
        if request.method == "UNSUBSCRIBE":
            raise ExchangeError(f"the exchange refused an UNSUBSCRIBE: {reason}")
        self._take_off(request)
        left_out = {}
        if len(request.streams) > 1:
            half = len(request.streams) // 2
            self._suspects += [request.streams[half:], request.streams[:half]]
        else:
            self._in_a_row += 1
            refused = dict.fromkeys(request.streams, reason)
            if self._in_a_row >= REFUSED_IN_A_ROW:
                refused |= {stream: reason for group in self._suspects for stream in group}
                self._suspects = []
            if self.subscribed:
                left_out = self._leave_out(refused, now)
            else:
                self._doubted |= refused
        if not self.subscribed and (
            self._in_a_row >= REFUSED_IN_A_ROW or not (self._suspects or self._unasked())
        ):
            raise ExchangeError(f"the exchange refuses every stream: {reason}")
        return left_out

    def _leave_out(self, refused: dict[str, str], now: float) -> dict[str, str]:
        """Note them, and return those that this is news of."""
        return {
            stream: reason for stream, reason in refused.items() if self.refusals.note(stream, reason, now)
        }

    def _take_off(self, request: Request) -> None:
        if self._suspects and self._suspects[-1] == request.streams:
            self._suspects.pop()
