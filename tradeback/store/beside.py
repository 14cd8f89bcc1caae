"""The stored ticks beside missing ids, found by a search over time: ids rise with it, nearly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tradeback.model import Tick

NEAR_IDS = 500  # so many are read at once


class Ticks(Protocol):
    """What is asked of a history, see `History`."""

    def ticks(self, stream_id: int, start: int, end: int, limit: int | None = None) -> Iterator[Tick]: ...

    def some_tick_from(self, stream_id: int, time: int) -> Tick | None:
        """The first tick from a time on, or nearly: it may be of the millisecond before."""

    def newest_tick(self, stream_id: int) -> int: ...


def search(history: Ticks, stream_id: int, first: int, last: int) -> tuple[Tick | None, Tick | None]:
    """What `History.beside` returns.

    Takes about ten reads of one row each, in a history on another machine too, and one of some hundred rows. Where ids
    do not quite rise with time, a near one is found.
    """
    # The lowest time is looked for such that the first tick from it on is a later trade. It lies in low..high.
    low, high = 0, history.newest_tick(stream_id) + 1
    before: Tick | None = None
    after: Tick | None = None
    guess, middle = True, 0  # the oldest one first
    while low < high:
        if before is not None and after is not None:
            between = after.trade_id - before.trade_id
            if between - (last - first + 1) <= NEAR_IDS:
                break
            # Ids come evenly, more or less; where they do not, every other step halves what is left.
            if guess:
                middle = low + (high - 1 - low) * max(0, first - before.trade_id) // between
            guess = not guess
        tick = history.some_tick_from(stream_id, middle)
        if tick is None or tick.trade_id > last:
            high, after = middle, tick
        else:
            # Nothing changes before the tick that was found.
            low, before = max(middle, tick.ts_event) + 1, tick
        middle = (low + high) // 2
    found = None if before is None or before.trade_id >= first else before
    start = low - 1 if before is None else before.ts_event
    stop = low if after is None else after.ts_event + 1
    for tick in history.ticks(stream_id, max(start, 0), stop):
        if tick.trade_id > last:
            return found, tick
        if tick.trade_id < first:
            found = tick
    if after is None:
        after = history.some_tick_from(stream_id, low)  # one that came meanwhile
    return found, after if after is not None and after.trade_id > last else None
