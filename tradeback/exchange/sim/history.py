"""What was traded before the simulated exchange was started: bars of any interval, made when they are asked for.

The seed decides them, day by day, and nothing else does: neither the clock nor when the exchange was started. A
start only says where the history ends (`end_ms`) and the ledger goes on, from its last price. Each day begins near the
symbol's starting price and its 24 hours lead to the next day's beginning, each an hour of a shape (`shapes`); so any
day can be made without those before it. Prices never go far from the starting price (`BAND`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tradeback.exchange.sim.ledger import MINUTE_MS, MinuteBar
from tradeback.exchange.sim.market import MarketSymbol
from tradeback.exchange.sim.shapes import GRAINS, HOUR_MS, PACES, SHAPES, Part, Shape, make_pool

# No symbol was traded before 2020.
BEGIN_MS = 1_577_836_800_000
DAY_MS = 24 * HOUR_MS
# Days whose plan is kept, of whatever symbols: about 6 KB each.
KEPT_DAYS = 2_048

# Shares of the starting price: how far a price may ever be from it, how far a day may begin from it, how far an hour
# goes, the usual distance of a day's beginning, of an hour's end from the straight way, and the usual move within a
# minute.
BAND = 0.06
DAY_BAND = 0.03
HOUR_BAND = 0.04  # the rest of BAND is room for what a day misses the next day's beginning by
DAY_MOVE = 0.012
HOUR_MOVE = 0.003
MINUTE_MOVE = 0.0004


class Hour(NamedTuple):
    """An hour of a symbol: where it begins, in ticks, its shape, and what multiplies the shape's numbers."""

    begin: int
    scale: int
    size: int
    shape: Shape


@dataclass(frozen=True, slots=True)
class _Traits:
    """What the history needs of a symbol. `anchor` is the starting price in ticks, `size` in steps."""

    anchor: int
    tick: int
    step: int
    size: float
    grain: float
    pace: float


class History:
    """The synthetic history of all symbols, up to and without the minute in which the exchange was started."""

    def __init__(self, symbols: Iterable[MarketSymbol], seed: int, end_ms: int) -> None:
        self.end_ms = end_ms - end_ms % MINUTE_MS
        self._seed = seed
        self._traits = {symbol.name: _traits(symbol, rank) for rank, symbol in enumerate(symbols)}
        self._pools: dict[tuple[float, float], list[Shape]] = {}
        self._day = lru_cache(KEPT_DAYS)(self._make_day)
        self._joints: dict[tuple[str, int], MinuteBar | None] = {}

    def bars(
        self, symbol: str, length_ms: int, start_ms: int, end_ms: int, *, newest_first: bool = False
    ) -> Iterator[tuple[int, MinuteBar]]:
        """Open time and bar of each interval that opens in `start_ms`..`end_ms`, both inclusive.

        Only whole intervals: the one in which the exchange was started is `joint`. A symbol that was listed later
        has none.
        """
        if symbol not in self._traits:
            return
        first = max(start_ms, BEGIN_MS)
        last = min(end_ms, self.end_ms - self.end_ms % length_ms - 1)
        span = max(length_ms, HOUR_MS)
        spans = range(first - first % span, last + 1, span)
        for opened in reversed(spans) if newest_first else spans:
            if length_ms > HOUR_MS:
                bar = self._sum(symbol, range(opened, opened + length_ms, HOUR_MS))
                inside = [] if bar is None else [(opened, bar)]
            else:
                inside = list(self._parts(symbol, opened, length_ms))
            for each in reversed(inside) if newest_first else inside:
                if first <= each[0] <= last:
                    yield each

    def joint(self, symbol: str, length_ms: int) -> MinuteBar | None:
        """What the history has of the interval in which the exchange was started; None where that is nothing."""
        key = (symbol, length_ms)
        if key not in self._joints:
            self._joints[key] = self.since(symbol, self.end_ms - self.end_ms % length_ms)
        return self._joints[key]

    def since(self, symbol: str, start_ms: int) -> MinuteBar | None:
        """All minutes from a time on, up to the history's end, in one bar; None without a trade."""
        if symbol not in self._traits:
            return None
        last_hour = self.end_ms - self.end_ms % HOUR_MS
        first_hour = min(-(-max(start_ms, BEGIN_MS) // HOUR_MS) * HOUR_MS, last_hour)
        before = self._minutes(symbol, first_hour - HOUR_MS, start_ms)
        after = self._minutes(symbol, last_hour, start_ms)
        hours = self._sum(symbol, range(first_hour, last_hour, HOUR_MS))
        return _folded([*before, *([] if hours is None else [hours]), *after])

    def last_price(self, symbol: str) -> int:
        """The price of the last trade before the start, in units of 1e-8; 0 without any."""
        newest = next(self.bars(symbol, MINUTE_MS, BEGIN_MS, self.end_ms, newest_first=True), None)
        return 0 if newest is None else newest[1].close

    def _minutes(self, symbol: str, hour_ms: int, start_ms: int) -> list[MinuteBar]:
        first = max(start_ms, hour_ms)
        return [bar for _, bar in self.bars(symbol, MINUTE_MS, first, hour_ms + HOUR_MS - 1)]

    def _sum(self, symbol: str, hours: Iterable[int]) -> MinuteBar | None:
        return _folded(bar for opened in hours for _, bar in self._parts(symbol, opened, HOUR_MS))

    def _parts(self, symbol: str, opened: int, length_ms: int) -> Iterator[tuple[int, MinuteBar]]:
        """The hour that opens at a time, in parts of a length that divides it."""
        traits = self._traits[symbol]
        hour = self._day(symbol, opened // DAY_MS)[opened % DAY_MS // HOUR_MS]
        for part in hour.shape.parts(length_ms):
            yield opened + part.at, _bar(traits, hour, part)

    def _make_day(self, symbol: str, day: int) -> list[Hour]:
        """The plan of a day (days since 1970): 24 hours, each of which begins where the one before ended."""
        traits = self._traits[symbol]
        rng, begin = self._day_begin(symbol, traits, day)
        _, goal = self._day_begin(symbol, traits, day + 1)
        pool = self._pool(traits)
        anchor = traits.anchor
        usual = anchor * MINUTE_MOVE / traits.grain
        place = begin
        hours: list[Hour] = []
        for hour in range(24):
            aside = rng.gauss(0.0, HOUR_MOVE) * anchor if hour < 23 else 0.0
            target = begin + (goal - begin) * (hour + 1) / 24.0 + aside
            shape = pool[rng.randrange(SHAPES)]
            scale = _scale(shape, target - place, usual * math.exp(rng.gauss(0.0, 0.4)))
            room = int(anchor * HOUR_BAND) - abs(place - anchor)
            if abs(scale) * shape.extent > room:
                scale = room // shape.extent * (1 if scale > 0 else -1)
            # Most is traded in the afternoon, by UTC.
            busy = 1.0 + 0.4 * math.sin(math.tau * (hour - 8) / 24.0)
            size = max(1, round(traits.size * busy * math.exp(rng.gauss(0.0, 0.4))))
            hours.append(Hour(place, scale, size, shape))
            place += scale * shape.close
        # Shapes end where they end: what is missing to the next day's beginning is shared by the hours.
        missed = goal - place
        return [hour._replace(begin=hour.begin + missed * n // 23) for n, hour in enumerate(hours)]

    def _day_begin(self, symbol: str, traits: _Traits, day: int) -> tuple[random.Random, int]:
        """A day's own random numbers, and where it begins, in ticks."""
        rng = random.Random(f"history {self._seed} {symbol} {day}")
        away = min(max(rng.gauss(0.0, DAY_MOVE), -DAY_BAND), DAY_BAND)
        return rng, traits.anchor + int(traits.anchor * away)

    def _pool(self, traits: _Traits) -> list[Shape]:
        key = (traits.grain, traits.pace)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = make_pool(self._seed, *key)
        return pool


def _traits(symbol: MarketSymbol, rank: int) -> _Traits:
    pace = 300.0 / (rank + 2) ** 0.9
    # Whole multiples of the grain make the usual move: at least four, where ticks are that fine.
    fine = symbol.anchor * MINUTE_MOVE / 4.0
    return _Traits(
        symbol.anchor,
        symbol.tick,
        symbol.step,
        symbol.typical / 8.0,
        max((grain for grain in GRAINS if grain <= fine), default=GRAINS[0]),
        min(PACES, key=lambda known: abs(math.log(known / pace))),
    )


def _scale(shape: Shape, way: float, usual: float) -> int:
    """What multiplies a shape so that it ends about `way` from its beginning, and moves about as usual."""
    wanted = way / shape.close if shape.close else usual
    size = max(round(min(max(abs(wanted), usual / 2.0), usual * 2.0)), 1)
    return size if wanted >= 0.0 else -size


def _bar(traits: _Traits, hour: Hour, part: Part) -> MinuteBar:
    begin, scale, size, _ = hour
    tick = traits.tick
    amount = size * traits.step
    one, other = begin + scale * part.high, begin + scale * part.low
    return MinuteBar(
        (begin + scale * part.open) * tick,
        max(one, other) * tick,
        min(one, other) * tick,
        (begin + scale * part.close) * tick,
        part.volume * amount,
        (begin * part.volume + scale * part.moment) * tick * amount,
        part.trades,
        part.taker_volume * amount,
        (begin * part.taker_volume + scale * part.taker_moment) * tick * amount,
    )


def _folded(bars: Iterable[MinuteBar]) -> MinuteBar | None:
    into: MinuteBar | None = None
    for bar in bars:
        if into is None:
            into = bar
        else:
            into.absorb(bar)
    return into
