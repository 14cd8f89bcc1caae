"""The stored ticks beside missing ids, found by bisection over time: ids rise with it, nearly."""

from __future__ import annotations

from tradeback.model import Tick
from tradeback.store.base import History

FAR_NS = 2**62


def neighbours(history: History, stream_id: int, first: int, last: int) -> tuple[Tick | None, Tick | None]:
    """The tick before the missing ids first..last and the one after them; None where there is none.

    Takes about sixty reads of one row each. Where ids do not quite rise with time, a near one is found.
    """
    low, high = 0, FAR_NS
    after = None
    # The lowest time such that the first tick from it on is a later trade: one ns after the tick before.
    while low < high:
        middle = (low + high) // 2
        tick = next(iter(history.ticks(stream_id, middle, FAR_NS, 1)), None)
        if tick is None or tick.trade_id > last:
            high, after = middle, tick
        else:
            # Nothing changes before the tick that was found.
            low = max(middle, tick.ts_event) + 1
    if after is None:
        after = next(iter(history.ticks(stream_id, low, FAR_NS, 1)), None)
    before = None
    for tick in history.ticks(stream_id, low - 1, low):
        if tick.trade_id < first:
            before = tick
    return before, after
