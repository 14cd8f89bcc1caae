"""Random markets: a ledger of trades, and what two faulty lines make of it. Times are in ms."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class LineEvent:
    """Sorted by arrival."""

    arrival: int
    tie: float
    single: bool
    first: int
    last: int
    units: int
    made: int


@dataclass
class Market:
    """`ledger` holds the units of every trade id; `events` what arrives, in the order of arrival."""

    ledger: dict[int, int] = field(default_factory=dict)
    events: list[LineEvent] = field(default_factory=list)


def _cuts(rng: random.Random, end: int, count: int) -> list[tuple[int, int]]:
    starts = [rng.randint(0, end) for _ in range(count)]
    return [(start, start + rng.randint(100, 3000)) for start in starts]


def make_market(rng: random.Random, trades: int) -> Market:
    """Both lines cut, delay, repeat and reorder, each market in its own measure."""
    market = Market()
    groups: list[tuple[int, int, int]] = []  # first, last, time
    next_id, now = 1, 0
    pace = rng.choice([[0, 1, 5, 30, 200], [0, 0, 1, 2], [0, 100, 400]])
    most = rng.choice([2, 6, 40])
    while next_id <= trades:
        count = 1 if rng.random() < rng.choice([0.3, 0.8]) else rng.randint(2, most)
        now += rng.choice(pace)
        for id_ in range(next_id, next_id + count):
            market.ledger[id_] = rng.randint(1, 10**6)
        groups.append((next_id, next_id + count - 1, now))
        next_id += count
    delays = rng.choice([[2], [1, 2, 3], [1, 2, 3, 40], [1, 2, 60, 300], [1, 5, 240, 260, 600]])
    loss = rng.choice([0.0, 0.0, 0.02, 0.3])
    repeat = rng.choice([0.0, 0.02, 0.2])
    cuts = {
        True: _cuts(rng, now, rng.choice([0, 3, 8])),
        False: _cuts(rng, now, rng.choice([0, 0, 3, 8])),
    }

    def bring(single: bool, first: int, last: int, made: int) -> None:
        if any(start <= made < end for start, end in cuts[single]) or rng.random() < loss:
            return
        units = sum(market.ledger[i] for i in range(first, last + 1))
        for extra in [0, 50] if rng.random() < repeat else [0]:
            arrival = made + rng.choice(delays) + extra
            market.events.append(LineEvent(arrival, rng.random(), single, first, last, units, made))

    for first, last, made in groups:
        bring(False, first, last, made)
        for id_ in range(first, last + 1):
            bring(True, id_, id_, made)
    market.events.sort()
    return market
