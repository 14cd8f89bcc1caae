"""The stored ticks beside missing ids, found by a search over time: ids rise with it, nearly."""

from __future__ import annotations

from tradeback.model import Tick
from tradeback.store.base import History

FAR_NS = 2**62
NEAR_IDS = 500  # so many are read at once


def neighbours(history: History, stream_id: int, first: int, last: int) -> tuple[Tick | None, Tick | None]:
    """The tick before the missing ids first..last and the one after them; None where there is none.

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
        tick = _first_from(history, stream_id, middle)
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
    return found, after if after is not None else _first_from(history, stream_id, low)


def _first_from(history: History, stream_id: int, time: int) -> Tick | None:
    return next(iter(history.ticks(stream_id, time, FAR_NS, 1)), None)
