"""What a start finds after the last end: the table is brought up to the journal, never the reverse."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import structlog

from tradeback._fast.journal import JournalCursor, JournalWriter
from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import TableReader
from tradeback.model import Symbol

log = structlog.get_logger(__name__)

RECORDS_A_READ = 16384


def bring_up(table: SymbolTable, table_path: Path, journal: JournalWriter, symbols: Iterable[Symbol]) -> None:
    """Replay into the table what the journal holds and the table does not. Call it before the first event.

    Symbols that had id ranges open are added first; these are then given up as gaps at once. Where the table does not
    know how much of the journal it holds (rows were emptied, or it is new: it was lost, or never part of a copy of the
    folder), all symbols are, so that the replay fills their rows and what was missed since is a gap.
    """
    replayed = 0
    with JournalCursor.open(journal.folder) as cursor:
        anew = table.applied_seq == 0 and cursor.available() > 0
        reader = TableReader.open(str(table_path))
        try:
            for symbol in symbols:
                row = None if anew else reader.read(symbol.stream_id)
                if anew or (row is not None and row.open_ranges):
                    table.add(symbol.name, symbol.stream_id, symbol.info.quantity_precision)
        finally:
            reader.close()
        cursor.seek(table.replay_from(cursor.seq, journal.next_seq))
        while cursor.available():
            seq, records = cursor.read_bytes(RECORDS_A_READ)
            replayed += table.replay(records, seq)
    if replayed or anew:
        log.info(
            "the table was brought up to the journal",
            records=replayed,
            emptied_rows=len(table.torn_stream_ids),
            after_machine_crash=table.rebuild,
            unreplayed=table.unreplayed,
        )
