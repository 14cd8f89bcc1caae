"""A writer of the table in a process of its own, for the tests to watch and to kill.

`python -m tests.chaos.table_writer PATH JOURNAL`: trades whose fields all follow from the id, each
journaled (in one write, so that a kill leaves whole records) and then published, as fast as it can; ids are
skipped and brought late, so that open ranges change too. Prints a line when the first ten are published.
"""

from __future__ import annotations

import os
import sys

from tradeback._fast.table import SymbolTable

STREAM_ID = 9
PRECISION = 3
BASE_NS = 1_700_000_000 * 10**9
TRADE, QUOTE = 1, 3


def units_of(id_: int) -> int:
    """The quantity of a trade, in units."""
    return id_ % 997 + 1


def write(path: str, journal_path: str) -> None:
    """Runs until it is killed."""
    table = SymbolTable.open(path, "sim")
    slot = table.add("TORTURE", STREAM_ID, PRECISION)
    journal = os.open(journal_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    seq = os.fstat(journal).st_size // 64
    begin = table.replay_from(0, seq)
    table.replay(os.pread(journal, (seq - begin) * 64, begin * 64), begin)
    now = 10**9
    while records := table.expired(now):
        os.write(journal, b"".join(records))
        seq += len(records)
        table.publish_slot(slot, seq)
    next_id = table.state(slot)["next_id"]
    assert isinstance(next_id, int)
    id_ = next_id or 1000
    told = False
    while True:
        # Of ten ids, two change places: an open range comes and goes.
        for step in (0, 1, 2, 4, 3, 5, 6, 7, 8, 9):
            trade = id_ + step
            now += 1000
            _, records = table.take(
                TRADE,
                "TORTURE",
                trade,
                trade,
                price=float(trade),
                mantissa=units_of(trade),
                scale=PRECISION,
                ts_event=BASE_NS + trade,
                recv_ns=BASE_NS + 2 * trade,
                now_ns=now,
            )
            os.write(journal, b"".join(records))
            seq += len(records)
            table.publish_slot(slot, seq)
            quote = float(seq)
            table.take(QUOTE, "TORTURE", 0, seq, quote=(quote, quote, quote, quote), recv_ns=seq, now_ns=now)
            table.publish_slot(slot, seq)
        id_ += 10
        if not told:
            print("published", flush=True)
            told = True


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2])
