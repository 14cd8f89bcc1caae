"""The history in InfluxDB 2.7: ticks, bars and levels are points there, as the specification lays them out.

InfluxDB has no transactions and writes a point over whatever had its tags and time. So what must be one with a batch,
the places in the journals and the id ranges, stays in a SQLite file of the recorder's data folder, the book, and is
written after the points: a crash in between has the sink read the same records again, and the same points are written
once more. Whether a bar is better than the stored one is found out before it is written.

    trades      tags exchange, symbol; price, bid, ask, volume, sequence (the trade's id), trade_count, flags
    ohlcv_1m .. tags exchange, symbol; open, high, low, close, volume, trade_count
    enigma      tags exchange, symbol; price, level, ath, atl, fib_0 .. fib_100
    gaps        see store/influx_gaps.py
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from heapq import heappop, heappush

from tradeback._fast.lineproto import encode_ticks
from tradeback.config.sections import HistoryConfig
from tradeback.errors import HistoryError
from tradeback.model import MINUTE_NS, RESOLUTIONS, Bar, EnigmaLevel, Gap, Range, Tick, without
from tradeback.store.base import BackfillJob, HistoryBatch, OpenGaps
from tradeback.store.beside import search
from tradeback.store.fold import coarser_intervals, fold, with_current
from tradeback.store.history_sqlite import SqliteHistory
from tradeback.store.influx import FIRST_NS, LAST_NS, Influx, nanoseconds
from tradeback.store.influx_beside import NotNearError, beside_near
from tradeback.store.influx_gaps import ALL_GAPS, GAPS, filled_line, gap_line, gaps_of, key_of
from tradeback.store.influx_points import (
    COUNT,
    FIRST,
    LAST,
    NEWEST_BY_SYMBOL,
    POINTS,
    POINTS_A_MILLISECOND,
    Points,
    bar_line,
    bars_of,
    first_id_of,
    level_line,
    level_of,
    measurement,
    point_key,
    ticks_of,
)
from tradeback.store.influx_restore import restored
from tradeback.store.rules import check_bars, length_of, row_limit, too_old_before

TAKEN_OVER = "taken over from InfluxDB"  # a place of the book that is none of a journal
RECENT_MINUTES = 4  # of each symbol that the writer remembers
FIRST_WINDOW_NS = 60 * 1_000_000_000  # of ticks that are read at once; grows while there are few
FIRST_WINDOW_OF_FEW_NS = 100_000_000
FEW_TICKS, MANY_TICKS = 2_000, 20_000


class InfluxHistory:
    """The `History` in InfluxDB. `symbol_of` gives the symbol of a stream id, `stream_ids` those of all symbols that
    there are.

    `book` keeps what is no time series; without one, as on another machine than the recorder's, the history can be
    read, but for what only the recorder needs. Which trades are missing is read from the points of gaps then, and all
    other ids between the first tick and the last count as stored.
    """

    def __init__(
        self,
        influx: Influx,
        exchange: str,
        symbol_of: Callable[[int], str],
        stream_ids: Callable[[], Mapping[str, int]],
        ages: HistoryConfig,
        book: SqliteHistory | None,
        *,
        write: bool,
    ) -> None:
        self.place = influx.place
        self._influx = influx
        self._exchange = exchange
        self._symbol_of = symbol_of
        self._stream_ids = stream_ids
        self._ages = ages
        self._optional_book = book
        self._write = write
        self._lock = threading.Lock()
        # What is stored, by stream id, to spare questions: the writer's.
        self._newest: dict[int, int | None] = {}
        self._recent: dict[int, dict[int, Bar]] = {}
        self._taking_over = threading.Lock()
        self._taken_over = False
        self._gaps_agree = False  # whether the points of gaps are those of the book

    # ---- writing

    def write(self, batch: HistoryBatch) -> None:
        self._check_writable()
        with self._lock:
            ticks = list(batch.ticks)
            prefixes = {
                stream_id: self._key("trades", stream_id) for stream_id in {tick[0] for tick in ticks}
            }
            try:
                lines = [encode_ticks(ticks, prefixes)]
            except OverflowError as error:
                raise ValueError(
                    f"The history takes no such tick ({error}): ids and times are integers below 2**63"
                ) from error
            check_bars("1m", (bar for _, bar in batch.minutes))
            by_stream: dict[int, list[Bar]] = {}
            for stream_id, bar in batch.minutes:
                if bar.trade_count > 0:
                    by_stream.setdefault(stream_id, []).append(bar)
            accepted = {
                stream_id: self._merge(stream_id, bars, lines) for stream_id, bars in by_stream.items()
            }
            self._tell_gaps(batch, lines)
            self._store(lines, accepted)
            self._book.write(
                HistoryBatch(
                    covered=batch.covered,
                    dissolved=batch.dissolved,
                    gaps=batch.gaps,
                    filled=batch.filled,
                    places=batch.places,
                    extremes=[
                        *_widest((tick[0], tick[3], tick[3]) for tick in ticks),
                        *_widest((stream_id, bar.high, bar.low) for stream_id, bar in batch.minutes),
                        *batch.extremes,
                    ],
                )
            )
            self._gaps_agree = True

    def write_bars(self, stream_id: int, resolution: str, bars: Sequence[Bar]) -> int:
        length_of(resolution)
        self._check_writable()
        check_bars(resolution, bars)
        bars = [bar for bar in bars if bar.trade_count > 0]
        if not bars:
            return 0
        with self._lock:
            lines: list[bytes] = []
            if resolution == "1m":
                accepted = self._merge(stream_id, bars, lines)
            else:
                opened = [bar.open_time for bar in bars]
                stored = self._stored(stream_id, resolution, min(opened), max(opened) + 1)
                accepted = _better(bars, stored)
                lines += [bar_line(self._key(measurement(resolution), stream_id), bar) for bar in accepted]
            self._store(lines, {stream_id: accepted} if resolution == "1m" else {})
            self._book.write(HistoryBatch(extremes=_widest((stream_id, bar.high, bar.low) for bar in bars)))
        return len(accepted)

    def write_enigma(self, levels: Sequence[EnigmaLevel]) -> None:
        self._check_writable()
        self._influx.write(*(level_line(self._key("enigma", level.stream_id), level) for level in levels))

    def write_job(self, job: BackfillJob) -> None:
        length_of(job.resolution)
        self._check_writable()
        self._book.write_job(job)

    # ---- reading

    def check(self) -> None:
        self._influx.check()

    @property
    def refused(self) -> int:
        return self._influx.refused

    def places(self) -> dict[str, int]:
        return {name: place for name, place in self._book.places().items() if name != TAKEN_OVER}

    def covered(self, stream_id: int | None = None) -> dict[int, list[Range]]:
        if self._optional_book is not None or stream_id is None:
            return self._book.covered(stream_id)
        first, last = (
            self._first_from("trades", stream_id, FIRST_NS, LAST_NS),
            self._last("trades", stream_id),
        )
        if last is None:
            return {}
        # Within a millisecond points do not rise with their ids.
        oldest, newest = (
            list(ticks_of(stream_id, self._points("trades", stream_id, start, start + POINTS_A_MILLISECOND)))
            for start in (first, last + 1 - POINTS_A_MILLISECOND)
        )
        if not (oldest and newest):
            return {}
        whole = min(map(first_id_of, oldest)), max(tick.trade_id for tick in newest)
        missing = [(gap.first_id, gap.last_id) for gap in self.gaps(stream_id)]
        return {stream_id: list(without([whole], missing))}

    def gaps(
        self,
        stream_id: int | None = None,
        *,
        open_only: bool = False,
        first_id: int = 0,
        limit: int | None = None,
    ) -> list[Gap]:
        if self._optional_book is not None or stream_id is None:
            return self._book.gaps(stream_id, open_only=open_only, first_id=first_id, limit=limit)
        points = gaps_of(
            self._influx.query(GAPS, **self._of(stream_id), measurement="gaps", start=FIRST_NS, stop=LAST_NS)
        )
        found = [
            gap._replace(stream_id=stream_id)
            for gap in points.values()
            if gap.first_id >= first_id and not (open_only and gap.unfillable)
        ]
        return sorted(found)[: row_limit(limit)]

    def open_gaps(self) -> list[OpenGaps]:
        return self._book.open_gaps()

    def extremes(self, stream_id: int) -> tuple[float, float] | None:
        return self._book.extremes(stream_id)

    def jobs(self) -> list[BackfillJob]:
        return self._book.jobs()

    def ticks(self, stream_id: int, start: int, end: int, limit: int | None = None) -> Iterator[Tick]:
        """A point's time is up to a millisecond above its tick's: what may come before another waits for it."""
        left = row_limit(limit)
        waiting: list[tuple[int, int, Tick]] = []
        window = FIRST_WINDOW_NS
        reached, stop = _within(start), _within(end + POINTS_A_MILLISECOND)
        if left < FEW_TICKS and reached < stop:
            # Of a few, none is looked for where there are none, and not many are read to find them.
            window = FIRST_WINDOW_OF_FEW_NS
            reached = self._first_from("trades", stream_id, reached, stop)
        while left > 0 and reached < stop:
            upto = min(reached + window, stop)
            found = list(ticks_of(stream_id, self._points("trades", stream_id, reached, upto)))
            for tick in found:
                if start <= tick.ts_event < end:
                    heappush(waiting, (tick.ts_event, tick.trade_id, tick))
            reached = upto
            while left > 0 and waiting and waiting[0][0] + POINTS_A_MILLISECOND <= reached:
                left -= 1
                yield heappop(waiting)[2]
            if len(found) > MANY_TICKS:
                window = max(window // 2, 1)
            elif len(found) < FEW_TICKS:
                window *= 2
            if not found:
                reached = self._first_from("trades", stream_id, reached, stop)
        while left > 0 and waiting:
            left -= 1
            yield heappop(waiting)[2]

    def beside(
        self, stream_id: int, first: int, last: int, near: Iterable[int]
    ) -> tuple[Tick | None, Tick | None]:
        """Takes three questions where the first time is right, one more for each that is wrong, and some dozen where
        all are."""

        def ask(flux: str, start: int, stop: int, **ids: int) -> Iterator[dict[str, str]]:
            return self._influx.query(
                flux,
                **self._of(stream_id),
                measurement="trades",
                start=_within(start),
                stop=_within(stop),
                **ids,
            )

        for time in near:
            with suppress(NotNearError):
                return beside_near(ask, stream_id, first, last, time)
        return search(self, stream_id, first, last)

    def some_tick_from(self, stream_id: int, time: int) -> Tick | None:
        """The first of a symbol's ticks from a time on, by the times of their points, which are up to a millisecond
        above their own: one question tells, unless the point is being written."""
        points = self._points("trades", stream_id, time, LAST_NS, flux=FIRST)
        found = next(ticks_of(stream_id, points), None)
        if found is not None or not points:
            return found
        return next(self.ticks(stream_id, time, LAST_NS, 1), None)

    def newest_tick(self, stream_id: int) -> int:
        last = self._last("trades", stream_id)
        if last is None:
            return 0
        points = self._points("trades", stream_id, last - POINTS_A_MILLISECOND, last + 1)
        return max((tick.ts_event for tick in ticks_of(stream_id, points)), default=0)

    def bars(
        self, stream_id: int, resolution: str, start: int, end: int, limit: int | None = None
    ) -> list[Bar]:
        length = length_of(resolution)
        count = row_limit(limit)
        # The newest minute first: an interval that ends meanwhile is folded all the same, and nothing is missed.
        newest = self._last(measurement("1m"), stream_id)
        last = newest if resolution == "1m" else self._last(measurement(resolution), stream_id)
        current: list[Bar] = []
        if resolution != "1m" and newest is not None:
            first = newest - newest % length
            if start <= first < end:
                current = fold(self._stored(stream_id, "1m", first, first + length).values(), length)
        found: dict[int, Bar] = {}
        if last is not None and count:
            found = self._newest_stored(stream_id, resolution, start, min(end, last + 1), count)
        return with_current([found[open_time] for open_time in sorted(found)], current, count)

    def enigma(self, stream_id: int) -> EnigmaLevel | None:
        last = self._last("enigma", stream_id)
        if last is None:
            return None
        # One that is being written may lack fields: then the one before it is the newest.
        return level_of(stream_id, self._points("enigma", stream_id, last - MINUTE_NS, last + 1))

    def retain(self, now_ns: int) -> dict[str, int]:
        """Ages count from `now_ns` or from the newest point, whichever is earlier, as everywhere."""
        self._check_writable()
        names = {"ticks": "trades", **{name: measurement(name) for name in RESOLUTIONS}, "enigma": "enigma"}
        newest = {what: self._newest_by_symbol(name) for what, name in names.items()}
        now = min(now_ns, max((max(times.values()) for times in newest.values() if times), default=FIRST_NS))
        deleted = {}
        for what, name in names.items():
            before = too_old_before(self._ages, what, now)
            if what == "1m":
                self._keep_coarser(symbol for symbol, time in newest[what].items() if time < before)
            deleted[what] = self._delete(name, before)
        with self._lock:
            self._newest.clear()
            self._recent.clear()
        return deleted

    def close(self) -> None:
        if self._optional_book is not None:
            self._optional_book.close()
        self._influx.close()

    # ---- gaps

    def _tell_gaps(self, batch: HistoryBatch, lines: list[bytes]) -> None:
        """Add the lines of what a batch changes of the gaps. Where the points may not be those of the book, as after a
        batch that was cut off, they are brought up to it before."""
        book = self._book
        if not self._gaps_agree:
            self._influx.write(*self._disagreeing(book))
        self._gaps_agree = not (batch.gaps or batch.filled)
        first_ids = [*batch.filled, *((gap.stream_id, gap.first_id) for gap in batch.gaps)]
        stored = [gap for one in first_ids for gap in book.gaps(one[0], first_id=one[1], limit=1)]
        known = {(gap.stream_id, gap.first_id): gap for gap in stored}
        lines += [
            filled_line(self._exchange, key_of(self._symbol_of(one[0]), known[one]))
            for one in first_ids
            if one in known
        ]
        # After those: of two lines of one point the later counts.
        lines += [gap_line(self._exchange, self._symbol_of(gap.stream_id), gap) for gap in batch.gaps]

    def _disagreeing(self, book: SqliteHistory) -> Iterator[bytes]:
        """The lines that make the points of gaps those of the book."""
        points = gaps_of(self._of_exchange("gaps", ALL_GAPS))
        for gap in book.gaps():
            symbol = self._symbol_of(gap.stream_id)
            if points.pop(key_of(symbol, gap), None) != gap._replace(stream_id=0):
                yield gap_line(self._exchange, symbol, gap)
        ours = self._stream_ids()  # of a symbol that a new catalog does not know the book knows nothing
        for key in points:
            if key[0] in ours:
                yield filled_line(self._exchange, key)

    # ---- bars as they are stored

    def _merge(self, stream_id: int, bars: Sequence[Bar], lines: list[bytes]) -> list[Bar]:
        """The lines of those 1m bars that are better than what is stored, and of the coarser bars that follow;
        returns the 1m bars among them. What follows is made whether or not they are better: a batch that was cut
        off may have left it out."""
        newest = self._newest_minute(stream_id)
        recent = self._recent.get(stream_id, {})
        touched = {bar.open_time for bar in bars}
        unknown = [time for time in touched if newest is not None and time <= newest and time not in recent]
        stored = recent
        if unknown:
            stored = self._stored(stream_id, "1m", min(unknown), max(unknown) + 1) | recent
        accepted = _better(bars, stored)
        lines += [bar_line(self._key(measurement("1m"), stream_id), bar) for bar in accepted]
        coarser = {name: opened for name, opened in coarser_intervals(touched, newest).items() if opened}
        if coarser:
            first = min(map(min, coarser.values()))
            stop = max(max(opened) + RESOLUTIONS[name] for name, opened in coarser.items())
            stored = self._stored(stream_id, "1m", first, stop) | {bar.open_time: bar for bar in accepted}
            minutes = [stored[time] for time in sorted(stored)]
            for name, opened in coarser.items():
                bars = [bar for bar in fold(minutes, RESOLUTIONS[name]) if bar.open_time in opened]
                there = self._stored(stream_id, name, min(opened), max(opened) + 1)
                key = self._key(measurement(name), stream_id)
                lines += [bar_line(key, bar) for bar in _better(bars, there)]
        return accepted

    def _store(self, lines: Iterable[bytes], minutes: Mapping[int, Sequence[Bar]]) -> None:
        """Write the lines; the 1m bars among them are known to be stored from then on."""
        self._influx.write(*lines)
        for stream_id, bars in minutes.items():
            recent = self._recent.setdefault(stream_id, {})
            recent |= {bar.open_time: bar for bar in bars}
            for time in sorted(recent)[:-RECENT_MINUTES]:
                del recent[time]
            if recent:
                newest = self._newest.get(stream_id)
                self._newest[stream_id] = max(recent) if newest is None else max(newest, *recent)

    def _newest_minute(self, stream_id: int) -> int | None:
        if stream_id not in self._newest:
            self._newest[stream_id] = self._last(measurement("1m"), stream_id)
        return self._newest[stream_id]

    def _stored(self, stream_id: int, resolution: str, start: int, end: int) -> dict[int, Bar]:
        return bars_of(self._points(measurement(resolution), stream_id, start, end))

    def _newest_stored(
        self, stream_id: int, resolution: str, start: int, end: int, count: int
    ) -> dict[int, Bar]:
        """The newest bars as they are stored, `count` or more where there are as many, by opening time."""
        span = count * RESOLUTIONS[resolution]
        found: dict[int, Bar] = {}
        while end > start:
            earlier = max(start, end - span)
            found |= self._stored(stream_id, resolution, earlier, end)
            if len(found) >= count:
                break
            end, span = earlier, span * 4
            if end > start:
                first = self._first_from(measurement(resolution), stream_id, start, end)
                if first >= end:
                    break
                start = max(start, first)
        return found

    def _keep_coarser(self, symbols: Iterable[str]) -> None:
        """Store the bars in progress of the symbols whose last minute is about to be deleted."""
        for symbol in symbols:
            newest = self._last(measurement("1m"), symbol)
            if newest is None:
                continue
            lines = []
            for resolution, length in RESOLUTIONS.items():
                start = newest - newest % length
                if resolution != "1m":
                    bars = fold(self._stored_of(symbol, "1m", start, start + length), length)
                    there = {
                        bar.open_time: bar for bar in self._stored_of(symbol, resolution, start, start + 1)
                    }
                    key = point_key(measurement(resolution), self._exchange, symbol)
                    lines += [bar_line(key, bar) for bar in _better(bars, there)]
            self._influx.write(*lines)

    def _stored_of(self, symbol: str, resolution: str, start: int, end: int) -> list[Bar]:
        stored = bars_of(self._points(measurement(resolution), symbol, start, end))
        return [stored[time] for time in sorted(stored)]

    # ---- questions

    def _of(self, of: int | str) -> dict[str, str]:
        """The parameters that name a symbol, by its stream id or its name."""
        symbol = of if isinstance(of, str) else self._symbol_of(of)
        return {"exchange": self._exchange, "symbol": symbol}

    def _points(self, name: str, of: int | str, start: int, end: int, *, flux: str = POINTS) -> Points:
        start, end = _within(start), _within(end)
        if start >= end:
            return {}
        return self._influx.points(flux, **self._of(of), measurement=name, start=start, stop=end)

    def _of_exchange(self, name: str, flux: str) -> Iterator[dict[str, str]]:
        return self._influx.query(
            flux, measurement=name, exchange=self._exchange, start=FIRST_NS, stop=LAST_NS
        )

    def _last(self, name: str, of: int | str) -> int | None:
        """The time of the newest point, None where there is none."""
        return max(self._points(name, of, FIRST_NS, LAST_NS, flux=LAST), default=None)

    def _first_from(self, name: str, stream_id: int, start: int, stop: int) -> int:
        """The time of the first point from `start` on; `stop` where there is none before it."""
        return min(self._points(name, stream_id, start, stop, flux=FIRST), default=stop)

    def _newest_by_symbol(self, name: str) -> dict[str, int]:
        newest: dict[str, int] = {}
        for row in self._of_exchange(name, NEWEST_BY_SYMBOL):
            time = nanoseconds(row["_time"])
            newest[row["symbol"]] = max(newest.get(row["symbol"], FIRST_NS), time)
        return newest

    def _delete(self, name: str, before: int) -> int:
        if before <= FIRST_NS:
            return 0
        rows = self._influx.query(
            COUNT,
            measurement=name,
            exchange=self._exchange,
            field={"trades": "price", "enigma": "price"}.get(name, "open"),
            start=FIRST_NS,
            stop=before,
        )
        count = sum(int(row["_value"]) for row in rows)
        if count:
            self._influx.delete(FIRST_NS, before, f'_measurement="{name}" AND exchange="{self._exchange}"')
        return count

    def _key(self, name: str, stream_id: int) -> bytes:
        return point_key(name, self._exchange, self._symbol_of(stream_id))

    @property
    def _book(self) -> SqliteHistory:
        if self._optional_book is None:
            raise HistoryError(
                f"Of the history at {self.place}, places, id ranges and gaps are kept in the recorder's data folder, "
                "which is not here: ask on the recorder's machine"
            )
        if self._write and not self._taken_over:
            self._take_over(self._optional_book)
        return self._optional_book

    def _take_over(self, book: SqliteHistory) -> None:
        """Into a book that no batch was written to what InfluxDB tells, where it was written to before."""
        with self._taking_over:
            if not self._taken_over:
                if not book.places():
                    taken = restored(self._influx, self._exchange, self._stream_ids)
                    # What is written from now on and not in the book was cut off, and is in the journal.
                    book.write(replace(taken, places={TAKEN_OVER: 0}))
                self._taken_over = True

    def _check_writable(self) -> None:
        if not self._write:
            raise HistoryError(
                f"The history at {self.place} was opened for reading alone: nothing can be stored"
            )


def _better(bars: Iterable[Bar], stored: Mapping[int, Bar]) -> list[Bar]:
    """Those that are to be written over what is stored: of more trades, or as many and not the same."""
    best = dict(stored)
    for bar in bars:
        there = best.get(bar.open_time)
        if there is None or bar.trade_count >= there.trade_count:
            best[bar.open_time] = bar
    return [bar for time, bar in best.items() if bar != stored.get(time)]


def _widest(prices: Iterable[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """Of (stream id, high, low) the extremes of each stream id."""
    widest: dict[int, tuple[float, float]] = {}
    for stream_id, high, low in prices:
        known = widest.get(stream_id, (high, low))
        widest[stream_id] = max(known[0], high), min(known[1], low)
    return [(stream_id, *extremes) for stream_id, extremes in widest.items()]


def _within(time_ns: int) -> int:
    return min(max(time_ns, FIRST_NS), LAST_NS)
