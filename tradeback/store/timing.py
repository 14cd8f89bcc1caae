"""How long questions to databases and to Redis take, failed ones included: told to whoever this process names.

A question is a whole one: from asking for a connection to the last row or the end of the transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Store and kind of every question there is: `database` holds symbols and accounts.
QUESTIONS = (
    ("database", "read"),
    ("database", "write"),
    ("history", "read"),
    ("history", "write"),
    ("history", "delete"),
    ("cache", "read"),
    ("cache", "write"),
)

_told: list[Callable[[str, str, int], None]] = []


def tell_times(told: Callable[[str, str, int], None]) -> None:
    """From now on give store, kind and ns of each question to `told`, and to nobody else, in the thread that asked."""
    _told[:] = [told]


def keep_times() -> None:
    """Tell nobody any more."""
    _told.clear()


@contextmanager
def timed(store: str, kind: str) -> Iterator[None]:
    """Its block is one question. Both names stand in QUESTIONS."""
    began = time.perf_counter_ns()
    try:
        yield
    finally:
        tell(store, kind, began)


def tell(store: str, kind: str, began_ns: int) -> None:
    """A question that began at this time of `perf_counter_ns` has ended."""
    for told in _told:
        told(store, kind, time.perf_counter_ns() - began_ns)
