"""What goes wrong on request: faults of streams, of connections and of REST answers.

A fault lasts for a number of messages or answers (`count`), or for a time (`seconds`), whichever was given. Faults
of REST answers may be limited to one `path` below `/api/v3/`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

TEXT = 1
BINARY = 2

STREAM_KINDS = frozenset({"skip", "repeat", "reorder", "garbage"})
CONNECTION_KINDS = frozenset({"cut", "mute", "shutdown"})
SUBSCRIBE_KINDS = frozenset({"refuse", "unanswered"})
REST_KINDS = frozenset({"rest429", "rest418", "rest5xx", "html", "stall", "badcolumns"})
# Broken text with a stream, broken REST bodies without one.
KINDS = STREAM_KINDS | CONNECTION_KINDS | SUBSCRIBE_KINDS | REST_KINDS | {"truncate"}

STREAM_TYPES = ("trade", "aggTrade", "bookTicker", "kline")
HUGE = 256 * 1024
REORDER_LIMIT_SECONDS = 1.0

Message = tuple[int, bytes, bytes]
"""Opcode, payload with times in milliseconds, the same in microseconds."""


def matches(wanted: str | None, stream: str) -> bool:
    """Whether a stream answers to `wanted`: None is every stream, `trade` a type, else a whole name."""
    if wanted is None or wanted == stream:
        return True
    kind = stream.partition("@")[2]
    return wanted == kind or (wanted == "kline" and kind.startswith("kline_"))


@dataclass(slots=True, eq=False)
class Fault:
    """One fault in force. `left` counts down, `until` is monotonic seconds; None is without end."""

    kind: str
    stream: str | None
    left: int | None
    until: float | None
    path: str | None = None
    done: int = 0
    cleared: bool = False

    def take(self) -> bool:
        """Use the fault up by one message or answer; False when it is over."""
        if self.over():
            return False
        if self.left is not None:
            self.left -= 1
        self.done += 1
        return True

    def over(self) -> bool:
        return self.cleared or self.left == 0 or (self.until is not None and time.monotonic() >= self.until)


class Faults:
    """All faults in force. `done` counts how often each kind struck."""

    def __init__(self) -> None:
        self.active: list[Fault] = []
        self.done: Counter[str] = Counter()
        self._garbage = 0

    def add(
        self,
        kind: str,
        stream: str | None,
        count: int | None,
        seconds: float | None,
        path: str | None = None,
    ) -> Fault:
        if count is None and seconds is None:
            count = 1
        until = None if seconds is None else time.monotonic() + seconds
        fault = Fault(kind, stream, count, until, path)
        self.active.append(fault)
        return fault

    def prune(self) -> None:
        self.active = [fault for fault in self.active if not fault.over()]

    def clear(self) -> None:
        """End every fault in force."""
        for fault in self.active:
            fault.cleared = True
        self.active = []

    def on_stream(self, stream: str) -> list[Fault]:
        """The faults that touch messages of a stream."""
        return [
            fault
            for fault in self.active
            if (fault.kind in STREAM_KINDS or (fault.kind == "truncate" and fault.stream is not None))
            and matches(fault.stream, stream)
        ]

    def on_connection(self, kind: str) -> list[Fault]:
        return [fault for fault in self.active if fault.kind == kind and not fault.over()]

    def on_subscribe(self, names: list[str]) -> tuple[str, str] | None:
        """Take the oldest fault that touches a SUBSCRIBE of these streams: its kind, and the stream."""
        for fault in self.active:
            if fault.kind in SUBSCRIBE_KINDS:
                name = next((name for name in names if matches(fault.stream, name)), None)
                if name is not None and fault.take():
                    self.done[fault.kind] += 1
                    return fault.kind, name
        return None

    def on_rest(self, path: str) -> Fault | None:
        """Take the oldest fault that touches answers of a path as a whole. `badcolumns` waits for rows."""
        for fault in self.active:
            whole = fault.kind in REST_KINDS and fault.kind != "badcolumns"
            whole = whole or (fault.kind == "truncate" and fault.stream is None)
            if whole and fault.path in (None, path) and fault.take():
                self.done[fault.kind] += 1
                return fault
        self.prune()
        return None

    def on_rows(self, path: str) -> bool:
        """Take one `badcolumns`, if there is one for the path."""
        for fault in self.active:
            if fault.kind == "badcolumns" and fault.path in (None, path) and fault.take():
                self.done["badcolumns"] += 1
                return True
        return False

    def garbage(self, ms: bytes, us: bytes) -> Message:
        """One of several kinds of rubbish, in turn."""
        self._garbage += 1
        rubbish: list[Callable[[], Message]] = [
            lambda: (TEXT, ms[: len(ms) * 2 // 3], us[: len(us) * 2 // 3]),
            lambda: (BINARY, bytes(range(256)), bytes(range(256))),
            lambda: (TEXT, b'{"e":"trade","p":[[[', b'{"e":"trade","p":[[['),
            lambda: (TEXT, ms.replace(b'"', b"'"), us.replace(b'"', b"'")),
            lambda: (TEXT, b'{"x":"' + b"A" * HUGE + b'"}', b'{"x":"' + b"A" * HUGE + b'"}'),
            lambda: (TEXT, b"", b""),
            lambda: (TEXT, b"\xff\xfe" + ms, b"\xff\xfe" + us),
            lambda: (TEXT, ms.replace(b'"', b"", 2), us.replace(b'"', b"", 2)),
        ]
        return rubbish[self._garbage % len(rubbish)]()


class StreamFaults:
    """The faults of one stream at work on its messages, and the message that a `reorder` holds back."""

    __slots__ = ("_all", "_held", "_held_since", "_stream")

    def __init__(self, faults: Faults, stream: str) -> None:
        self._all = faults
        self._stream = stream
        self._held: Message | None = None
        self._held_since = 0.0

    @property
    def holding(self) -> bool:
        return self._held is not None

    def release(self, *, force: bool = False) -> list[Message]:
        """The held message, once it has waited long enough for one to overtake it."""
        if self._held is None or (not force and time.monotonic() - self._held_since < REORDER_LIMIT_SECONDS):
            return []
        held, self._held = self._held, None
        return [held]

    def apply(self, ms: bytes, us: bytes) -> list[Message]:
        """What goes out in place of one message."""
        message: Message = (TEXT, ms, us)
        out = [message]
        for fault in self._all.on_stream(self._stream):
            if fault.kind == "reorder" and self._held is not None:
                continue
            if not fault.take():
                continue
            self._all.done[fault.kind] += 1
            if fault.kind == "skip":
                out = []
            elif fault.kind == "repeat":
                out = [message, message]
            elif fault.kind == "garbage":
                out = [self._all.garbage(ms, us)]
            elif fault.kind == "truncate":
                out = [(TEXT, ms[: len(ms) // 2], us[: len(us) // 2])]
            else:
                self._held, self._held_since = message, time.monotonic()
                return []
            break
        return out + self.release(force=True) if out else out
