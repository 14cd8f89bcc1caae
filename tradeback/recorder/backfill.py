"""Backfill: bars of the past, from the exchange's klines, page by page.

A job is a row of the history, written again with each page, so that any end at any moment costs one page at most. Bars
are taken once the exchange's own clock says that they are closed. The jobs take turns, a page each, within what the
weight budget leaves; a part of it is left to repairs.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import structlog

from tradeback.config import Config
from tradeback.errors import ExchangeError, TradebackError
from tradeback.exchange.binance import REST_ROWS_MAX, REST_WEIGHTS
from tradeback.exchange.clock import ExchangeClock
from tradeback.exchange.rest import ExchangeRest, RefusedError
from tradeback.exchange.rows import KlineRow
from tradeback.model import RESOLUTIONS, Bar, Symbol
from tradeback.store.base import BackfillJob, History

log = structlog.get_logger(__name__)

DAY_NS = RESOLUTIONS["1d"]
MILLISECOND_NS = 1_000_000
NEW_EVERY_S = 10.0  # how often new symbols are looked for
# The exchange's word that a request can never be answered: no such symbol, no such interval.
FINAL_STATUS = 400


@dataclass(frozen=True, slots=True)
class BackfillPolicy:
    """`at_once` jobs have a page under way at the same time. `reserve` is the share of the weight budget that is
    left to others. Times in seconds: after a failure a job waits for `first_backoff`, doubled up to
    `longest_backoff`, with jitter."""

    at_once: int = 4
    reserve: float = 0.2
    first_backoff: float = 1.0
    longest_backoff: float = 60.0


_Key = tuple[int, str, int]  # of a job: stream id, resolution, start


def _key(job: BackfillJob) -> _Key:
    return job.stream_id, job.resolution, job.start


@dataclass(slots=True)
class _Job:
    """A job and what is known of it besides the history."""

    job: BackfillJob
    busy: bool = False
    failures: int = 0  # in a row
    failure: str = ""
    not_before: float = 0.0  # monotonic seconds
    empty: bool = False  # the last answer had no rows


def plan(
    jobs: Iterable[BackfillJob], stream_id: int, resolution: str, start: int, end: int, *, again: bool = False
) -> BackfillJob:
    """The job for bars that open from `start` to before `end`, given those that there are: what they stored is not
    fetched again, unless `again`, and one under way that has `start` goes on, as far as both reach."""
    same = sorted(
        (job for job in jobs if (job.stream_id, job.resolution) == (stream_id, resolution)),
        key=lambda job: job.start,
    )
    done_to = start
    if not again:
        for job in same:
            if job.start <= start < job.end and not job.done:
                return replace(job, end=max(job.end, end), error="")
            if job.start <= done_to:
                done_to = max(done_to, job.done_to)
    end = max([end, *(job.end for job in same if job.start == start)])
    return BackfillJob(stream_id, resolution, start, end, min(done_to, end))


def bars_of(rows: Sequence[KlineRow], job: BackfillJob, now_ns: int) -> tuple[list[Bar], int]:
    """The closed bars of an answer to a job's next page, and how far it is then; `now_ns` is the exchange's time.

    Raises ExchangeError where a row is not as it was asked for: nothing of the answer is to be believed then.
    """
    length = RESOLUTIONS[job.resolution]
    bars: list[Bar] = []
    for row in rows:
        if row.open_time % length or row.close_time != row.open_time + length - MILLISECOND_NS:
            raise ExchangeError(
                f"a {job.resolution} bar from {row.open_time} ns to {row.close_time} ns is none: the answer is dropped"
            )
        if not job.done_to <= row.open_time < job.end:
            raise ExchangeError(
                f"asked for bars from {job.done_to} to before {job.end} ns, the exchange answered with one of "
                f"{row.open_time}: the answer is dropped"
            )
        if (row.trades == 0) != (row.volume == 0):
            raise ExchangeError(
                f"the bar of {row.open_time} ns has the volume {row.volume} of {row.trades} trades: the answer is "
                "dropped"
            )
        if row.close_time >= now_ns:
            return bars, row.open_time
        if row.trades:
            bars.append(
                Bar(
                    row.open_time,
                    float(row.open),
                    float(row.high),
                    float(row.low),
                    float(row.close),
                    float(row.volume),
                    row.trades,
                )
            )
    if rows:
        return bars, rows[-1].open_time + length
    # Nothing opens there any more: that is so for good where the time has passed.
    return bars, min(job.end, max(now_ns - now_ns % length, job.done_to))


class Backfill:
    """Owned by one asyncio loop; the history is used in threads. `symbols` gives the symbol of a stream id."""

    def __init__(
        self,
        history: History,
        rest: ExchangeRest,
        symbols: Callable[[int], Symbol | None],
        config: Config,
        policy: BackfillPolicy | None = None,
    ) -> None:
        self.policy = policy or BackfillPolicy()
        self.pages = self.bars = self.changed = self.failures = 0
        self.last_failure = ""
        self._history = history
        self._rest = rest
        self._symbols = symbols
        self._config = config
        # Of some thousand symbols there are tens of thousands: what is done once a page looks at few of them.
        self._jobs: dict[int, dict[_Key, _Job]] = {}  # by stream id
        # Those that are not done, in the order of their turns: who never had one first.
        self._fresh: OrderedDict[_Key, _Job] = OrderedDict()
        self._waiting: OrderedDict[_Key, _Job] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._clock = ExchangeClock(rest)
        self._budget_wait = 0.0
        self._look_again = 0.0
        self.on_done: Callable[[int], None] = lambda stream_id: None  # called in the loop when a job is done
        # Bars are written within it; it gets stream ids and opening times.
        self.changing: Callable[[Iterable[tuple[int, int]]], AbstractContextManager[object]] = nullcontext
        for job in history.jobs():
            self._hold(job)

    # Jobs.

    @property
    def jobs(self) -> list[BackfillJob]:
        return [each.job for each in self._each()]

    def add(self, job: BackfillJob) -> None:
        """Store a job and begin with it; one of the same start goes on where the new one says."""
        self._history.write_job(job)
        self._hold(job)
        self._woken.set()

    def _hold(self, job: BackfillJob) -> None:
        held = self._jobs.setdefault(job.stream_id, {}).setdefault(_key(job), _Job(job))
        held.job, held.failures, held.not_before = job, 0, 0.0
        self._put_in_line(held)

    def _put_in_line(self, each: _Job) -> None:
        """Wait for a turn as long as there is something to fetch."""
        key = _key(each.job)
        if each.job.done or each.job.error:
            self._fresh.pop(key, None)
            self._waiting.pop(key, None)
        elif key not in self._waiting:
            self._fresh[key] = each

    def _each(self) -> Iterator[_Job]:
        for of_symbol in self._jobs.values():
            yield from of_symbol.values()

    def _of(self, stream_id: int) -> list[BackfillJob]:
        return [each.job for each in self._jobs.get(stream_id, {}).values()]

    def ask(
        self, stream_ids: Sequence[int], resolutions: Sequence[str], days: int, *, again: bool = False
    ) -> list[BackfillJob]:
        """Jobs for the closed bars of so many days before today (UTC) and of today; those that are done, too."""
        found = []
        for resolution in resolutions:
            start, end = self.span(resolution, days)
            for stream_id in stream_ids:
                job = plan(self._of(stream_id), stream_id, resolution, start, end, again=again)
                self.add(job)
                found.append(job)
        return found

    def span(self, resolution: str, days: int) -> tuple[int, int]:
        """From the beginning of the day so many days ago to the bar in progress, unix ns; as old as 1m bars are
        kept at most."""
        now = self._clock.now_ns()
        keep = getattr(self._config.history, f"keep_{resolution}")
        if keep:
            days = min(days, max(int(keep // 86_400) - 1, 0))
        return now - now % DAY_NS - days * DAY_NS, now - now % RESOLUTIONS[resolution]

    def begin(self, stream_id: int) -> None:
        """A symbol begins, or begins anew: fetch what is not there of its history, and of today in any case. Of one
        that never had a job the newest page comes first, for that is what a chart shows."""
        had = {job.resolution for job in self._of(stream_id)}
        for resolution, length in RESOLUTIONS.items():
            start, end = self.span(resolution, self._config.recorder.history_days)
            newest = start if resolution in had else max(start, end - REST_ROWS_MAX * length)
            for first, last in ((newest, end), (start, newest)):
                known = self._of(stream_id)
                job = plan(known, stream_id, resolution, first, last)
                if not job.done and job not in known:
                    self.add(job)

    def mend(self, stream_id: int, start: int, end: int) -> None:
        """Trades between these times cannot be had: fetch the 1m bars of those minutes."""
        length = RESOLUTIONS["1m"]
        start, end = max(start - start % length, self.span("1m", 3650)[0]), end - end % length + length
        job = plan(self._of(stream_id), stream_id, "1m", start, end, again=True)
        if not job.done:
            self.add(job)

    def progress(self) -> dict[str, Any]:
        """For those who show it: the jobs, and what was done by this process. Times are unix ns."""
        return {
            "jobs": [
                {
                    "symbol": self._name(each.job.stream_id),
                    "resolution": each.job.resolution,
                    "start": each.job.start,
                    "end": each.job.end,
                    "done_to": each.job.done_to,
                    "error": each.job.error,
                    "failure": each.failure,
                }
                for each in self._each()
            ],
            **self.state(),
        }

    def state(self) -> dict[str, Any]:
        """For the status: counts alone."""
        budget = self._rest.budget
        return {
            "pending": self._pending,
            "pages": self.pages,
            "bars": self.bars,
            "changed": self.changed,
            "failures": self.failures,
            "last_failure": self.last_failure,
            "weight": {"used": budget.used, "limit": int(budget.limit * budget.share)},
            "waits": round(max(self._budget_wait - time.monotonic(), 0.0), 1),
        }

    def counts(self) -> dict[str, int]:
        """For the counters, by their names."""
        return {
            "backfill_jobs_pending": self._pending,
            "backfill_pages": self.pages,
            "backfill_bars": self.bars,
            "backfill_bars_changed": self.changed,
            "backfill_failures": self.failures,
        }

    def _name(self, stream_id: int) -> str:
        symbol = self._symbols(stream_id)
        return symbol.name if symbol is not None else str(stream_id)

    @property
    def _pending(self) -> int:
        return len(self._fresh) + len(self._waiting)

    # The work.

    async def run(self, *, only: Sequence[BackfillJob] | None = None) -> None:
        """Work on the jobs: until cancelled, or, of those named by `only`, until each is done or has an error."""
        keys = None if only is None else {_key(job) for job in only}
        try:
            while True:
                self._woken.clear()
                if keys is None:
                    await self._begin_new()
                elif keys.isdisjoint(self._fresh) and keys.isdisjoint(self._waiting):
                    return
                wait = self._turn(keys)
                if keys is None:
                    wait = min(NEW_EVERY_S if wait is None else wait, NEW_EVERY_S)
                try:
                    async with asyncio.timeout(wait):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _begin_new(self) -> None:
        """Begin with symbols of which trades are stored and that never had a job."""
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + NEW_EVERY_S
        new = (await asyncio.to_thread(self._history.covered)).keys() - self._jobs.keys()
        if new:
            await self.read_clock()
        for stream_id in sorted(new):
            if self._symbols(stream_id) is not None:
                self.begin(stream_id)
                await asyncio.sleep(0)  # of many symbols at once, others have their turn in between

    def _turn(self, keys: set[_Key] | None) -> float | None:
        """Begin the pages that are due; the seconds until there may be others, None until something ends."""
        now = time.monotonic()
        begun: list[_Job] = []
        wait: float | None = None
        for key, each in chain(self._fresh.items(), self._waiting.items()):
            if each.busy or (keys is not None and key not in keys):
                continue
            if each.not_before > now:
                wait = min(each.not_before - now, wait or math.inf)
                continue
            if len(self._running) >= self.policy.at_once:
                wait = None
                break
            room = self._wait_for_room()
            if room > 0.0:
                self._budget_wait = now + room
                wait = room
                break
            self._begin_page(each)
            begun.append(each)
        for each in begun:
            key = _key(each.job)
            self._fresh.pop(key, None)
            self._waiting[key] = each
            self._waiting.move_to_end(key)
        return wait

    def _begin_page(self, each: _Job) -> None:
        each.busy = True
        task = asyncio.create_task(self._guarded(each), name=f"backfill {each.job.stream_id}")
        self._running.add(task)
        task.add_done_callback(partial(self._ended, each))

    def _wait_for_room(self) -> float:
        """Seconds until the budget has room for a page beside what is left to others."""
        budget = self._rest.budget
        now = self._rest.clock()
        reserve = int(budget.limit * budget.share * self.policy.reserve)
        under_way = len(self._running) * REST_WEIGHTS["klines"]
        if budget.used and budget.left(now) - under_way < reserve + REST_WEIGHTS["klines"]:
            return 60.0 - now % 60.0 + 0.05
        return 0.0

    def _ended(self, each: _Job, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        each.busy = False
        self._woken.set()

    async def _guarded(self, each: _Job) -> None:
        """One page; what it raises is reported, and the job waits or, where the exchange's word is final, ends."""
        try:
            await self._page(each)
        except RefusedError as error:
            if error.status == FINAL_STATUS:
                await self._store(each, [], replace(each.job, error=str(error)))
            self._failed(each, str(error))
        except TradebackError as error:
            self._failed(each, str(error))
        except Exception as error:  # a fault of ours must not end the backfill, nor go unnoticed
            log.exception("a backfill raised", symbol=self._name(each.job.stream_id))
            self._failed(each, repr(error))
        else:
            each.failures, each.failure = 0, ""

    def _failed(self, each: _Job, reason: str) -> None:
        each.failures += 1
        each.failure = self.last_failure = reason
        self.failures += 1
        longest = self.policy.longest_backoff
        ceiling = min(self.policy.first_backoff * 2.0 ** min(each.failures - 1, 30), longest)
        each.not_before = time.monotonic() + random.uniform(ceiling / 2.0, ceiling)
        log.warning(
            "bars could not be fetched",
            symbol=self._name(each.job.stream_id),
            resolution=each.job.resolution,
            ended=bool(each.job.error),
            reason=reason,
        )

    async def _page(self, each: _Job) -> None:
        job = each.job
        symbol = self._symbols(job.stream_id)
        if symbol is None:
            raise ExchangeError(f"stream id {job.stream_id} has no symbol: run `tradeback symbols sync`")
        now = await self.read_clock()
        rows = await self._rest.klines(
            symbol.name,
            job.resolution,
            start_ms=job.done_to // MILLISECOND_NS,
            end_ms=job.end // MILLISECOND_NS - 1,
            limit=REST_ROWS_MAX,
        )
        bars, done_to = bars_of(rows, job, now)
        self.pages += 1
        if not rows and not each.empty:
            # Nothing opens there, or the answer was cut short: the same answer again decides it.
            each.empty = True
            return
        each.empty = False
        if each.job is not job:
            return  # it was asked for anew meanwhile
        if done_to < job.end and len(rows) < REST_ROWS_MAX and done_to + RESOLUTIONS[job.resolution] > now:
            # The next bar is not closed yet.
            missing = done_to + RESOLUTIONS[job.resolution] - now
            each.not_before = time.monotonic() + missing / 1e9 + 1.0
        await self._store(each, bars, replace(job, done_to=done_to))

    async def _store(self, each: _Job, bars: list[Bar], job: BackfillJob) -> None:
        asked = each.job
        self.changed += await asyncio.to_thread(self._write, bars, job)
        self.bars += len(bars)
        if each.job is asked:
            each.job = job
            self._put_in_line(each)
            if job.done:
                self.on_done(job.stream_id)
        else:
            # It was asked for anew meanwhile, and written over by this.
            await asyncio.to_thread(self._history.write_job, each.job)

    def _write(self, bars: list[Bar], job: BackfillJob) -> int:
        """The bars first: a kill in between has them fetched again, which changes nothing."""
        with self.changing((job.stream_id, bar.open_time) for bar in bars):
            changed = self._history.write_bars(job.stream_id, job.resolution, bars)
        self._history.write_job(job)
        return changed

    async def read_clock(self) -> int:
        """The exchange's time, unix ns: no later than it is. ExchangeError where it is asked for and not told."""
        await self._clock.ask()
        return self._clock.now_ns()
