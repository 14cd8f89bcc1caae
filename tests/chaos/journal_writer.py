"""Appends to a journal until it is killed, and tells the numbers it was given.

`journal_writer.py FOLDER FD`: FD is told every fortieth number, 8 bytes each.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from tests.chaos.journal_content import content
from tradeback._fast.journal import JournalWriter
from tradeback.errors import DataFolderError

SEGMENT_BYTES = 4096 + 64 * 700
TELL_EVERY = 40
MANY = 20_000  # several times what a test waits for


def main() -> None:
    folder, fd = sys.argv[1], int(sys.argv[2])
    writer = JournalWriter.open(folder, "sim/main", SEGMENT_BYTES)
    failed, slow_from = threading.Event(), writer.next_seq + MANY

    def prepare() -> None:
        try:
            while True:
                if writer.needs_prepare:
                    writer.prepare()
                time.sleep(0.0002)
        finally:
            failed.set()

    threading.Thread(target=prepare, daemon=True).start()
    while not failed.is_set():
        try:
            seq = writer.append_trade(**content(writer.next_seq))
        except DataFolderError:
            # The other thread is about to reserve the next segment.
            time.sleep(0)
            continue
        if seq % TELL_EVERY == 0:
            os.write(fd, seq.to_bytes(8, "little"))
        if seq > slow_from:
            # Nobody has killed it yet: on a busy machine the reader starts late, and has all of this to read.
            time.sleep(0.001)
    sys.exit("prepare failed")


if __name__ == "__main__":
    main()
