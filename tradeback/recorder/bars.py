"""MinuteBars: the 1m bars of the ticks, each a pure function of the ticks of its minute.

Owned by the history sink's thread. In memory are the minutes being filled, as exact integers. A tick of any other
minute, a late or a repaired one or the first after a restart, has its minute made anew from the stored ticks. Those
that were made anew last are kept as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tradeback.model import MINUTE_NS, Bar, Tick

MINUTES_KEPT = 2  # the newest of each symbol; late trades come within a second
ANEW_KEPT = 2_000  # of those that were made anew, in all: repairs come to one minute again and again


class MinuteBars:
    """`stored` gives a symbol's ticks of a minute as the history holds them. `newest` gives the time of the
    newest bar or tick that it holds, 0 where there is none. `precision` gives a symbol's quantity precision.

    The owner adds each tick once, writes `changed` together with the ticks, then calls `written`. After a write that
    failed it throws this object away.
    """

    def __init__(
        self,
        stored: Callable[[int, int, int], Iterable[Tick]],
        newest: Callable[[int], int],
        precision: Callable[[int], int],
    ) -> None:
        self._stored = stored
        self._newest = newest
        self._precision = precision
        self._symbols: dict[int, _Symbol] = {}
        self._changed: dict[tuple[int, int], _Minute] = {}
        self._anew: dict[tuple[int, int], _Minute] = {}  # none of these is in `_symbols`
        self.rebuilt = 0

    def add(self, tick: Tick) -> None:
        """Take a tick into the bar of its minute."""
        stream_id = tick.stream_id
        symbol = self._symbols.get(stream_id)
        if symbol is None:
            symbol = self._symbols[stream_id] = _Symbol(self._newest(stream_id))
        time = tick.ts_event
        minute = symbol.current
        if minute is None or not minute.start <= time < minute.end:
            minute = self._minute(stream_id, symbol, time - time % MINUTE_NS)
        if not minute.changed:
            minute.changed = True
            self._changed[stream_id, minute.start] = minute
        minute.add(tick)

    def _minute(self, stream_id: int, symbol: _Symbol, start: int) -> _Minute:
        minute = symbol.minutes.get(start)
        if minute is None:
            minute = self._anew.pop((stream_id, start), None)
            if minute is None:
                minute = self._made(stream_id, symbol, start)
            symbol.minutes[start] = minute
        symbol.current = minute
        return minute

    def _made(self, stream_id: int, symbol: _Symbol, start: int) -> _Minute:
        minute = _Minute(start, 10 ** self._precision(stream_id))
        # Nothing can be stored of a minute that is newer than all others.
        if start > symbol.newest:
            symbol.newest = start
            return minute
        for tick in self._stored(stream_id, start, start + MINUTE_NS):
            minute.add(tick)
        minute.anew = True
        self.rebuilt += 1
        return minute

    def changed(self) -> list[tuple[int, Bar]]:
        """The whole bar of every minute that a tick came to since `written`, by stream id."""
        return [(stream_id, minute.bar()) for (stream_id, _), minute in self._changed.items()]

    def written(self) -> None:
        """What `changed` gave is stored: minutes that nothing more is expected of are forgotten."""
        for stream_id in {stream_id for stream_id, _ in self._changed}:
            symbol = self._symbols[stream_id]
            if len(symbol.minutes) > MINUTES_KEPT:
                for start in sorted(symbol.minutes)[:-MINUTES_KEPT]:
                    minute = symbol.minutes.pop(start)
                    if minute.anew:
                        self._anew[stream_id, start] = minute
                symbol.current = None
        while len(self._anew) > ANEW_KEPT:
            del self._anew[next(iter(self._anew))]
        for minute in self._changed.values():
            minute.changed = False
        self._changed.clear()


class _Symbol:
    """The minutes of one symbol that are in memory."""

    __slots__ = ("current", "minutes", "newest")

    def __init__(self, newest: int) -> None:
        self.minutes: dict[int, _Minute] = {}
        self.current: _Minute | None = None
        self.newest = newest


class _Minute:
    """One bar being made. Quantities are whole units of the quantity precision, so that the sum is exact."""

    __slots__ = (
        "anew", "changed", "close", "close_id", "count", "end", "high", "low", "open", "open_id", "scale", "start",
        "units",
    )  # fmt: skip

    def __init__(self, start: int, scale: int) -> None:
        self.start = start
        self.end = start + MINUTE_NS
        self.scale = scale
        self.anew = False  # whether it was made of stored ticks
        self.changed = False
        self.count = 0
        self.units = 0
        self.open = self.high = self.low = self.close = 0.0
        self.open_id = self.close_id = 0

    def add(self, tick: Tick) -> None:
        _, trade_id, trade_count, price, volume, _, _, _, _ = tick
        if self.count == 0:
            self.open = self.high = self.low = self.close = price
            self.open_id = self.close_id = trade_id
        else:
            if trade_id > self.close_id:
                self.close_id, self.close = trade_id, price
            elif trade_id < self.open_id:
                self.open_id, self.open = trade_id, price
            if price > self.high:
                self.high = price
            elif price < self.low:
                self.low = price
        self.count += trade_count
        self.units += round(volume * self.scale)

    def bar(self) -> Bar:
        # One division of whole numbers: Python rounds it to the nearest double.
        return Bar(
            self.start, self.open, self.high, self.low, self.close, self.units / self.scale, self.count
        )
