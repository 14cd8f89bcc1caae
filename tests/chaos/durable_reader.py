"""A reader of the journal that may be killed at any moment: `python -m tests.chaos.durable_reader JOURNAL OUT`.

It appends what it read to OUT, a line a record, and saves its place after. What it writes twice it wrote before its
place was saved; that is what "at least once" means, and its sequence number tells.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tradeback._fast.journal import JournalCursor


def follow(journal: Path, out: Path) -> None:
    """Read for ever."""
    with JournalCursor.open(journal, "durable-reader") as cursor, out.open("ab", buffering=0) as lines:
        while True:
            seq, records = cursor.read_bytes(500)
            if not records:
                cursor.wait(1.0)
                continue
            rows = [records[at : at + 64] for at in range(0, len(records), 64)]
            lines.write(b"".join(b"%d %s\n" % (seq + i, row.hex().encode()) for i, row in enumerate(rows)))
            cursor.save()


if __name__ == "__main__":
    follow(Path(sys.argv[1]), Path(sys.argv[2]))
