"""Shapes: hours of trading in small whole numbers, of which the synthetic history is put together.

A shape tells an hour minute by minute, prices as distances from where the hour began. Many hours are made of one
shape: a price is `begin + scale * x`, a volume `size * v`, with whole `begin`, `scale` and `size`. No rounding, so
that the fold of a shape's minutes, scaled, is the fold of the scaled minutes: an hour of whatever interval costs
no more than its rows.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from tradeback.exchange.sim.ledger import MINUTE_MS

HOUR_MS = 60 * MINUTE_MS
SHAPES = 32
# Trades at one price in a row are told as one point of a minute; more points than this say nothing more.
POINTS = 6

# What a pool can be made for: the move of a price within a minute, in whole units, and trades a minute.
GRAINS = (0.02, 0.08, 0.3, 1.25, 5.0, 20.0, 80.0)
PACES = (0.6, 2.5, 10.0, 40.0, 160.0)


class Part(NamedTuple):
    """A minute of a shape, or some minutes folded. `at` is ms from the hour's beginning; prices are distances.

    `volume` has at least one unit a trade; `moment` is the sum of volume times distance, so that the quote volume
    is `begin * volume + scale * moment`. `taker_...` are those of trades in which the taker bought.
    """

    at: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    moment: int
    trades: int
    taker_volume: int
    taker_moment: int


class Shape:
    """One hour. `close` is the distance at which it ends; `extent` the farthest that it goes, either way."""

    __slots__ = ("_folds", "close", "extent")

    def __init__(self, minutes: list[Part]) -> None:
        self._folds: dict[int, list[Part]] = {MINUTE_MS: minutes}
        self.close = minutes[-1].close if minutes else 0
        self.extent = max((max(part.high, -part.low) for part in minutes), default=0)

    def parts(self, length_ms: int) -> list[Part]:
        """The hour in parts of a length that divides it, those without trades left out."""
        found = self._folds.get(length_ms)
        if found is None:
            found = self._folds[length_ms] = _folded(self._folds[MINUTE_MS], length_ms)
        return found


def _folded(minutes: list[Part], length_ms: int) -> list[Part]:
    into: dict[int, Part] = {}
    for part in minutes:
        at = part.at - part.at % length_ms
        before = into.get(at)
        into[at] = (
            part._replace(at=at)
            if before is None
            else Part(
                at,
                before.open,
                max(before.high, part.high),
                min(before.low, part.low),
                part.close,
                *(one + other for one, other in zip(before[5:], part[5:], strict=True)),
            )
        )
    return list(into.values())


def make_pool(seed: int, grain: float, pace: float) -> list[Shape]:
    """The shapes of a seed for a grain and a pace: always the same ones."""
    rng = random.Random(f"shapes {seed} {grain} {pace}")
    return [_hour(rng, grain, pace) for _ in range(SHAPES)]


def _hour(rng: random.Random, grain: float, pace: float) -> Shape:
    minutes: list[Part] = []
    place = 0.0
    for minute in range(60):
        # So distributed, some minutes are busy, and any may be without a trade, those of slow symbols mostly.
        trades = int(rng.expovariate(1.0 / (pace * math.exp(rng.gauss(-0.18, 0.6)))))
        points = min(trades, POINTS)
        prices: list[int] = []
        volume = moment = taker_volume = taker_moment = 0
        for point in range(points):
            place += rng.gauss(0.0, grain / math.sqrt(POINTS))
            distance = round(place)
            of_point = trades // points + (point < trades % points)
            amount = of_point + int(of_point * math.exp(rng.gauss(1.5, 0.9)))
            prices.append(distance)
            volume += amount
            moment += amount * distance
            if rng.random() < 0.5:
                taker_volume += amount
                taker_moment += amount * distance
        if prices:
            minutes.append(
                Part(
                    minute * MINUTE_MS,
                    prices[0],
                    max(prices),
                    min(prices),
                    prices[-1],
                    volume,
                    moment,
                    trades,
                    taker_volume,
                    taker_moment,
                )
            )
    return Shape(minutes)
