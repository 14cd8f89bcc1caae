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

    Symbols whose rows were emptied (torn by a kill, or all of them after a machine crash) are added first, so
    that the replay fills them; so are those that had id ranges open, which are then given up as gaps at once.
    """
    known = list(symbols)
    emptied = set(table.torn_stream_ids)
    reader = TableReader.open(str(table_path))
    try:
        for symbol in known:
            row = None if table.rebuild else reader.read(symbol.stream_id)
            if table.rebuild or symbol.stream_id in emptied or (row is not None and row.open_ranges):
                table.add(symbol.name, symbol.stream_id, symbol.info.quantity_precision)
    finally:
        reader.close()
    replayed = 0
    with JournalCursor.open(journal.folder) as cursor:
        cursor.seek(table.replay_from(cursor.seq, journal.next_seq))
        while cursor.available():
            seq, records = cursor.read_bytes(RECORDS_A_READ)
            replayed += table.replay(records, seq)
    if replayed or emptied or table.rebuild:
        log.info(
            "the table was brought up to the journal",
            records=replayed,
            emptied_rows=len(emptied),
            after_machine_crash=table.rebuild,
            unreplayed=table.unreplayed,
        )
