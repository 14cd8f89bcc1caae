"""A sink: reads a journal with a durable cursor into a store keyed by number, until it is killed.

`journal_reader.py FOLDER STORE FD`. The store is a file with 8 bytes a number, so writing twice changes
nothing; the place is saved only now and then, as a real sink does. At a record that is wrong, missing or out
of order it ends with a message. FD is told the number after the last record that is stored.
"""

from __future__ import annotations

import os
import sys

from tests.chaos.journal_content import content
from tradeback._fast.journal import JournalCursor, JournalTrade

SAVE_EVERY = 3


def main() -> None:
    folder, store, fd = sys.argv[1], os.open(sys.argv[2], os.O_RDWR | os.O_CREAT), int(sys.argv[3])
    cursor = JournalCursor.open(folder, "sink")
    expected = cursor.seq or 1
    rounds = 0
    while True:
        records = cursor.read(256)
        for record in records:
            if record.seq != expected or not isinstance(record, JournalTrade):
                sys.exit(f"{record} came where {expected} was to come")
            for name, value in content(record.seq).items():
                if getattr(record, name) != value:
                    sys.exit(f"{record} is wrong: {name} should be {value}")
            os.pwrite(store, record.trade_id.to_bytes(8, "little"), record.seq * 8)
            expected += 1
        if cursor.damaged or cursor.skipped:
            sys.exit(f"{cursor.damaged} records are damaged, {cursor.skipped} left out")
        rounds += 1
        if not records or rounds % SAVE_EVERY == 0:
            cursor.save()
            os.write(fd, cursor.seq.to_bytes(8, "little"))
        if not records:
            cursor.wait(1.0)


if __name__ == "__main__":
    main()
