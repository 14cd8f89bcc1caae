"""Coarser bars out of 1m bars, exactly."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, localcontext
from itertools import groupby
from operator import attrgetter

from tradeback.model import RESOLUTIONS, Bar

_OPEN_TIME = attrgetter("open_time")
# Wide enough for the sum of the largest and the smallest double: no addition ever rounds.
_EXACT = Context(prec=800)


def exact_sum(volumes: Iterable[float]) -> float:
    """The double nearest to the sum of the decimal numbers that the doubles stand for (their `repr`).

    A sum of doubles would carry their binary remainders along: ten times 0.1 would not be 1.
    """
    with localcontext(_EXACT):
        return float(sum(map(Decimal, map(repr, volumes)), Decimal(0)))


def coarser_intervals(touched: Iterable[int], newest: int | None) -> dict[str, set[int]]:
    """By resolution, when the coarser bars open that may have to be made anew after 1m bars were written that open at
    `touched`; `newest` was the newest minute before that, None where there was none.

    Without those in progress, which readers fold until a newer one begins.
    """
    minutes = set(touched)
    if newest is not None:
        if minutes == {newest}:
            return {}
        minutes.add(newest)
    last = max(minutes)
    return {
        name: {minute - minute % length for minute in minutes} - {last - last % length}
        for name, length in RESOLUTIONS.items()
        if name != "1m"
    }


def with_current(bars: list[Bar], current: Iterable[Bar], count: int) -> list[Bar]:
    """Stored bars by rising time and, where they are as whole, those that a reader folded; the newest `count`. The list
    of the stored ones is used up."""
    for bar in current:
        at = bisect_left(bars, bar.open_time, key=_OPEN_TIME)
        if at == len(bars) or bars[at].open_time != bar.open_time:
            bars.insert(at, bar)
        elif bar.trade_count >= bars[at].trade_count:
            bars[at] = bar
    return bars[max(0, len(bars) - count) :]


def fold(minutes: Iterable[Bar], length: int) -> list[Bar]:
    """Bars of `length` ns out of 1m bars by rising time; an interval without any has none."""
    return [
        _one(open_time, list(group))
        for open_time, group in groupby(minutes, key=lambda bar: bar.open_time - bar.open_time % length)
    ]


def _one(open_time: int, bars: Sequence[Bar]) -> Bar:
    return Bar(
        open_time,
        bars[0].open,
        max(bar.high for bar in bars),
        min(bar.low for bar in bars),
        bars[-1].close,
        exact_sum(bar.volume for bar in bars),
        sum(bar.trade_count for bar in bars),
    )
