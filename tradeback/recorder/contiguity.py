"""Whether the stored trades of a range are all there: ticks against the covered ids, and against the gaps.

Pure, and reads ticks once, as they come from the store. An exchange numbers the trades of a symbol without a hole, so
that ids, and never times, tell what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tradeback._fast.record import FLAGS, REASONS
from tradeback.model import Gap, Range, Tick, without

NOT_RECORDED = "neither stored nor known as a gap"
BEGIN = REASONS["begin"]
_REASONS = {code: name.replace("_", " ") for name, code in REASONS.items()}


class Missing(NamedTuple):
    """Ids `first_id`..`last_id` that no tick stands for, traded between two times, unix ns: those of the stored
    trades before and after them. `why` is a short text, `closed` says that they will not come any more; `asked` is
    false where they were traded while the symbol was not carried.
    """

    first_id: int
    last_id: int
    after: int
    before: int
    why: str
    closed: bool
    asked: bool = True

    @property
    def trades(self) -> int:
        return self.last_id - self.first_id + 1


@dataclass(frozen=True, slots=True)
class Contiguity:
    """What the ticks of a range say. `first_id`..`last_id` are the ids they lie between, `begin` and `end` their
    times, all 0 where there is no tick. `trades` is how many trades they stand for. `faults` are sentences about
    what must never be: ids that two ticks stand for, ids that count as stored and have no tick. `begins`: no trade
    before the first of these is stored, in whatever range; `ends`: none after the last."""

    ticks: int = 0
    trades: int = 0
    first_id: int = 0
    last_id: int = 0
    begin: int = 0
    end: int = 0
    missing: Sequence[Missing] = ()
    faults: Sequence[str] = ()
    begins: bool = False
    ends: bool = False

    def lacking(self, start: int, end: int) -> str:
        """Why the trades from `start` to before `end` are not all there; empty where they are."""
        if not self.ticks or end <= self.begin or start > self.end:
            return "its trades are not stored"
        lost = [part for part in self.missing if part.after < end and part.before >= start]
        if lost:
            shown = f"{lost[0].first_id} to {lost[-1].last_id}" if len(lost) > 1 or lost[0].trades > 1 else ""
            return f"trades {shown or lost[0].first_id} are missing ({lost[0].why})"
        if self.begins and start < self.begin:
            return f"trades before {self.first_id} are not stored"
        if self.ends and end > self.end:
            return f"trades after {self.last_id} are not stored"
        return ""


@dataclass(slots=True)
class _Run:
    """Ids that ticks stand for without a hole, and the times of the first and the last."""

    first: int
    last: int
    begin: int
    end: int


@dataclass(slots=True)
class _Ticks:
    runs: list[_Run] = field(default_factory=list)
    ticks: int = 0
    trades: int = 0
    sparse: int = 0  # ids of sparse ticks besides their last ones: nothing in a tick says which they are
    begin: int = 0
    end: int = 0

    def take(self, tick: Tick) -> None:
        scattered = bool(tick.flags & FLAGS["sparse"])
        first = tick.trade_id if scattered else tick.trade_id - tick.trade_count + 1
        self.sparse += tick.trade_count - 1 if scattered else 0
        self.begin = self.begin if self.ticks else tick.ts_event
        self.end = tick.ts_event
        self.ticks += 1
        self.trades += tick.trade_count
        if self.runs and self.runs[-1].last + 1 == first:
            self.runs[-1].last, self.runs[-1].end = tick.trade_id, tick.ts_event
        else:
            self.runs.append(_Run(first, tick.trade_id, tick.ts_event, tick.ts_event))


def contiguity(
    ticks: Iterable[Tick],
    before: Sequence[Range],
    read_after: Callable[[], tuple[Sequence[Gap], Sequence[Range]]],
) -> Contiguity:
    """Judge the ticks of one symbol, rising by (time, id), by all its covered ids and all its gaps.

    A recorder may be writing: `before` are the covered ids as they were before the first tick was read, and
    `read_after` gives the gaps, and the covered ids, as they are after the last one.
    """
    seen = _Ticks()
    for tick in ticks:
        seen.take(tick)
    gaps, covered = read_after()
    if not seen.ticks:
        return Contiguity()
    runs, doubled = _joined(seen.runs)
    ids = [(run.first, run.last) for run in runs]
    whole = (ids[0][0], ids[-1][1])
    stored = list(_within(covered, whole))
    faults = [f"trades {first} to {last} stand in two ticks" for first, last in doubled]
    faults += [
        f"trades {first} to {last} have a tick and do not count as stored"
        for first, last in without(ids, stored)
    ]
    bare = list(without(_within(before, whole), ids))
    if sum(last - first + 1 for first, last in bare) > seen.sparse:
        faults += [f"trades {first} to {last} count as stored and have no tick" for first, last in bare]
    return Contiguity(
        ticks=seen.ticks,
        trades=seen.trades,
        first_id=whole[0],
        last_id=whole[1],
        begin=seen.begin,
        end=seen.end,
        missing=sorted(part for hole in without([whole], stored) for part in _explained(hole, runs, gaps)),
        faults=faults,
        begins=not any(first < whole[0] <= last + 1 for first, last in covered),
        ends=not any(first <= whole[1] + 1 <= last for first, last in covered),
    )


def _joined(runs: list[_Run]) -> tuple[list[_Run], list[Range]]:
    """Runs by rising id, those that touch as one, and the ids that stand in two of them."""
    joined: list[_Run] = []
    doubled: list[Range] = []
    for run in sorted(runs, key=lambda run: run.first):
        before = joined[-1] if joined else None
        if before is None or run.first > before.last + 1:
            joined.append(run)
            continue
        if run.first <= before.last:
            doubled.append((run.first, min(run.last, before.last)))
        if run.last > before.last:
            before.last, before.end = run.last, run.end
    return joined, doubled


def _explained(hole: Range, runs: Sequence[_Run], gaps: Sequence[Gap]) -> Iterator[Missing]:
    """The hole, cut at the gaps that lie in it."""
    after = max((run.end for run in runs if run.last < hole[0]), default=0)
    before = min((run.begin for run in runs if run.first > hole[1]), default=0)
    rest = [hole]
    for gap in gaps:
        for first, last in _within([(gap.first_id, gap.last_id)], hole):
            rest = list(without(rest, [(first, last)]))
            yield Missing(first, last, after, before, _why(gap), bool(gap.unfillable), gap.reason != BEGIN)
    for first, last in rest:
        yield Missing(first, last, after, before, NOT_RECORDED, True)


def _why(gap: Gap) -> str:
    if gap.reason == BEGIN:
        return "not carried then"
    if gap.unfillable:
        return f"unfillable: {gap.unfillable}"
    return f"a gap, being fetched: {_REASONS.get(gap.reason, str(gap.reason))}"


def _within(ranges: Iterable[Range], bounds: Range) -> Iterator[Range]:
    for first, last in ranges:
        if first <= bounds[1] and last >= bounds[0]:
            yield max(first, bounds[0]), min(last, bounds[1])
