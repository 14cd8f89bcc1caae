"""What a history holds, in plain Python: dictionaries by key, and coarser bars as sums of decimals."""

from __future__ import annotations

from collections.abc import Iterable

from tests.reference.bars import as_decimals, decimal_fold
from tradeback.model import RESOLUTIONS, Bar, Tick


def folded(minutes: Iterable[Bar], length: int) -> list[Bar]:
    """Bars of `length` ns out of 1m bars in any order."""
    return [
        Bar(bar.open_time, *map(float, bar[1:6]), bar.trade_count)
        for bar in decimal_fold(map(as_decimals, minutes), length)
    ]


class PlainHistory:
    """The same whatever the order of the writes, as long as the bars of one key are of growing sets of trades:
    those of one trade_count are equal, those of more reach at least as high and as low."""

    def __init__(self) -> None:
        self._ticks: dict[tuple[int, int, int], Tick] = {}
        self._bars: dict[tuple[str, int, int], Bar] = {}
        self._prices: dict[int, list[float]] = {}

    def add_ticks(self, ticks: Iterable[Tick]) -> None:
        for tick in ticks:
            self._ticks[tick.stream_id, tick.ts_event, tick.trade_id] = tick
            self._prices.setdefault(tick.stream_id, []).append(tick.price)

    def add_bar(self, stream_id: int, resolution: str, bar: Bar) -> None:
        key = resolution, stream_id, bar.open_time
        if key not in self._bars or bar.trade_count >= self._bars[key].trade_count:
            self._bars[key] = bar
            self._prices.setdefault(stream_id, []).extend((bar.high, bar.low))

    def ticks(self, stream_id: int, start: int, end: int, limit: int | None = None) -> list[Tick]:
        found = [
            tick
            for (stream, ts_event, _), tick in sorted(self._ticks.items())
            if stream == stream_id and start <= ts_event < end
        ]
        return found[:limit]

    def bars(
        self, stream_id: int, resolution: str, start: int, end: int, limit: int | None = None
    ) -> list[Bar]:
        bars = self._given(stream_id, resolution)
        if resolution != "1m":
            for bar in folded(self._given(stream_id, "1m").values(), RESOLUTIONS[resolution]):
                if bar.open_time not in bars or bar.trade_count >= bars[bar.open_time].trade_count:
                    bars[bar.open_time] = bar
        found = [bar for open_time, bar in sorted(bars.items()) if start <= open_time < end]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def extremes(self, stream_id: int) -> tuple[float, float] | None:
        prices = self._prices.get(stream_id)
        return (max(prices), min(prices)) if prices else None

    def _given(self, stream_id: int, resolution: str) -> dict[int, Bar]:
        return {
            open_time: bar
            for (name, stream, open_time), bar in self._bars.items()
            if (name, stream) == (resolution, stream_id)
        }
