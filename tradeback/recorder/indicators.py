"""EnigmaSink: the Enigma level of each symbol, moved by every trade of both journals, repairs included.

The highest and the lowest price come from the store, and from the trades behind the store's place in the journals:
together that is the whole history, whichever sink is ahead of the other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog

from tradeback._fast.journal import JournalCursor, JournalTrade, Record
from tradeback._fast.record import FLAGS
from tradeback._fast.stats import Stats
from tradeback.errors import StoreError
from tradeback.model import EnigmaLevel
from tradeback.recorder.levels import Levels, Seed
from tradeback.recorder.sinks import Sink, journal_end
from tradeback.recorder.stored_levels import Before, StoredLevels, stored_before
from tradeback.recorder.symbols import SymbolBook
from tradeback.store.base import History

log = structlog.get_logger(__name__)


class LevelTarget(Protocol):
    """Somewhere that levels are published: the server, a cache, a bus. Called in the sink's thread; must neither
    block nor raise: it keeps the latest level of each symbol, and sees to its own retries."""

    def publish(self, symbol: str, level: EnigmaLevel) -> None:
        """Take a level over; what was taken of this symbol before and is still on its way may be dropped."""


def enigma_message(symbol: str, level: EnigmaLevel) -> dict[str, Any]:
    """The level as it is told outside: JSON's types, `timestamp` in unix ms. See docs/protocol.md."""
    return {
        "type": "enigma",
        "data": {
            "symbol": symbol,
            "level": level.level,
            "ath": level.ath,
            "atl": level.atl,
            "current_price": level.price,
            "fib_levels": level.fib_levels,
            "timestamp": level.ts_event // 1_000_000,
        },
    }


class EnigmaSink(Sink):
    """Publishes a level when it changed, at most once a second a symbol, and the last change always: to the
    `targets` and into the store. While it is far behind nothing is published: what was true an hour ago is no news.
    `keepers` are told at its start what is stored, too.

    A store that is away keeps nobody else waiting: the latest level of each symbol is stored later, and what was
    stored before is taken up later. Until then a level may be published again that was published before.
    """

    def __init__(
        self,
        folder: Path,
        stats: Stats,
        window: float,
        history: History,
        symbols: SymbolBook,
        targets: Sequence[LevelTarget],
        keepers: Sequence[LevelTarget] = (),
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__("indicators", folder, stats, window)
        self._history = history
        self._symbols = symbols
        self._targets = targets
        self._keepers = keepers
        self._clock_ns = clock_ns
        self._levels = Levels(self._seed)
        self._begun = False
        self._names: dict[int, str] = {}
        self._widened: deque[int] = deque()
        self._stored = StoredLevels(history, symbols)
        self._newest: dict[int, EnigmaLevel] = {}  # stored ones of symbols that had no trade here yet

    def refresh(self, stream_id: int) -> None:
        """Bars of the symbol were stored that are not of trades: see to its highest and lowest price again. From
        any thread."""
        self._widened.append(stream_id)

    def open(self) -> Mapping[str, int]:
        # First the place, then the prices: what is stored in between is read from the journal too.
        places = self._history.places()
        if not self._begun:
            try:
                before = stored_before(self._history, self._symbols)
            except StoreError as error:
                log.warning("levels begin without those that are stored", reason=str(error))
                self._stored.read_later()
            else:
                self._take_up(before)
            self._stored.start()
            self._begun = True
        return places

    def take(self, journal: str, records: list[Record]) -> None:
        now_ns = self._clock_ns()
        names, trade = self._names, self._levels.trade
        refused = 0
        for record in records:
            if type(record) is JournalTrade:
                stream_id = record.stream_id
                # The history sink tells of ids that the catalog does not know.
                if stream_id in names or self._name(stream_id):
                    refused += not trade(stream_id, record.price, record.ts_event, record.flags, now_ns)
        if refused:
            self._stats.increase("prices_refused", refused)
            log.error("records without a price were passed over", journal=journal, records=refused)

    def commit(self, places: Mapping[str, int]) -> None:
        """Nothing is kept with the places: after a crash `_take_up` finds what was not published."""

    def at_end(self) -> bool:
        self._take_up(self._stored.taken())
        now_ns = self._clock_ns()
        while self._widened:
            stream_id = self._widened[0]
            self._levels.widen(stream_id, self._history.extremes(stream_id), now_ns)
            self._widened.popleft()
        moment = self._levels.next_due()
        if moment is not None and moment <= now_ns:
            self._publish(now_ns)
        return False

    def finish(self) -> None:
        """What waits for its second is published now."""
        self._publish(self._clock_ns(), everything=True)
        self._stored.stop()

    def _publish(self, now_ns: int, *, everything: bool = False) -> None:
        due = self._levels.due(now_ns, everything=everything)
        for level in due:
            self._stored.put(level)
            for target in self._targets:
                target.publish(self._names[level.stream_id], level)
        self._levels.told(due, now_ns)
        self._stats.increase("levels", len(due))

    def _go_to_truth(self, journal: str, cursor: JournalCursor, saved: bool, stored: int | None) -> None:
        """Below the history's place all prices are in the store, above it they are read."""
        if stored is None or not 0 < stored <= journal_end(self._folder / journal):
            cursor.seek("oldest")
        elif not saved or stored < cursor.seq:
            cursor.seek(stored)

    def _take_up(self, before: Sequence[Before]) -> None:
        """Take up where the last run was killed: a level may have changed and not been published. Of a symbol that
        never had one, the newest trade may be stored already, and not be read here any more."""
        now_ns = self._clock_ns()
        for symbol, level, ticks in before:
            # Read later than its first trade came here, what is stored is not the latest any more.
            late = FLAGS["late"] if symbol.stream_id in self._levels else 0
            if level is not None and not late:
                self._newest[symbol.stream_id] = level
                for keeper in self._keepers:
                    keeper.publish(symbol.name, level)
            self._names[symbol.stream_id] = symbol.name
            for tick in ticks:
                self._levels.trade(tick.stream_id, tick.price, tick.ts_event, tick.flags | late, now_ns)

    def _seed(self, stream_id: int) -> Seed:
        return Seed(self._history.extremes(stream_id), self._newest.pop(stream_id, None))

    def _name(self, stream_id: int) -> str:
        symbol = self._symbols.symbol(stream_id)
        if symbol is None:
            return ""
        self._names[stream_id] = symbol.name
        return symbol.name
