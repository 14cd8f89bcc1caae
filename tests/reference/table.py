"""The table in plain Python: one symbol's two lines arbitrated by trade id, as the architecture's rule says.

Slow and plain on purpose. An id is uncovered when it is above `last` or in an open range. A single's quantity
is known until another single comes whose id is the same modulo SINGLES.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WAIT_NS = 250_000_000
OPEN_MAX = 64
HELD_MAX = 32
SINGLES = 1024
SPAN_MAX = 2**32 - 1
ID_MAX = 2**63 - 1
DAY_NS = 86_400 * 10**9

FRESH, DUPLICATE, STALE, HELD, UNKNOWN, REFUSED = range(6)
TIMEOUT, UNKNOWN_QUANTITY, OVERFLOW, RESTART = 1, 2, 3, 4


@dataclass(frozen=True)
class TradeOut:
    """A trade record: the `count` ids that end at `trade_id`, of `units` in all."""

    trade_id: int
    count: int
    units: int
    price: float
    aggregate: bool = False
    sparse: bool = False
    late: bool = False


@dataclass(frozen=True)
class GapOut:
    """A gap record: first..last, and why."""

    first: int
    last: int
    reason: int


@dataclass(frozen=True)
class AggTrade:
    first: int
    last: int
    units: int
    price: float
    ts_event: int
    deadline: int


@dataclass
class OpenIds:
    first: int
    last: int
    deadline: int


@dataclass(frozen=True)
class BeginOut:
    """A begin record: the ids from `first` on count; those from `floor` on were not asked for."""

    first: int
    floor: int


Out = TradeOut | GapOut | BeginOut


def exact_units(mantissa: int, scale: int, precision: int) -> int:
    """mantissa / 10**scale in units of 10**-precision, half to even."""
    whole, rest = divmod(mantissa * 10**precision, 10**scale)
    if 2 * rest > 10**scale or (2 * rest == 10**scale and whole % 2):
        whole += 1
    return whole


@dataclass
class SymbolOracle:
    last: int | None = None
    floor: int = 0
    floor_least: int = 0
    floor_deadline: int = 0
    dropped: bool = False
    anew: bool = False
    open: list[OpenIds] = field(default_factory=list)
    held: list[AggTrade] = field(default_factory=list)
    singles: dict[int, tuple[int, int]] = field(default_factory=dict)
    trade_line: int | None = None
    volume: int = 0
    day: int = 0
    day_units: int = 0
    price: float = 0.0

    def uncovered(self, first: int, last: int) -> list[tuple[int, int]]:
        """The uncovered ids of first..last as ranges, ascending."""
        found = [(max(first, o.first), min(last, o.last)) for o in self.open]
        assert self.last is not None
        found.append((max(first, self.last + 1), last))
        return [(a, b) for a, b in found if a <= b]

    def cover(self, first: int, last: int, now: int) -> list[Out]:
        """Returns the gap that an open range too many became."""
        left = []
        for o in self.open:
            if o.last < first or o.first > last:
                left.append(o)
                continue
            if o.first < first:
                left.append(OpenIds(o.first, first - 1, o.deadline))
            if o.last > last:
                left.append(OpenIds(last + 1, o.last, o.deadline))
        assert self.last is not None
        if first > self.last + 1:
            left.append(OpenIds(self.last + 1, first - 1, now + WAIT_NS))
        self.last = max(self.last, last)
        self.open = left
        if len(left) <= OPEN_MAX:
            return []
        lost = self.open.pop(0)
        return [GapOut(lost.first, lost.last, OVERFLOW)]

    def drop(self) -> None:
        """The feeds stop to carry the symbol."""
        self.dropped, self.anew = True, False

    def carry(self) -> None:
        """They carry it again."""
        self.dropped, self.anew = False, self.dropped or self.anew

    def begin(self, first: int, now: int) -> list[Out]:
        """Ids count from `first` on, and single ones just below for a while."""
        before = 0 if self.last is None else self.last + 1
        self.last = first - 1
        self.floor, self.floor_least, self.floor_deadline = first, before, now + WAIT_NS
        return [BeginOut(first, before)]

    def known(self, id_: int) -> int | None:
        kept = self.singles.get(id_ % SINGLES)
        return kept[1] if kept and kept[0] == id_ else None

    def add_volume(self, units: int, ts_event: int) -> None:
        self.volume += units
        day = ts_event // DAY_NS
        if day > self.day:
            self.day, self.day_units = day, units
        elif day == self.day:
            self.day_units += units

    def count_single(
        self, id_: int, units: int, price: float, ts: int, now: int, aggregate: bool
    ) -> list[Out]:
        assert self.last is not None
        late = id_ <= self.last
        if not late:
            self.price = price
        out = self.cover(id_, id_, now)
        self.singles[id_ % SINGLES] = (id_, units)
        self.add_volume(units, ts)
        self.drop_covered()
        return [*out, TradeOut(id_, 1, units, price, aggregate=aggregate, late=late)]

    def count_aggregate(self, agg: AggTrade, now: int) -> list[Out]:
        pieces = self.uncovered(agg.first, agg.last)
        if not pieces:
            return []
        count = sum(b - a + 1 for a, b in pieces)
        units: int | None = agg.units
        span = agg.last - agg.first + 1
        if count < span:
            units = None
            if span - count <= SINGLES:
                # Only the covered ids between the pieces are walked: an aggTrade may stand for 2**32 trades.
                starts = [agg.first, *(b + 1 for _, b in pieces)]
                ends = [*(a - 1 for a, _ in pieces), agg.last]
                between = zip(starts, ends, strict=True)
                values = [self.known(i) for start, end in between for i in range(start, end + 1)]
                if None not in values:
                    rest = agg.units - sum(v for v in values if v is not None)
                    units = rest if rest > 0 else None
        if units is None:
            self.cover(agg.first, agg.last, now)
            return [GapOut(a, b, UNKNOWN_QUANTITY) for a, b in pieces]
        assert self.last is not None
        top = pieces[-1][1]
        late = top <= self.last
        if not late:
            self.price = agg.price
        out = self.cover(agg.first, agg.last, now)
        self.add_volume(units, agg.ts_event)
        record = TradeOut(top, count, units, agg.price, aggregate=True, sparse=len(pieces) > 1, late=late)
        return [*out, record]

    def drop_covered(self) -> None:
        self.held = [h for h in self.held if self.uncovered(h.first, h.last)]

    def take(
        self, single_line: bool, first: int, last: int, units: int, price: float, ts: int, now: int
    ) -> tuple[int, list[Out]]:
        """One event; returns (Applied, records)."""
        span = last - first
        if (
            span < 0
            or last > ID_MAX
            or span >= SPAN_MAX
            or price <= 0
            or units <= 0
            or (single_line and span)
        ):
            return REFUSED, []
        if self.last is not None and last - self.last - 1 >= SPAN_MAX:
            return REFUSED, []
        if single_line:
            self.trade_line = now
        begun: list[Out] = []
        if self.last is None:
            begun = self.begin(first, now)
            self.anew = False
        elif self.anew and last > self.last:
            self.anew = False
            if not self.held:
                begun = self.begin(max(first, self.last + 1), now)
        status, out = self.count(single_line, first, last, units, price, ts, now)
        return status, begun + out

    def count(
        self, single_line: bool, first: int, last: int, units: int, price: float, ts: int, now: int
    ) -> tuple[int, list[Out]]:
        """`take` of an event that can be."""
        if not self.uncovered(first, last):
            below = first == last and first + 1 == self.floor and first >= self.floor_least
            if not below or now >= self.floor_deadline:
                return DUPLICATE, []
            # The other line was behind when the symbol began: the trade just below still counts.
            self.floor = first
            self.singles[first % SINGLES] = (first, units)
            self.add_volume(units, ts)
            late = TradeOut(first, 1, units, price, aggregate=not single_line, late=True)
            return FRESH, [late]
        if first == last:
            return FRESH, self.count_single(first, units, price, ts, now, aggregate=not single_line)
        agg = AggTrade(first, last, units, price, ts, now + WAIT_NS)
        if self.trade_line is None or now - self.trade_line >= WAIT_NS:
            out = self.count_aggregate(agg, now)
            self.drop_covered()
            return FRESH, out
        if any((h.first, h.last) == (first, last) for h in self.held):
            return DUPLICATE, []
        out = []
        if len(self.held) == HELD_MAX:
            out = self.count_aggregate(self.held.pop(0), now)
            self.drop_covered()
        self.held.append(agg)
        return HELD, out

    def awaited(self, o: OpenIds) -> bool:
        """Whether a waiting aggTrade overlaps the range."""
        return any(h.first <= o.last and h.last >= o.first for h in self.held)

    def deadlines(self) -> list[int]:
        """When `expire` has something to do."""
        return [h.deadline for h in self.held] + [o.deadline for o in self.open if not self.awaited(o)]

    def expire(self, now: int) -> list[Out]:
        """What is due: first the waiting aggTrades by arrival, then the open ranges by id."""
        out: list[Out] = []
        if self.last is None:
            return out
        for agg in [h for h in self.held if h.deadline <= now]:
            out += self.count_aggregate(agg, now)
            self.held.remove(agg)
        self.drop_covered()
        for o in list(self.open):
            if o.deadline <= now and not self.awaited(o):
                out.append(GapOut(o.first, o.last, TIMEOUT))
                self.open.remove(o)
        return out
