"""A recording in place of the exchange: pushed through the arbitration into the journal, as fast as it goes.

Time is the recording's own, for deadlines too: the journal that comes of it does not depend on the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import structlog

from tradeback._fast.decode import DECODED_UNUSUAL
from tradeback._fast.fanout import FanOut
from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import JournalWriter
from tradeback._fast.record import LAYOUT
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable
from tradeback.config import JournalConfig
from tradeback.errors import ExchangeError
from tradeback.exchange.binance import canonical_message
from tradeback.exchange.recording import recorded_lines
from tradeback.model import Symbol, SymbolInfo
from tradeback.recorder.scan import scan_recording
from tradeback.recovery import bring_up
from tradeback.store.base import Catalog

log = structlog.get_logger(__name__)

LAST_DEADLINE_NS = 1_000_000_000  # what waits at the end has 250 ms
AHEAD_MAX = 500_000  # records, 32 MB
FOLLOW_PAUSE = 0.01
LOGGED_MAX = 20  # lines of no use


class ReplayReport(NamedTuple):
    """Messages that were pushed, and records that were journaled: none where all of it was known before.

    `faults` is a sentence about what was of no use, empty where nothing was; `stopped`: before the end.
    """

    messages: int
    journaled: int
    faults: str
    stopped: bool


class Replay:
    """A recording, and the data folder of one exchange that it goes to.

    Opening it reads the recording once through, so that it is known before the start what is of no use. ExchangeError
    where it cannot be read or holds no message. `stop` ends it early, this reading and `run` alike.
    """

    def __init__(self, path: Path, stop: threading.Event | None = None) -> None:
        self.path = path
        self._stop = stop or threading.Event()
        self.scan = scan_recording(path, self._stop)
        if not self.scan.symbols and not self._stop.is_set():
            faults = self.scan.faults()
            raise ExchangeError(
                f"{path} holds no trade, aggTrade or bookTicker to replay{': ' if faults else ''}{faults}"
            )

    def listing(self, known: Iterable[Symbol]) -> list[SymbolInfo]:
        """What the catalog is to list: what it has, and behind it the symbols of the recording that it has not.

        A symbol whose recorded numbers have more decimals than the catalog says gets these: none is to be rounded.
        """
        infos = {symbol.name: symbol.info for symbol in known}
        for name, seen in sorted(self.scan.symbols.items()):
            info = infos.get(name, seen.info(name))
            infos[name] = replace(
                info,
                price_precision=max(info.price_precision, seen.price_decimals),
                quantity_precision=max(info.quantity_precision, seen.quantity_decimals),
            )
        return list(infos.values())

    def run(
        self,
        folder: Path,
        exchange: str,
        catalog: Catalog,
        config: JournalConfig,
        *,
        read_to: Callable[[], int] | None = None,
    ) -> ReplayReport:
        """Push it into the journal of `folder`, and its symbols into the catalog. What was there before is there once.

        `read_to` tells the number of the next record that the slowest reader takes: it is waited
        for where it falls far behind, so that the journal's retention never overtakes it. Blocks: for a thread.
        DataFolderError where a server runs on the folder, or its files cannot be used.
        """
        if self._stop.is_set():
            return ReplayReport(0, 0, "", True)
        with ExitStack() as stack:
            journal = JournalWriter.open(
                folder / "journal",
                exchange,
                segment_bytes=config.segment_bytes,
                retention_bytes=config.retention_bytes,
            )
            stack.callback(journal.close)
            table_path = folder / "table"
            table = SymbolTable.open(str(table_path), exchange)
            stack.callback(table.close)
            # Again, as it must be on the disk before the table is marked clean; closing twice is no error.
            stack.callback(journal.close)
            stats = Stats.in_memory()
            stack.callback(stats.close)
            catalog.sync_symbols(self.listing(catalog.symbols()))
            known = {symbol.name: symbol for symbol in catalog.symbols()}
            bring_up(table, table_path, journal, known.values())
            for name, seen in self.scan.symbols.items():
                slot = table.add(name, known[name].stream_id, known[name].info.quantity_precision)
                if seen.first_id is not None and seen.first_id > cast(int, table.state(slot)["next_id"]):
                    # What was traded between the end of the journal and the begin of the recording is no gap.
                    table.drop(known[name].stream_id)
                table.carry(slot)
            pace = _Pace(journal, config.retention_bytes, self._stop, read_to)
            begun = journal.next_seq
            messages = self._push(Ingest(table, journal, FanOut(table, stats), stats), pace)
            return ReplayReport(
                messages, journal.next_seq - begun, self._faults(stats.value("refused")), pace.stopped
            )

    def _push(self, ingest: Ingest, pace: _Pace) -> int:
        messages = 0
        clock = 0
        useless = self.scan.useless
        try:
            for number, received, text in recorded_lines(self.path, lambda number, reason: None):
                if number in useless:
                    continue
                # Deadlines need a clock that never goes back, and receipts are as they were recorded.
                received_ns = int(received * 1e9)
                if clock:
                    ingest.tick(clock := max(clock, received_ns))
                else:
                    clock = max(received_ns, LAST_DEADLINE_NS)
                payload = text.encode()
                if ingest.take(payload, received_ns, clock) == DECODED_UNUSUAL:
                    canonical = canonical_message(payload)
                    if canonical is not None:
                        ingest.take(canonical, received_ns, clock)
                messages += 1
                pace.keep()
                if pace.stopped:
                    break
        except ExchangeError:
            if not self.scan.broken_off:
                raise
        ingest.tick(clock + LAST_DEADLINE_NS)
        return messages

    def _faults(self, refused: int) -> str:
        for number in sorted(self.scan.useless)[:LOGGED_MAX]:
            log.warning("a line was left out", line=number, reason=self.scan.useless[number])
        told = [self.scan.faults()] if self.scan.faults() else []
        if refused:
            told.append(
                f"{refused:,} of its messages were refused: their values cannot be, or their trade ids are 2**32 or "
                "more above those that the data folder holds"
            )
        return "; ".join(told)


class _Pace:
    """Room in the journal ahead of need, and readers that are never left behind by more than half of what it keeps."""

    def __init__(
        self,
        journal: JournalWriter,
        retention_bytes: int,
        stop: threading.Event,
        read_to: Callable[[], int] | None,
    ) -> None:
        self.stopped = False
        self._journal = journal
        self._stop = stop
        self._read_to = read_to
        self._ahead = min(AHEAD_MAX, retention_bytes // (2 * LAYOUT["journal_record_bytes"]))
        self._look_at = journal.next_seq

    def keep(self) -> None:
        """Call it after each message, which is never as long as a segment. Blocks where readers are far behind."""
        if self._journal.needs_prepare:
            for lost in self._journal.prepare().overrun:
                log.error("a reader of the journal lost its place", reason=lost)
        if self._stop.is_set():
            self.stopped = True
        elif self._journal.next_seq >= self._look_at:
            self._look_at = self._journal.next_seq + self._ahead // 8
            while self._read_to is not None and self._journal.next_seq - self._read_to() > self._ahead:
                if self._stop.wait(FOLLOW_PAUSE):
                    self.stopped = True
                    return
