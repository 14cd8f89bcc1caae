"""`python -m tests.store.history_writer FOLDER`: writes one numbered batch after the other, until it is killed.

It goes on where the stored place says, and prints each number when its batch is written. What a batch holds follows
from its number alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.reference.history import PlainHistory
from tests.store.conftest import sqlite_history
from tradeback.model import MINUTE_NS, RESOLUTIONS, Bar, Gap, Tick
from tradeback.store.base import HistoryBatch

DAY = 20_000 * RESOLUTIONS["1d"]
TICKS_EACH = 40


def batch(number: int) -> HistoryBatch:
    """Two symbols; a new minute with each batch, and the one before is written again, more whole."""
    ticks = [
        Tick(1 + n % 2, number * TICKS_EACH + n, 1, 100.0 + n, 0.1, 0.0, 0.0, DAY + number * MINUTE_NS + n, 0)
        for n in range(TICKS_EACH)
    ]
    minutes = [
        (stream_id, Bar(DAY + at * MINUTE_NS, 100.0, 140.0, 100.0, 139.0, 0.1 * count, count))
        for stream_id in (1, 2)
        for at, count in ((number - 1, 20), (number, 7))
        if at >= 0
    ]
    return HistoryBatch(
        ticks=ticks,
        minutes=minutes,
        covered=[(1, 0, (number + 1) * TICKS_EACH - 1)],
        gaps=[Gap(2, number * TICKS_EACH, number * TICKS_EACH, DAY, 1)],
        filled=[(2, (number - 1) * TICKS_EACH)] if number else [],
        places={"journal": number + 1},
    )


def plain(count: int) -> PlainHistory:
    """What is there after so many batches."""
    expected = PlainHistory()
    for number in range(count):
        content = batch(number)
        expected.add_ticks(content.ticks)
        for stream_id, bar in content.minutes:
            expected.add_bar(stream_id, "1m", bar)
    return expected


def main(folder: str) -> None:
    history = sqlite_history(Path(folder))
    number = history.places().get("journal", 0)
    while True:
        history.write(batch(number))
        number += 1
        print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
