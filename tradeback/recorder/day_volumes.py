"""DayVolumes: makes the volume of the UTC day in the server's table what the exchange traded on that day.

The table counts what arrives. What was traded on the day before a symbol began, while the server was away, or in any
other gap, it does not know. So each symbol is looked into on every connection to the server, and whenever it begins
or has a gap:

- A copy of its row, in which no range is open, says how much the table had counted (`cum_units`) when the trade
  `last_id` was the newest. What has a lower id counts no more.
- The exchange's klines of whole hours and minutes tell what was traded on the day before some minute, which ended some
  seconds before that trade; what was traded from that minute on up to `last_id` is stored here, and is summed by
  ids.

Both together are the volume at the moment of the copy, to the last digit. The server adds what it counted since. So
nothing counts twice, and a message that comes late, twice or after a restart does no harm. Where the stored trades have
a hole, as long as a gap is being fetched, this waits; a minute later the hole is behind and in the klines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog

from tradeback._fast.record import FLAGS
from tradeback._fast.stats import Stats
from tradeback._fast.tablefile import TableRow
from tradeback.control import ControlClient
from tradeback.errors import ControlError, ControlRefusedError, ExchangeError
from tradeback.exchange.rest import ExchangeRest, RefusedError
from tradeback.model import DAY_NS, MINUTE_NS, Symbol, Tick
from tradeback.recorder.table_rows import TableRows
from tradeback.store.base import History

log = structlog.get_logger(__name__)

HOUR_NS = 60 * MINUTE_NS
MS_NS = 1_000_000
SETTLED_NS = 5 * 10**9  # after the end of a minute its kline is final
GAPS_LOOKED_AT = 8  # of a symbol; more than one is open seldom and not for long
FLAG_SPARSE = FLAGS["sparse"]


@dataclass(frozen=True, slots=True)
class DayVolumePolicy:
    """Times in seconds. Rows are looked at every `look_every`. A symbol that begins or has a gap is left alone for
    `settle`: a trade just below its first id may still count. One whose volume cannot be told yet waits for
    `first_wait`, doubled up to `longest_wait`; while the exchange cannot be asked, all wait for `error_wait`. `reserve`
    is the share of the weight budget that is left to repairs: less than a backfill leaves, which is in no hurry.
    """

    look_every: float = 1.0
    settle: float = 0.5
    first_wait: float = 1.0
    longest_wait: float = 300.0
    error_wait: float = 15.0
    reserve: float = 0.1


@dataclass(slots=True)
class _Waiting:
    not_before: float = 0.0  # monotonic seconds
    tries: int = 0


class DayVolumes:
    """A service of one loop: `run`. `symbols` gives those of the catalog; history and table are read in threads."""

    def __init__(
        self,
        folder: Path,
        history: History,
        rest: ExchangeRest,
        symbols: Callable[[], Iterable[Symbol]],
        server: ControlClient,
        stats: Stats,
        policy: DayVolumePolicy | None = None,
    ) -> None:
        self.policy = policy or DayVolumePolicy()
        self._rows = TableRows(folder)
        self._history = history
        self._rest = rest
        self._symbols = symbols
        self._server = server
        self._stats = stats
        self._connection = 0
        self._right: set[int] = set()  # stream ids for which there is nothing to tell
        self._waiting: dict[int, _Waiting] = {}
        self._day = 0  # the newest on which anything was traded
        self._error = ""
        self._woken = asyncio.Event()

    def touched(self, stream_ids: Iterable[int]) -> None:
        """These symbols begin, or have gaps."""
        due = time.monotonic() + self.policy.settle
        for stream_id in stream_ids:
            self._right.discard(stream_id)
            self._waiting[stream_id] = _Waiting(due)

    def state(self) -> dict[str, Any]:
        """For the status: how many symbols are right, how many wait, and what went wrong last."""
        return {"right": len(self._right), "waiting": len(self._waiting), "error": self._error}

    async def run(self) -> None:
        """Look and tell, for ever."""
        try:
            while True:
                try:
                    await self._turn()
                except ControlError as error:
                    self._error = str(error)  # that there is no server now, the watch tells in the log
                except ExchangeError as error:
                    if str(error) != self._error:
                        log.warning("volumes of the day cannot be asked for now", reason=str(error))
                    self._error = str(error)
                    await asyncio.sleep(self.policy.error_wait)
                await asyncio.sleep(self.policy.look_every)
        finally:
            self._rows.close()

    async def _turn(self) -> None:
        """Each symbol that is due, once."""
        await self._server.connect()
        if self._connection != self._server.connects:
            # A server that was started anew may have made rows anew.
            self._connection = self._server.connects
            self._right.clear()
            self._waiting.clear()
        for symbol in await asyncio.to_thread(self._due):
            await self._room()
            try:
                told = await self._tell(symbol)
            except (RefusedError, ControlRefusedError) as error:
                log.warning(
                    "a symbol's volume of the day is not known", symbol=symbol.name, reason=str(error)
                )
                self._error = str(error)
                told = False
            self._settled(symbol.stream_id, told)

    def _due(self) -> list[Symbol]:
        """Symbols that are carried, were traded on the newest day, and may not have their volume of it."""
        if not self._rows.open():
            return []
        now = time.monotonic()
        found = []
        for symbol in self._symbols():
            waiting = self._waiting.get(symbol.stream_id)
            if symbol.stream_id in self._right or (waiting is not None and now < waiting.not_before):
                continue
            row = self._rows.read(symbol.stream_id)
            if row is not None and not row.dropped:
                self._day = max(self._day, row.day)
                found.append((row.day, symbol))
        return [symbol for day, symbol in found if day == self._day]

    def _settled(self, stream_id: int, told: bool) -> None:
        policy = self.policy
        if told:
            self._right.add(stream_id)
            self._waiting.pop(stream_id, None)
            return
        waiting = self._waiting.setdefault(stream_id, _Waiting())
        wait = min(policy.first_wait * 2.0 ** min(waiting.tries, 30), policy.longest_wait)
        waiting.tries += 1
        waiting.not_before = time.monotonic() + wait

    async def _room(self) -> None:
        """Wait until the budget has weight for one symbol beside what is left to others."""
        budget = self._rest.budget
        reserve = budget.limit * budget.share * self.policy.reserve
        while budget.left(now := self._rest.clock()) < reserve:
            await asyncio.sleep(60.0 - now % 60.0 + 0.05)

    async def _tell(self, symbol: Symbol) -> bool:
        """Whether the server knows the volume now. False: it cannot be told yet."""
        connection = self._server.connects
        copied = await asyncio.to_thread(self._copy, symbol.stream_id)
        if copied is None:
            return False
        row, start, ticks = copied
        day_ns = row.day * DAY_NS
        volume = await self._before(symbol.name, day_ns, start)
        first = await self._rest.agg_trades(symbol.name, start_ms=start // MS_NS, limit=1)
        stored = _sum(ticks, first[0].first_id, row.quantity_precision) if first else None
        if stored is None:
            return False
        units = int((volume.scaleb(row.quantity_precision)).to_integral_value()) + stored
        answer = await self._server.ask(
            {
                "type": "seed",
                "volumes": [
                    {
                        "symbol": symbol.name,
                        "day": row.day,
                        "units": units,
                        "cum_units": row.cum_units,
                        "quantity_precision": row.quantity_precision,
                    }
                ],
            }
        )
        if answer.get("taken") != 1 or self._server.connects != connection:
            return False
        self._error = ""
        self._stats.increase("day_volumes")
        if units != row.day_units:
            self._stats.increase("day_volumes_changed")
            log.info(
                "volume of the day set",
                symbol=symbol.name,
                counted=row.day_units / 10**row.quantity_precision,
                volume=units / 10**row.quantity_precision,
            )
        return True

    def _copy(self, stream_id: int) -> tuple[TableRow, int, list[Tick]] | None:
        """The row, the minute (unix ns) up to which klines count, and the ticks from there on up to the newest
        trade. None where something below that trade may still count, or is not stored yet."""
        row = self._rows.read(stream_id) if self._rows.open() else None
        if row is None or row.last_id is None or row.dropped or row.open_ranges:
            return None
        last_id = row.last_id
        settled = row.ts_event - SETTLED_NS
        start = max(settled - settled % MINUTE_NS, row.day * DAY_NS)
        ticks = [
            tick
            for tick in self._history.ticks(stream_id, start, row.ts_event + 1)
            if tick.trade_id <= last_id
        ]
        ticks.sort(key=lambda tick: tick.trade_id)
        if not ticks or ticks[-1].trade_id != last_id:
            return None
        # What is plain without the exchange costs no weight: a hole, or what lies before the first is being fetched.
        first = ticks[0].trade_id - ticks[0].trade_count + 1
        fetched = self._history.gaps(stream_id, open_only=True, limit=GAPS_LOOKED_AT)
        if any(gap.last_id + 1 == first for gap in fetched):
            return None
        return (row, start, ticks) if _sum(ticks, first, row.quantity_precision) is not None else None

    async def _before(self, symbol: str, day_ns: int, start: int) -> Decimal:
        """What was traded from the beginning of the day to before `start`."""
        hour = start - start % HOUR_NS
        volume = Decimal(0)
        for interval, first, end in (("1h", day_ns, hour), ("1m", hour, start)):
            if first < end:
                rows = await self._rest.klines(
                    symbol, interval, start_ms=first // MS_NS, end_ms=end // MS_NS - 1
                )
                volume += sum((row.volume for row in rows), Decimal(0))
        return volume


def _sum(ticks: Sequence[Tick], first_id: int, quantity_precision: int) -> int | None:
    """Units of the trades from `first_id` up to the last of the ticks, which rise by id; None where the ticks have not
    all of them."""
    expected = first_id
    units = 0
    for tick in ticks:
        if tick.flags & FLAG_SPARSE or tick.trade_id - tick.trade_count + 1 != expected:
            return None
        expected = tick.trade_id + 1
        units += round(tick.volume * 10**quantity_precision)
    return units
