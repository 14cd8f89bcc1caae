"""HistorySink: ticks, gaps and 1m bars into the history, one transaction a batch, each trade once.

The history's own places, written in the same transaction, are the truth; its id ranges tell what was seen before.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from operator import itemgetter
from pathlib import Path

import structlog

from tradeback._fast.journal import JournalBegin, JournalGap, JournalTrade, Record
from tradeback._fast.record import FLAGS, REASONS
from tradeback._fast.stats import Stats
from tradeback.model import UNFILLABLE_TEXTS, Gap, Tick
from tradeback.recorder.bars import MinuteBars
from tradeback.recorder.coverage import Coverage
from tradeback.recorder.sinks import AT_ONCE, Enough, Sink
from tradeback.store.base import History, HistoryBatch

log = structlog.get_logger(__name__)

FLAG_SPARSE = FLAGS["sparse"]
FLAG_REPAIR = FLAGS["repair"]
GAP_UNFILLABLE = REASONS["unfillable"]
GAP_LOST = REASONS["lost"]
HOLE_PATIENCE = 3.0  # seconds; the server leaves no id open for longer than half a second
FAR_FUTURE_NS = 2**63 - 1


class HistorySink(Sink):
    """`precision` gives the quantity precision of a stream id. `bars` false: none are made.

    `on_gaps` is called in the sink's thread after a commit that brought gaps that may be filled, beginnings among them,
    with the stream ids that have them. Bars are written within `changing`, which gets stream ids and opening times.
    """

    def __init__(
        self,
        folder: Path,
        stats: Stats,
        window: float,
        history: History,
        precision: Callable[[int], int],
        *,
        bars: bool = True,
        enough: Enough = AT_ONCE,
        changing: Callable[[Iterable[tuple[int, int]]], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__("history", folder, stats, window, enough)
        self.on_gaps: Callable[[frozenset[int]], None] = lambda stream_ids: None
        self._history = history
        self._precision = precision
        self._with_bars = bars
        self._changing = changing
        self._ticks: list[Tick] = []
        self._taken: Counter[str] = Counter()  # what will have been counted once the batch is stored
        self._coverage = Coverage({})
        self._committed: dict[int, list[tuple[int, int]]] | None = None  # id ranges; None: to be asked for
        self._bars: MinuteBars | None = None
        self._new_gaps = 0
        self._new_in: set[int] = set()  # stream ids that begin or have new gaps
        self._holes: list[tuple[int, int, int]] | None = None
        self._holes_due = 0.0
        self.newest_ns = 0  # T of the newest trade of the last batch that had any; 0 where none came yet

    def open(self) -> Mapping[str, int]:
        history = self._history
        self._ticks = []
        self._taken.clear()
        self._new_gaps = 0
        self._new_in.clear()
        self._committed = None
        self._coverage = Coverage(history.covered(), history.gaps())
        self._bars = MinuteBars(self._stored, self._newest, self._precision) if self._with_bars else None
        self._count_gaps()
        self._look_for_holes()
        return history.places()

    def lost(self, journal: str) -> None:
        super().lost(journal)
        self._look_for_holes()

    def _look_for_holes(self) -> None:
        """Ids that no record accounts for are looked for once all that is journaled is stored."""
        self._holes, self._holes_due = None, time.monotonic() + HOLE_PATIENCE

    def at_end(self) -> bool:
        if not self._holes_due or time.monotonic() < self._holes_due:
            return False
        if self._holes is None:
            # They may be open ranges of the server's: those are decided soon.
            self._holes, self._holes_due = self._coverage.holes(), time.monotonic() + HOLE_PATIENCE
            return False
        self._holes_due = 0.0
        found = []
        for stream_id, first, last in self._holes:
            found += self._coverage.add_gap(Gap(stream_id, first, last, time.time_ns(), GAP_LOST))
        self._new_in.update(gap.stream_id for gap in found)
        if found:
            log.error(
                "trades are missing that no record tells of, they become gaps",
                gaps=len(found),
                trades=sum(gap.last_id - gap.first_id + 1 for gap in found),
            )
        self._new_gaps += len(found)
        return bool(found)

    def _newest(self, stream_id: int) -> int:
        """The newest of what is stored, bar or tick: while no bars were made, ticks came all the same."""
        bars = self._history.bars(stream_id, "1m", 0, FAR_FUTURE_NS, limit=1)
        return max(bars[-1].open_time if bars else 0, self._history.newest_tick(stream_id))

    def _stored(self, stream_id: int, start: int, end: int) -> Iterator[Tick]:
        """A symbol's ticks, those that the id ranges tell of. A history without transactions may hold others: of a
        batch that was cut off, which come from the journal once more."""
        if self._committed is None:
            self._committed = self._history.covered()
        ranges = self._committed.get(stream_id, [])
        for tick in self._history.ticks(stream_id, start, end):
            at = bisect_right(ranges, tick.trade_id, key=itemgetter(0)) - 1
            if at >= 0 and tick.trade_id <= ranges[at][1]:
                yield tick

    def take(self, journal: str, records: list[Record]) -> None:
        ticks = self._ticks
        add_trade = self._coverage.add_trade
        add_bar = self._bars.add if self._bars is not None else None
        seen = trades = repaired = 0
        for record in records:
            if type(record) is JournalTrade:
                _, stream_id, trade_id, count, price, qty, bid, ask, ts_event, _, flags = record
                repair = flags & FLAG_REPAIR != 0
                if (
                    add_trade(stream_id, trade_id, count, sparse=flags & FLAG_SPARSE != 0, repair=repair)
                    is None
                ):
                    seen += 1
                    continue
                tick = Tick(stream_id, trade_id, count, price, qty, bid, ask, ts_event, flags)
                ticks.append(tick)
                trades += count
                if repair:
                    repaired += count
                if add_bar is not None:
                    add_bar(tick)
            else:
                self._take_other(record)
        self._taken.update(trades=trades, repaired=repaired, seen_before=seen)

    def _take_other(self, record: Record) -> None:
        if isinstance(record, JournalGap):
            gap = Gap(record.stream_id, record.first_id, record.last_id, record.ts_event, record.reason)
            if record.reason == GAP_UNFILLABLE:
                why = UNFILLABLE_TEXTS.get(record.flags, f"given up for reason {record.flags}")
                self._coverage.give_up(gap._replace(unfillable=why))
            else:
                added = self._coverage.add_gap(gap)
                self._new_gaps += len(added)
                self._new_in.update(each.stream_id for each in added)
        elif isinstance(record, JournalBegin) and self._coverage.begin(
            record.stream_id, record.floor_id, record.first_id, record.ts_event
        ):
            self._new_in.add(record.stream_id)

    def commit(self, places: Mapping[str, int]) -> None:
        changes = self._coverage.changes()
        minutes = self._bars.changed() if self._bars is not None else []
        with self._changing((stream_id, bar.open_time) for stream_id, bar in minutes):
            self._history.write(
                HistoryBatch(
                    ticks=self._ticks,
                    minutes=minutes,
                    covered=changes.covered,
                    dissolved=changes.dissolved,
                    gaps=changes.gaps,
                    filled=changes.filled,
                    places=places,
                )
            )
        self._committed = None
        if self._ticks:
            self.newest_ns = self._ticks[-1].ts_event
        for name, amount in self._taken.items():
            self._stats.increase(name, amount)
        self._taken.clear()
        self._stats.increase("ticks", len(self._ticks))
        self._stats.increase("batches")
        self._stats.increase("minute_bars", len(minutes))
        self._ticks = []
        if self._bars is not None:
            self._bars.written()
            self._stats.increase("minute_bars_rebuilt", self._bars.rebuilt)
            self._bars.rebuilt = 0
        if changes.gaps or changes.filled:
            self._count_gaps()
        if self._new_in:
            self._stats.increase("gaps", self._new_gaps)
            self._new_gaps = 0
            told, self._new_in = frozenset(self._new_in), set()
            self.on_gaps(told)

    def _count_gaps(self) -> None:
        still_open, unfillable = self._coverage.count_gaps()
        self._stats.put("gaps_open", still_open)
        self._stats.put("gaps_unfillable", unfillable)
