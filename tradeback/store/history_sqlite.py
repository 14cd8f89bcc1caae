"""The history in one SQLite file of the data folder, `history.sqlite`.

Spoken to through the bare driver: an ORM's rows would cost more than SQLite itself does.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tradeback.config import Config
from tradeback.config.sections import HistoryConfig
from tradeback.errors import ConfigError, DataFolderError
from tradeback.model import MINUTE_NS, RESOLUTIONS, Bar, EnigmaLevel, Gap, Range, Tick
from tradeback.store.base import BackfillJob, HistoryBatch, OpenGaps
from tradeback.store.beside import search
from tradeback.store.fold import coarser_intervals, fold, with_current
from tradeback.store.history_file import HistoryFile
from tradeback.store.rules import FIRST, LAST, check_opening, length_of, row_limit, too_old_before

HISTORY_FILE = "history.sqlite"
PAGE_OF_TICKS = 4_096  # read at once
# Minutes that a batch folds, some 10 ms: at midnight each symbol has a day of them, which would hold up the ticks.
# What is left is written down as due, and folded with the next batches; until then readers fold it.
FOLD_MINUTES = 3_000
STEP_OF_RETENTION = 5_000  # rows deleted in one transaction

# How the file names a resolution: by its minutes.
_MINUTES = {name: length // MINUTE_NS for name, length in RESOLUTIONS.items()}
_NAMES = {minutes: name for name, minutes in _MINUTES.items()}
_COARSER = [(name, length) for name, length in RESOLUTIONS.items() if name != "1m"]

# What Bar._make does, without a call in Python for each: a page asks for thousands of bars.
_BAR_OF_ROW: Callable[[Iterable[object]], Bar] = partial(tuple.__new__, Bar)
_TICK = "stream_id, trade_id, trade_count, price, volume, bid, ask, ts_event, flags"
_BAR = "open_time, open, high, low, close, volume, trade_count"
_INSERT_TICK = f"INSERT INTO ticks ({_TICK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_INSERT_BAR = f"""
INSERT INTO bars (resolution, stream_id, {_BAR}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET open = excluded.open, high = excluded.high, low = excluded.low,
    close = excluded.close, volume = excluded.volume, trade_count = excluded.trade_count
WHERE excluded.trade_count > trade_count OR excluded.trade_count = trade_count
    AND (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)
        <> (open, high, low, close, volume)
"""
_TICKS_AFTER = f"""
SELECT {_TICK} FROM ticks WHERE stream_id = ? AND (ts_event, trade_id) > (?, ?) AND ts_event < ?
ORDER BY ts_event, trade_id LIMIT ?
"""
_BARS = f"SELECT {_BAR} FROM bars WHERE resolution = ? AND stream_id = ? AND open_time >= ? AND open_time < ?"
_NEWEST_MINUTE = "SELECT max(open_time) FROM bars WHERE resolution = 1 AND stream_id = ?"


class SqliteHistory:
    """The `History` in one SQLite file. `open_history` makes it; `place` names the file in messages."""

    refused = 0  # what cannot be stored is a ValueError

    def __init__(self, path: Path, ages: HistoryConfig, *, write: bool) -> None:
        self.place = str(path)
        self._ages = ages
        self._file = HistoryFile(path, write=write)
        # What the file says, by stream id, to spare questions; used within its transactions.
        self._newest: dict[int, int] = {}
        self._extremes: dict[int, tuple[float, float]] = {}
        self._due = True  # whether bars may be due

    def write(self, batch: HistoryBatch) -> None:
        with self._writing() as connection:
            if batch.ticks:
                # The driver takes plain tuples apart a fifth faster than named ones.
                connection.executemany(_INSERT_TICK, map(tuple, batch.ticks))
                self._widen(connection, ((tick[0], tick[3], tick[3]) for tick in batch.ticks))
            self._widen(connection, batch.extremes)
            _, coarser = self._write_bars(connection, "1m", batch.minutes)
            self._fold_some(connection, coarser)
            connection.executemany(
                "DELETE FROM covered WHERE stream_id = ? AND first_id = ?", batch.dissolved
            )
            connection.executemany("INSERT OR REPLACE INTO covered VALUES (?, ?, ?)", batch.covered)
            connection.executemany("DELETE FROM gaps WHERE stream_id = ? AND first_id = ?", batch.filled)
            connection.executemany("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?, ?)", batch.gaps)
            connection.executemany("INSERT OR REPLACE INTO places VALUES (?, ?)", batch.places.items())

    def write_bars(self, stream_id: int, resolution: str, bars: Sequence[Bar]) -> int:
        length_of(resolution)
        with self._writing() as connection:
            changed, coarser = self._write_bars(connection, resolution, [(stream_id, bar) for bar in bars])
            for span in coarser:
                _store_folded(connection, span)
            return changed

    def check(self) -> None:
        self.places()

    def places(self) -> dict[str, int]:
        with self._file.reading() as connection:
            return dict(connection.execute("SELECT journal, next_seq FROM places"))

    def covered(self, stream_id: int | None = None) -> dict[int, list[Range]]:
        ranges: dict[int, list[Range]] = {}
        where, values = ("", ()) if stream_id is None else ("WHERE stream_id = ?", (stream_id,))
        with self._file.reading() as connection:
            for of, first, last in connection.execute(
                f"SELECT * FROM covered {where} ORDER BY stream_id, first_id", values
            ):
                ranges.setdefault(of, []).append((first, last))
        return ranges

    def ticks(self, stream_id: int, start: int, end: int, limit: int | None = None) -> Iterator[Tick]:
        after = (_integer(start), FIRST)
        left = row_limit(limit)
        while left > 0:
            asked = min(left, PAGE_OF_TICKS)
            with self._file.reading() as connection:
                page = connection.execute(_TICKS_AFTER, (stream_id, *after, _integer(end), asked)).fetchall()
            yield from map(Tick._make, page)
            if len(page) < asked:
                return
            left -= asked
            last = Tick._make(page[-1])
            after = (last.ts_event, last.trade_id)

    def beside(
        self, stream_id: int, first: int, last: int, near: Iterable[int]
    ) -> tuple[Tick | None, Tick | None]:
        return search(self, stream_id, first, last)  # which is quick in a file

    def some_tick_from(self, stream_id: int, time: int) -> Tick | None:
        """The first of a symbol's ticks from a time on."""
        return next(self.ticks(stream_id, time, LAST, 1), None)

    def newest_tick(self, stream_id: int) -> int:
        with self._file.reading() as connection:
            (newest,) = connection.execute(
                "SELECT max(ts_event) FROM ticks WHERE stream_id = ?", (stream_id,)
            ).fetchone()
        return newest or 0

    def bars(
        self, stream_id: int, resolution: str, start: int, end: int, limit: int | None = None
    ) -> list[Bar]:
        length = length_of(resolution)
        count = row_limit(limit)
        key = (_MINUTES[resolution], stream_id, _integer(start), _integer(end))
        current: list[Bar] = []
        with self._file.reading() as connection:
            # One view of the file, or an interval might end between the two questions and be in neither answer.
            connection.execute("BEGIN")
            rows = connection.execute(f"{_BARS} ORDER BY open_time DESC LIMIT ?", (*key, count)).fetchall()
            for first in _folded_by_readers(connection, stream_id, resolution) if resolution != "1m" else ():
                if start <= first < end:
                    current += _folded(connection, _Span(resolution, stream_id, first, first + length))
            connection.execute("COMMIT")
        return with_current(list(map(_BAR_OF_ROW, reversed(rows))), current, count)

    def gaps(
        self,
        stream_id: int | None = None,
        *,
        open_only: bool = False,
        first_id: int = 0,
        limit: int | None = None,
    ) -> list[Gap]:
        conditions, values = ["first_id >= ?"], [first_id]
        if stream_id is not None:
            conditions.append("stream_id = ?")
            values.append(stream_id)
        if open_only:
            conditions.append("unfillable = ''")
        with self._file.reading() as connection:
            rows = connection.execute(
                f"SELECT * FROM gaps WHERE {' AND '.join(conditions)} ORDER BY stream_id, first_id LIMIT ?",
                [*values, row_limit(limit)],
            )
            return list(map(Gap._make, rows))

    def open_gaps(self) -> list[OpenGaps]:
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT stream_id, reason, count(*), sum(last_id - first_id + 1) FROM gaps WHERE unfillable = '' "
                "GROUP BY stream_id, reason ORDER BY stream_id, reason"
            )
            return list(map(OpenGaps._make, rows))

    def extremes(self, stream_id: int) -> tuple[float, float] | None:
        with self._file.reading() as connection:
            return _extremes(connection, stream_id)

    def write_enigma(self, levels: Sequence[EnigmaLevel]) -> None:
        for level in levels:
            # SQLite takes NaN for no value, which a level may have.
            if level.level is not None and not math.isfinite(level.level):
                raise ValueError(f"The history takes no such level ({level}): it must be finite, or None")
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO enigma VALUES (?, ?, ?, ?, ?, ?)", levels)

    def enigma(self, stream_id: int) -> EnigmaLevel | None:
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT * FROM enigma WHERE stream_id = ? ORDER BY ts_event DESC LIMIT 1", (stream_id,)
            ).fetchone()
        return None if row is None else EnigmaLevel._make(row)

    def jobs(self) -> list[BackfillJob]:
        with self._file.reading() as connection:
            rows = connection.execute("SELECT * FROM jobs ORDER BY stream_id, resolution, start")
            return [BackfillJob(stream, _NAMES[minutes], *rest) for stream, minutes, *rest in rows]

    def write_job(self, job: BackfillJob) -> None:
        length_of(job.resolution)
        values = (job.stream_id, _MINUTES[job.resolution], job.start, job.end, job.done_to, job.error)
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)", values)

    def retain(self, now_ns: int) -> dict[str, int]:
        """Ages count from `now_ns` or from the newest tick or bar, whichever is earlier: a clock that runs ahead
        deletes nothing, and neither does opening a folder that was left for long. 1m bars go by whole UTC days.
        """
        with self._file.reading() as connection:
            now = min(now_ns, _newest(connection))
        before = {what: too_old_before(self._ages, what, now) for what in ("ticks", *_MINUTES, "enigma")}
        self._keep_coarser(before["1m"])
        return {
            "ticks": self._delete("ticks", "", "ts_event", before["ticks"]),
            **{
                name: self._delete("bars", f"resolution = {minutes} AND", "open_time", before[name])
                for name, minutes in _MINUTES.items()
            },
            "enigma": self._delete("enigma", "", "ts_event", before["enigma"]),
        }

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._file.writing() as connection:
            if self._file.changed_by_others:
                self._newest.clear()
                self._extremes.clear()
                self._due = True
            yield connection

    def _write_bars(
        self, connection: sqlite3.Connection, resolution: str, bars: Sequence[tuple[int, Bar]]
    ) -> tuple[int, list[_Span]]:
        """Within a transaction: store the bars that are better than what is there. Returns how many were, and which
        coarser bars follow from them."""
        minutes = _MINUTES[resolution]
        rows = []
        touched: dict[int, set[int]] = {}
        for stream_id, bar in bars:
            check_opening(resolution, bar)
            if bar.trade_count > 0:  # the exchange tells of intervals without trades too: they have no bar
                rows.append((minutes, stream_id, *bar))
                touched.setdefault(stream_id, set()).add(bar.open_time)
        newest = {stream_id: self._newest_minute(connection, stream_id) for stream_id in touched}
        changed = connection.executemany(_INSERT_BAR, rows).rowcount if rows else 0
        coarser: list[_Span] = []
        if changed:
            self._widen(connection, ((row[1], row[4], row[5]) for row in rows))
            if resolution == "1m":
                for stream_id, opened in touched.items():
                    coarser += self._following(stream_id, opened, newest[stream_id])
        return changed, coarser

    def _following(self, stream_id: int, touched: set[int], before: int | None) -> Iterator[_Span]:
        """The coarser bars of 1m bars that may have changed; `before` was the newest minute."""
        intervals = coarser_intervals(touched, before)
        if intervals:
            self._newest[stream_id] = max(touched if before is None else {before, *touched})
        for resolution, starts in intervals.items():
            for start, end in _joined(sorted(starts), RESOLUTIONS[resolution]):
                yield _Span(resolution, stream_id, start, end)

    def _fold_some(self, connection: sqlite3.Connection, spans: Iterable[_Span]) -> None:
        """Within a transaction: store coarser bars, and those that are due, as many as FOLD_MINUTES allow."""
        left = FOLD_MINUTES
        for span in spans:
            left -= span.minutes
            if left >= 0:
                _store_folded(connection, span)
            else:
                length = RESOLUTIONS[span.resolution]
                keys = (
                    (_MINUTES[span.resolution], span.stream_id, at)
                    for at in range(span.start, span.end, length)
                )
                connection.executemany("INSERT OR IGNORE INTO due VALUES (?, ?, ?)", keys)
                self._due = True
        while self._due and left > 0:
            row = connection.execute("SELECT resolution, stream_id, open_time FROM due LIMIT 1").fetchone()
            if row is None:
                self._due = False
                return
            span = _Span(_NAMES[row[0]], row[1], row[2], row[2] + row[0] * MINUTE_NS)
            left -= span.minutes
            _store_folded(connection, span)
            connection.execute(
                "DELETE FROM due WHERE resolution = ? AND stream_id = ? AND open_time = ?", row
            )

    def _keep_coarser(self, cutoff: int) -> None:
        """Store what is due, and the bars in progress of the symbols whose last minute is about to be deleted."""
        self._due = True
        while self._due:
            with self._writing() as connection:
                self._fold_some(connection, ())
        with self._file.reading() as connection:
            streams = _streams(connection, "bars", "resolution = 1 AND")
        for stream_id in streams:
            with self._writing() as connection:
                newest = self._newest_minute(connection, stream_id)
                if newest is not None and newest < cutoff:
                    for resolution, length in _COARSER:
                        start = newest - newest % length
                        _store_folded(connection, _Span(resolution, stream_id, start, start + length))

    def _newest_minute(self, connection: sqlite3.Connection, stream_id: int) -> int | None:
        newest = self._newest.get(stream_id)
        if newest is None:
            (newest,) = connection.execute(_NEWEST_MINUTE, (stream_id,)).fetchone()
            if newest is not None:
                self._newest[stream_id] = newest
        return newest

    def _widen(self, connection: sqlite3.Connection, prices: Iterable[tuple[int, float, float]]) -> None:
        """Within a transaction: take over prices (stream id, high, low) into the extremes."""
        known, beyond = self._extremes, {}
        for stream_id, high, low in prices:
            extremes = known.get(stream_id)
            if extremes is None or high > extremes[0] or low < extremes[1]:
                if extremes is None:
                    extremes = _extremes(connection, stream_id) or (high, low)
                beyond[stream_id] = known[stream_id] = max(extremes[0], high), min(extremes[1], low)
        if beyond:
            rows = [(stream_id, high, low) for stream_id, (high, low) in beyond.items()]
            connection.executemany("INSERT OR REPLACE INTO extremes VALUES (?, ?, ?)", rows)

    def _delete(self, table: str, where: str, column: str, cutoff: int) -> int:
        """Delete rows older than `cutoff`, some thousand a transaction, with as long a pause after each."""
        deleted = 0
        with self._file.reading() as connection:
            streams = _streams(connection, table, where)
        for stream_id in streams:
            older = f"FROM {table} WHERE {where} stream_id = ? AND {column} < ?"
            count = STEP_OF_RETENTION
            while count >= STEP_OF_RETENTION:
                began = time.monotonic()
                with self._writing() as connection:
                    rest = connection.execute(
                        f"SELECT {column} {older} ORDER BY {column} LIMIT 1 OFFSET {STEP_OF_RETENTION}",
                        (stream_id, cutoff),
                    ).fetchone()
                    count = connection.execute(
                        f"DELETE {older}", (stream_id, cutoff if rest is None else rest[0] + 1)
                    ).rowcount
                    self._newest.pop(stream_id, None)
                deleted += count
                if count:
                    time.sleep(time.monotonic() - began)
        return deleted


def open_sqlite_history(config: Config, *, write: bool) -> SqliteHistory:
    """The history of the configured exchange, which must be decided (`Config.with_exchange`).

    With `write` it is made where there is none; without, a DataFolderError says that there is none.
    """
    if config.exchange.name == "auto":
        raise ConfigError("exchange.name is auto: a history is that of one exchange, name binance or sim")
    folder = config.data.of(config.exchange.name)
    path = folder / HISTORY_FILE
    if write:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFolderError(
                f"The data folder {folder} cannot be made ({error.strerror}): name another with DATA_DIR"
            ) from error
    elif not path.exists():
        raise DataFolderError(f"There is no history at {path} yet: `tradeback recorder` makes it")
    return SqliteHistory(path, config.history, write=write)


class _Span(NamedTuple):
    """Bars of a resolution that open from `start` to before `end`."""

    resolution: str
    stream_id: int
    start: int
    end: int

    @property
    def minutes(self) -> int:
        return (self.end - self.start) // MINUTE_NS


def _folded(connection: sqlite3.Connection, span: _Span) -> list[Bar]:
    rows = connection.execute(f"{_BARS} ORDER BY open_time", (1, span.stream_id, span.start, span.end))
    return fold(map(Bar._make, rows), RESOLUTIONS[span.resolution])


def _store_folded(connection: sqlite3.Connection, span: _Span) -> None:
    rows = [(_MINUTES[span.resolution], span.stream_id, *bar) for bar in _folded(connection, span)]
    connection.executemany(_INSERT_BAR, rows)


def _folded_by_readers(connection: sqlite3.Connection, stream_id: int, resolution: str) -> Iterator[int]:
    """When the coarser bars open that may not be stored as they are: the one in progress, and those that are due."""
    (newest,) = connection.execute(_NEWEST_MINUTE, (stream_id,)).fetchone()
    if newest is not None:
        yield newest - newest % RESOLUTIONS[resolution]
    due = "SELECT open_time FROM due WHERE resolution = ? AND stream_id = ?"
    for (open_time,) in connection.execute(due, (_MINUTES[resolution], stream_id)).fetchall():
        yield open_time


def _extremes(connection: sqlite3.Connection, stream_id: int) -> tuple[float, float] | None:
    row: tuple[float, float] | None = connection.execute(
        "SELECT high, low FROM extremes WHERE stream_id = ?", (stream_id,)
    ).fetchone()
    return row


def _streams(connection: sqlite3.Connection, table: str, where: str) -> list[int]:
    """The stream ids in a table, each found by one step in its key."""
    streams: list[int] = []
    after = FIRST
    while True:
        (after,) = connection.execute(
            f"SELECT min(stream_id) FROM {table} WHERE {where} stream_id > ?", (after,)
        ).fetchone()
        if after is None:
            return streams
        streams.append(after)


def _newest(connection: sqlite3.Connection) -> int:
    """The time of the newest tick or bar of all."""
    questions = [("ticks", "", "ts_event"), ("enigma", "", "ts_event")]
    questions += [("bars", f"resolution = {minutes} AND", "open_time") for minutes in _MINUTES.values()]
    newest = FIRST
    for table, where, column in questions:
        for stream_id in _streams(connection, table, where):
            (time_ns,) = connection.execute(
                f"SELECT max({column}) FROM {table} WHERE {where} stream_id = ?", (stream_id,)
            ).fetchone()
            newest = max(newest, time_ns)
    return newest


def _joined(starts: Iterable[int], length: int) -> Iterator[tuple[int, int]]:
    """Rising intervals of `length`, those that touch joined."""
    first = end = None
    for start in starts:
        if start != end:
            if first is not None and end is not None:
                yield first, end
            first = start
        end = start + length
    if first is not None and end is not None:
        yield first, end


def _integer(time_ns: int) -> int:
    """The nearest time that SQLite can hold."""
    return min(max(time_ns, FIRST), LAST)
