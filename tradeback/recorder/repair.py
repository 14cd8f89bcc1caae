"""Repair: fills gaps from REST, into the journal of repairs.

It knows nothing but what the history says is missing, so a kill at any moment costs nothing: what it appends is
stored by the history sink like any trade, which takes it out of the gaps. Until the sink has passed what was appended
for a symbol, that symbol's gaps are not read again, so nothing is appended twice.

A step is one page of one symbol. Several symbols take their steps at the same time; one whose answers are wrong waits
ever longer, and the others go on.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from tradeback._fast.journal import JournalWriter
from tradeback._fast.record import REASONS, UNFILLABLE
from tradeback.errors import ExchangeError, TradebackError
from tradeback.exchange.binance import REST_ROWS_MAX
from tradeback.exchange.clock import ExchangeClock
from tradeback.exchange.rest import ExchangeRest, RefusedError
from tradeback.exchange.rows import AggTradeRow
from tradeback.model import MINUTE_NS, Gap, Symbol, Tick
from tradeback.recorder.aggregates import Place, find, place_after
from tradeback.recorder.walk import (
    TIME_SLACK_NS,
    Bounds,
    Fill,
    Range,
    as_rows,
    check,
    common,
    count,
    fill,
    fill_partly,
    walk,
)
from tradeback.store.base import History, OpenGaps

log = structlog.get_logger(__name__)

REPAIRS = "repairs"  # the name of the journal among the places of the history
NO_SUCH_PATH = (401, 404)  # how a host answers that has no historicalTrades, or wants a key for it
BEGIN_PATIENCE_NS = 10 * 10**9  # for the first trade of a symbol to be stored
# After which ids beside a gap that are neither stored nor missing are taken for lost.
PENDING_NS = 600 * 10**9
GAPS_A_STEP = 4 * REST_ROWS_MAX  # of a symbol, however many are open
LOOK_LONG = 0.02  # seconds; a look at the open gaps that takes longer
LOOK_SHARE = 5  # is made again after so many times as long
RECV_OFFSET_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RepairPolicy:
    """Times in seconds. Ids that an answer passes over are given up when it is the same `confirm_after` later.

    After a failure a symbol waits for `first_backoff`, doubled up to `longest_backoff`, with jitter. `at_once`
    symbols are asked for at the same time. While something appended is not stored yet, the history is looked at
    every `poll`; otherwise every `idle_poll`, or when `wake` is called.
    """

    confirm_after: float = 3.0
    first_backoff: float = 1.0
    longest_backoff: float = 60.0
    at_once: int = 4
    poll: float = 0.05
    idle_poll: float = 5.0


@dataclass(slots=True)
class _Stream:
    """What is known of one symbol's repairs besides the history: it may be forgotten at any time."""

    busy: bool = False
    not_before: float = 0.0  # monotonic seconds
    failures: int = 0  # in a row
    failure: str = ""
    passed_at: int = 0  # the history's place in the repairs from which on its gaps may be read again
    served: int = 0  # when it had its last turn
    after: int = -1  # the gap to begin behind, for one that fails must not keep the others from their turn
    place: Place | None = None
    near: int = 0  # when what was looked at last was traded, unix ns by the exchange's clock
    absent: dict[Range, float] = field(default_factory=dict)  # when the exchange first passed over these ids


class Repair:
    """`symbols` gives the symbol of a stream id, None where it is not known. `age` is RECORDER_BACKFILL_AGE.

    Owned by one asyncio loop, as `journal` is; the history is read in threads. What is too old is so by the
    exchange's clock.
    """

    def __init__(
        self,
        history: History,
        rest: ExchangeRest,
        journal: JournalWriter,
        symbols: Callable[[int], Symbol | None],
        age: float,
        policy: RepairPolicy | None = None,
    ) -> None:
        self.policy = policy or RepairPolicy()
        self.repaired = self.given_up = self.failures = self.steps = 0
        self.last_failure = ""
        self.by_aggregates = False
        self.open_gaps = self.open_ids = 0
        # Called in the loop before it is journaled, so at least once: a symbol (its stream id) begins; trades of a
        # symbol between two times, unix ns, cannot be had.
        self.on_begin: Callable[[int], None] = lambda stream_id: None
        self.on_given_up: Callable[[int, int, int], None] = lambda stream_id, start, end: None
        self._history = history
        self._rest = rest
        self._journal = journal
        self._symbols = symbols
        self._age_ns = int(age * 1e9)
        self._clock = ExchangeClock(rest)
        # What was appended before a restart may not be stored yet. The first record has the number 1.
        self._begun_at = journal.next_seq if journal.next_seq > 1 else 0
        self._streams: dict[int, _Stream] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._turns = 0
        self._found: list[OpenGaps] = []
        self._look_at = 0.0  # monotonic seconds
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There are new gaps. From another thread: `loop.call_soon_threadsafe(repair.wake)`."""
        self._woken.set()

    @property
    def idle(self) -> bool:
        """Whether no gap was open when it last looked, and nothing is under way."""
        return self.open_gaps == 0 and not self._running

    def state(self) -> dict[str, Any]:
        """For the status: gaps and ids that are open, trades repaired, ids given up, failures, and why which symbol
        waits."""
        now = time.monotonic()
        return {
            "gaps": self.open_gaps,
            "missing": self.open_ids,
            "repaired": self.repaired,
            "given_up": self.given_up,
            "failures": self.failures,
            "last_failure": self.last_failure,
            "by_aggregates": self.by_aggregates,
            "waiting": {
                self._name(stream_id): {
                    "failures": stream.failures,
                    "failure": stream.failure,
                    "seconds": round(max(stream.not_before - now, 0.0), 1),
                }
                for stream_id, stream in self._streams.items()
                if stream.failures
            },
        }

    def counts(self) -> dict[str, int]:
        """For the counters, by their names."""
        return {
            "gap_trades_open": self.open_ids,
            "repair_steps": self.steps,
            "repair_trades": self.repaired,
            "repair_trades_given_up": self.given_up,
            "repair_failures": self.failures,
        }

    async def run(self) -> None:
        """Repair until cancelled."""
        try:
            while True:
                self._woken.clear()
                wait = await self._turn()
                try:
                    async with asyncio.timeout(wait):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _turn(self) -> float:
        """Begin the steps that are due. Returns the seconds until there may be others."""
        passed = (await asyncio.to_thread(self._history.places)).get(REPAIRS, 0)
        found = await self._look()
        self.open_gaps = sum(each.gaps for each in found)
        self.open_ids = sum(each.ids for each in found if each.reason != REASONS["begin"])
        gaps = {each.stream_id for each in found}
        self._forget_whole(gaps)
        wait = self.policy.idle_poll
        now = time.monotonic()
        for stream_id in sorted(gaps, key=lambda each: self._stream(each).served):
            stream = self._stream(stream_id)
            if stream.busy:
                continue
            if max(stream.passed_at, self._begun_at) > passed:
                wait = min(wait, self.policy.poll)
            elif stream.not_before > now:
                wait = min(wait, stream.not_before - now)
            elif len(self._running) < self.policy.at_once:
                self._begin(stream_id, stream)
        return wait

    async def _look(self) -> list[OpenGaps]:
        """What is open; where that takes long, since very much is, as it was a little while ago."""
        begun = time.monotonic()
        if begun >= self._look_at:
            self._found = await asyncio.to_thread(self._history.open_gaps)
            took = time.monotonic() - begun
            self._look_at = begun + took * LOOK_SHARE if took > LOOK_LONG else 0.0
        return self._found

    def _stream(self, stream_id: int) -> _Stream:
        return self._streams.setdefault(stream_id, _Stream())

    def _forget_whole(self, gaps: set[int]) -> None:
        """Symbols without a gap need not be remembered."""
        for stream_id in [each for each in self._streams if each not in gaps]:
            if not self._streams[stream_id].busy:
                del self._streams[stream_id]

    def _name(self, stream_id: int) -> str:
        symbol = self._symbols(stream_id)
        return symbol.name if symbol is not None else str(stream_id)

    def _begin(self, stream_id: int, stream: _Stream) -> None:
        self._turns += 1
        stream.busy, stream.served = True, self._turns
        task = asyncio.create_task(self._guarded(stream_id, stream), name=f"repair {stream_id}")
        self._running.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            stream.busy = False
            self._woken.set()

        task.add_done_callback(ended)

    def _gaps(self, stream_id: int, stream: _Stream) -> list[Gap]:
        """Open gaps of a symbol from the one on whose turn it is, no more than a step may need."""
        history = self._history
        behind = history.gaps(stream_id, open_only=True, first_id=stream.after + 1, limit=GAPS_A_STEP)
        return behind or history.gaps(stream_id, open_only=True, limit=GAPS_A_STEP)

    async def _guarded(self, stream_id: int, stream: _Stream) -> None:
        """One step; what it raises is reported, and the symbol waits."""
        gaps = await asyncio.to_thread(self._gaps, stream_id, stream)
        if not gaps:
            stream.not_before = time.monotonic() + self.policy.poll
            return
        gap = gaps[0]
        first_seq = self._journal.next_seq
        try:
            symbol = self._symbols(stream_id)
            if symbol is None:
                raise ExchangeError(
                    f"stream id {stream_id} has gaps and no symbol: restore the catalog, or run "
                    "`tradeback symbols sync`"
                )
            self.steps += 1
            await self._step(symbol, stream, gap, gaps)
        except TradebackError as error:
            self._failed(stream_id, stream, gap, str(error))
        except Exception as error:  # a fault of ours must not end the repairs, nor go unnoticed
            log.exception("a repair raised", symbol=self._name(stream_id), first_id=gap.first_id)
            self._failed(stream_id, stream, gap, repr(error))
        else:
            stream.failures, stream.failure = 0, ""
        finally:
            if self._journal.next_seq != first_seq:
                # Others may have appended meanwhile: waiting for those too does no harm.
                stream.passed_at = self._journal.next_seq

    def _failed(self, stream_id: int, stream: _Stream, gap: Gap, reason: str) -> None:
        stream.failures += 1
        stream.failure = self.last_failure = reason
        stream.after = gap.first_id
        self.failures += 1
        ceiling = min(
            self.policy.first_backoff * 2.0 ** min(stream.failures - 1, 30), self.policy.longest_backoff
        )
        wait = random.uniform(ceiling / 2.0, ceiling)
        stream.not_before = time.monotonic() + wait
        log.warning(
            "a gap could not be filled, it is tried again",
            symbol=self._name(stream_id),
            first_id=gap.first_id,
            last_id=gap.last_id,
            wait=round(wait, 1),
            reason=reason,
        )

    # One step of one symbol.

    async def _step(self, symbol: Symbol, stream: _Stream, gap: Gap, gaps: list[Gap]) -> None:
        """Ask for the trades from the beginning of `gap` on, and append what they say of `gaps`, the symbol's that are
        open from there on."""
        await self._clock.ask()
        beside = self._history.beside
        before, after = await asyncio.to_thread(
            beside, gap.stream_id, gap.first_id, gap.last_id, (gap.ts_event, stream.near)
        )
        if before is not None or after is not None:
            stream.near = max(tick.ts_event for tick in (before, after) if tick is not None)
        first = await self._wanted_from(symbol, stream, gap, before, after)
        if first > gap.last_id:
            return
        missing = [(each.first_id, each.last_id) for each in gaps]
        rows = await self._rows(symbol, stream, first, missing, _guess_ms(gap, before, after))
        if len(gaps) == GAPS_A_STEP:
            # What lies behind the last of them is not known here, so a row that reaches there could not be judged.
            rows = [row for row in rows if row.last_id <= missing[-1][1]] or rows[:1]
        answer = walk(rows, missing, first)
        if answer.through > gap.last_id:
            _, after = await asyncio.to_thread(
                beside, gap.stream_id, first, answer.through, (rows[-1].ts_event,)
            )
        bounds = Bounds.between(before, after, self._clock.now_ns())
        for row in [*answer.whole, *(row for row, _ in answer.partial)]:
            check(row, symbol.info, bounds)
        fills = [fill(row) for row in answer.whole]
        given_up: list[tuple[Range, str]] = []
        waits = False
        for row, hit in answer.partial:
            filled, pending = await self._fill_partly(symbol, row, hit, gap)
            if filled is not None:
                fills.append(filled)
            elif pending:
                waits = True
            else:
                given_up += [(each, "quantity") for each in hit]
        confirmed, doubtful = self._absent(stream, answer.absent)
        given_up += [(each, "not_there") for each in confirmed]
        if given_up:
            self._tell_given_up(gap, before, after)
        self._append(symbol, sorted(fills, key=lambda each: each.trade_id), sorted(given_up))
        stream.after = -1
        if doubtful or waits:
            stream.not_before = time.monotonic() + self.policy.confirm_after
        if answer.through < first:
            raise ExchangeError(
                f"{symbol.name}: the exchange does not have the trade {first} yet, nor a later one"
            )

    async def _rows(
        self, symbol: Symbol, stream: _Stream, first: int, missing: list[Range], guess_ms: int
    ) -> list[AggTradeRow]:
        """Trades from `first` on, as many as one request gives; none are asked for behind the missing ones."""
        if not self.by_aggregates:
            within = common(missing, first, first + REST_ROWS_MAX - 1)
            limit = within[-1][1] - first + 1
            try:
                return as_rows(await self._rest.historical_trades(symbol.name, from_id=first, limit=limit))
            except RefusedError as error:
                if error.status not in NO_SUCH_PATH:
                    raise
                if not self.by_aggregates:
                    log.info(
                        "the exchange's host has no historicalTrades: gaps are filled from aggTrades",
                        host=self._rest.base_url,
                        reason=str(error),
                    )
                self.by_aggregates = True
        rows = await find(self._rest, symbol.name, first, guess_ms, stream.place)
        stream.place = place_after(rows) if rows else None
        return rows

    async def _wanted_from(
        self, symbol: Symbol, stream: _Stream, gap: Gap, before: Tick | None, after: Tick | None
    ) -> int:
        """The first id of a gap to ask for: those below it are given up, as too old or as before the minute in
        which the symbol begins."""
        oldest = self._clock.now_ns() - self._age_ns
        why = "too_old"
        if gap.reason == REASONS["begin"]:
            why = "begin"
            self.on_begin(gap.stream_id)
            if after is None and self._clock.now_ns() - gap.ts_event < BEGIN_PATIENCE_NS:
                raise ExchangeError(f"{symbol.name}: its first trade is not stored yet")
            begins = min(gap.ts_event, after.ts_event) if after is not None else gap.ts_event
            wanted = begins - begins % MINUTE_NS
            none_wanted = not self._age_ns or wanted < oldest
        else:
            wanted = oldest
            # Its neighbour has the exchange's time; its own is our wall clock's, which may have been wrong.
            ended = after.ts_event if after is not None else gap.ts_event
            none_wanted = not self._age_ns or ended < oldest
            # With time passing, trades grow too old while they are fetched: that is no reason to give them up.
            if not none_wanted and before is not None and before.ts_event >= oldest - TIME_SLACK_NS:
                return gap.first_id
        first = gap.last_id + 1
        if not none_wanted:
            rows = await self._rest.agg_trades(symbol.name, start_ms=-(-wanted // 1_000_000), limit=1)
            if rows and rows[0].ts_event < wanted:
                raise ExchangeError(
                    f"{symbol.name}: asked for trades from {wanted} ns on, the exchange answered with the time "
                    f"{rows[0].ts_event}"
                )
            if not rows:
                raise ExchangeError(f"{symbol.name}: the exchange has no trade since {wanted} ns yet")
            first = min(max(rows[0].first_id, gap.first_id), first)
            stream.place = Place(rows[0].agg_id, rows[0].first_id)
        if first > gap.first_id:
            if why != "begin":
                self._tell_given_up(gap, before, after)
            self._append(symbol, [], [((gap.first_id, first - 1), why)])
        return first

    def _tell_given_up(self, gap: Gap, before: Tick | None, after: Tick | None) -> None:
        end = after.ts_event if after is not None else gap.ts_event
        self.on_given_up(gap.stream_id, before.ts_event if before is not None else end, end)

    async def _fill_partly(
        self, symbol: Symbol, row: AggTradeRow, hit: list[Range], gap: Gap
    ) -> tuple[Fill | None, bool]:
        """The record for the missing ids of a row; or None, and whether waiting may help."""
        stored = await asyncio.to_thread(self._stored, gap.stream_id, row)
        filled = fill_partly(row, hit, stored, symbol.info.quantity_precision)
        if filled is not None:
            return filled, False
        known = await asyncio.to_thread(self._history.gaps, gap.stream_id)
        missing = common([(each.first_id, each.last_id) for each in known], row.first_id, row.last_id)
        told = count(missing) + sum(tick.trade_count for tick in stored)
        unknown = told < row.last_id - row.first_id + 1
        return None, unknown and self._clock.now_ns() - gap.ts_event < PENDING_NS

    def _stored(self, stream_id: int, row: AggTradeRow) -> list[Tick]:
        """The stored ticks of a row's ids: they have its time, or nearly."""
        near = self._history.ticks(stream_id, row.ts_event - 10**9, row.ts_event + 10**9)
        return [tick for tick in near if row.first_id <= tick.trade_id <= row.last_id]

    def _absent(self, stream: _Stream, absent: list[Range]) -> tuple[list[Range], list[Range]]:
        """Ids that the exchange passed over: those that it did before, too, and those to ask for again."""
        now = time.monotonic()
        seen = stream.absent
        confirmed = [
            each for each in absent if each in seen and now - seen[each] >= self.policy.confirm_after * 0.9
        ]
        doubtful = [each for each in absent if each not in confirmed]
        stream.absent = {each: seen.get(each, now) for each in doubtful}
        return confirmed, doubtful

    def _append(self, symbol: Symbol, fills: list[Fill], given_up: list[tuple[Range, str]]) -> None:
        """Into the journal of repairs, at one go: no other task of this loop appends in between."""
        now = self._clock.now_ns()
        for each in fills:
            self._journal.append_trade(
                stream_id=symbol.stream_id,
                price=each.price,
                qty=each.quantity,
                trade_id=each.trade_id,
                trade_count=each.trade_count,
                ts_event=each.ts_event,
                recv_offset_us=max(min((now - each.ts_event) // 1_000, RECV_OFFSET_MAX), -RECV_OFFSET_MAX),
                flags=each.flags,
            )
            self.repaired += each.trade_count
        for (first, last), why in given_up:
            self._journal.append_gap(
                stream_id=symbol.stream_id,
                first_id=first,
                last_id=last,
                ts_event=now,
                reason=REASONS["unfillable"],
                flags=UNFILLABLE[why],
            )
            # What lies before a beginning was never asked for.
            if why != "begin":
                self.given_up += last - first + 1
                log.warning(
                    "trades are missing for good",
                    symbol=symbol.name,
                    first_id=first,
                    last_id=last,
                    reason=why,
                )


def _guess_ms(gap: Gap, before: Tick | None, after: Tick | None) -> int:
    """Unix ms at or before the first trade of a gap, as nearly as is known."""
    if before is not None:
        return before.ts_event // 1_000_000
    known = after.ts_event if after is not None else gap.ts_event
    return (known - known % MINUTE_NS) // 1_000_000
